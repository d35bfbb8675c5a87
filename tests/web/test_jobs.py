"""Jobs live on the disk; short commands of `iart` stand for films."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from iart.cli.console import describe_progress
from iart.errors import InputError
from iart.upscaling.film.request import Progress
from iart.web.folder import Folder
from iart.web.jobs import Jobs, PageJob
from tests.processes import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def in_state(jobs: Jobs, job: PageJob, *states: str) -> Callable[[], bool]:
    return lambda: jobs.progress(job).state in states


def test_jobs_run_and_their_end_is_kept(folder: Folder):
    with Jobs(folder, at_once=2) as jobs:
        good = jobs.add("film", "in.mkv", "a.mkv", ["--version"])
        bad = jobs.add("film", "in.mkv", "b.mkv", ["upscale", "no.mkv", "--cropp=1"])
        wait_until(in_state(jobs, good, "done"))
        wait_until(in_state(jobs, bad, "failed"))
        assert jobs.progress(good).message.startswith("iart ")
        with pytest.raises(InputError, match="another iart serve"), Jobs(folder):
            pass
    again = Jobs(folder)
    assert [job.output for job in again.all()] == ["b.mkv", "a.mkv"]
    assert again.progress(good).state == "done"
    assert "--cropp" in again.progress(bad).message


def test_a_job_that_runs_is_found_by_its_lock_and_not_started_again(folder: Folder):
    jobs = Jobs(folder)
    job = jobs.add("film", "in.mkv", "a.mkv", ["--version"])
    place = folder.own / "jobs" / job.id
    with (place / "lock").open("w") as lock:  # as the process of a server that was killed
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs._look()
        assert jobs.progress(job).state == "running"
        assert not (place / "pid").exists(), "it was started twice"
        with pytest.raises(InputError, match=r"another job writes 'a\.mkv'"):
            jobs.add("film", "other.mkv", "a.mkv", [])
    assert jobs.progress(job).state == "waiting"
    with jobs:
        wait_until(in_state(jobs, job, "done"))


def test_pause_go_on_cancel(folder: Folder):
    jobs = Jobs(folder)
    job = jobs.add("film", "in.mkv", "a.mkv", ["--version"])
    begun = folder.root / ".a.mkv.job"
    begun.mkdir()
    jobs.pause(job)
    with jobs:
        other = jobs.add("preview", "in.mkv", "b.mkv", ["--version"], id_="0123-after")
        assert jobs.add("preview", "in.mkv", "b.mkv", ["--version"], id_="0123-after") == other
        wait_until(in_state(jobs, other, "done"))
        assert jobs.progress(job).state == "paused"
        jobs.go_on(job)
        wait_until(in_state(jobs, job, "done"))
        jobs.cancel(job)
    assert not begun.exists()
    assert [job.id for job in jobs.all()] == ["0123-after"]
    for id_ in (job.id, "", "..", "../jobs", "a/b"):
        with pytest.raises(InputError):
            jobs.find(id_)


def test_progress_is_what_the_process_wrote_last(folder: Folder):
    jobs = Jobs(folder)
    job = jobs.add("film", "in.mkv", "a.mkv", ["--version"])
    log = folder.own / "jobs" / job.id / "log"
    log.write_text(
        "note: x\n3 of 9 frames, 1.5 fps, 0:00:04 left\n4 of 9 frames, 1.6 fps, ? left\n"
    )
    progress = jobs.progress(job)
    assert (progress.done, progress.total, progress.speed, progress.left) == (4, 9, "1.6 fps", "")
    log.write_text(f"{describe_progress(Progress(1, 9, 90.0))}\n")
    assert jobs.progress(job).speed == "90 s a frame", "what the command writes is understood"
    log.write_text("12 frames, 0.5 fps\n")
    assert (jobs.progress(job).done, jobs.progress(job).total) == (12, None)
