"""An output folder: runs never mix, clips are claimed once, the dead block nobody."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iart.errors import OutputError
from iart.evaluate.layout import Clip
from iart.evaluate.record import ClipRecord, FrameScore
from iart.evaluate.sharing import Finished, SharedFolder

IDENTITY = {"weights": "abc", "limit": None, "protocol": {"name": "made"}}


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    made = []
    for name in ("a", "x/b", "c"):
        image = tmp_path / f"{name.replace('/', '_')}.png"
        image.write_bytes(b"image")
        made.append(Clip(name, (4, 4), (0,), (image,), (image,)))
    return made


def done(name: str, psnr: float = 30.0) -> Finished:
    score = FrameScore("0.png", {"psnr": psnr})
    return Finished(ClipRecord(name, (score,), None, 1.5), "a device", ("a note",))


def work(folder: Path, clips: list[Clip], **options: bool) -> list[str]:
    """Names of the clips that a process does."""
    names = []
    with SharedFolder(folder, clips, IDENTITY, **options) as shared:
        for clip in shared.claims():
            names.append(clip.name)
            shared.save(done(clip.name))
        assert [f.clip.name for f in shared.seen()] == [clip.name for clip in clips]
        assert shared.seen() == [done(clip.name) for clip in clips]
    return names


def test_a_second_run_has_nothing_to_do(tmp_path: Path, clips: list[Clip]):
    assert work(tmp_path / "out", clips) == ["a", "x/b", "c"]
    assert (tmp_path / "out" / "clips" / "x" / "b.json").is_file()
    assert work(tmp_path / "out", clips) == []


def test_what_is_missing_or_damaged_is_done_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    (tmp_path / "out" / "clips" / "a.json").unlink()
    (tmp_path / "out" / "clips" / "c.json").write_text("{")
    assert work(tmp_path / "out", clips) == ["a", "c"]


def test_a_clip_whose_images_changed_is_done_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    clips[1].gt[0].write_bytes(b"another image")
    assert work(tmp_path / "out", clips) == ["x/b"]


def test_overwrite_does_all_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    assert work(tmp_path / "out", clips, overwrite=True) == ["a", "x/b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "def"}, r"another weights \(abc, now def\)"),
        ({"limit": 3}, r"another limit \(None, now 3\)"),
        ({"protocol": {"name": "made", "border": 1}}, "another protocol"),
    ],
)
def test_runs_do_not_mix(
    tmp_path: Path, clips: list[Clip], change: dict[str, object], message: str
):
    work(tmp_path / "out", clips)
    with pytest.raises(OutputError, match=message + r".*--overwrite"):
        SharedFolder(tmp_path / "out", clips, IDENTITY | change)
    with SharedFolder(tmp_path / "out", clips, IDENTITY | change, overwrite=True) as shared:
        assert [clip.name for clip in _all(shared)] == ["a", "x/b", "c"]


def test_a_run_that_finished_nothing_is_in_nobodys_way(tmp_path: Path, clips: list[Clip]):
    with SharedFolder(tmp_path / "out", clips, IDENTITY | {"limit": 3}):
        pass
    assert work(tmp_path / "out", clips) == ["a", "x/b", "c"]


def _all(shared: SharedFolder) -> list[Clip]:
    found = []
    for clip in shared.claims():
        shared.save(done(clip.name))
        found.append(clip)
    return found


def test_a_place_that_cannot_be_written(tmp_path: Path, clips: list[Clip]):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        SharedFolder(tmp_path / "file", clips, IDENTITY)
    work(tmp_path / "out", clips[:1])
    (tmp_path / "out" / "run.json").write_text("no JSON")
    with pytest.raises(OutputError, match=r"run.json' is not of a benchmark run.*--overwrite"):
        SharedFolder(tmp_path / "out", clips, IDENTITY)
    assert work(tmp_path / "out", clips, overwrite=True) == ["a", "x/b", "c"]


def test_overwriting_removes_nothing_that_is_not_ours(tmp_path: Path, clips: list[Clip]):
    mine = tmp_path / "out" / "clips" / "mine.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_text("a video")
    work(tmp_path / "out", clips, overwrite=True)
    work(tmp_path / "out", clips, overwrite=True)
    assert mine.read_text() == "a video"


OTHER = """
import sys, time
from pathlib import Path
from iart.evaluate.sharing import SharedFolder
from tests.evaluate.test_sharing import IDENTITY, done
from iart.evaluate.layout import Clip
folder, seconds, *names = sys.argv[1:]
clips = []
for name in names:
    image = Path(folder).parent / f"{name.replace('/', '_')}.png"
    clips.append(Clip(name, (4, 4), (0,), (image,), (image,)))
with SharedFolder(Path(folder), clips, IDENTITY) as shared:
    for clip in shared.claims():
        print(clip.name, flush=True)
        time.sleep(float(seconds))
        shared.save(done(clip.name))
"""


def other_process(folder: Path, clips: list[Clip], seconds: float) -> "subprocess.Popen[str]":
    """Another process that takes its time for each clip; returns when it has claimed the first."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, folder, str(seconds), *(clip.name for clip in clips)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    return process


def test_processes_share_and_nobody_waits_for_the_dead(tmp_path: Path, clips: list[Clip]):
    folder = tmp_path / "out"
    process = other_process(folder, clips, 600)
    try:
        waits = 0

        def waiting() -> None:
            nonlocal waits
            waits += 1
            os.kill(process.pid, signal.SIGKILL)  # with "a" half done
            process.wait()

        order = []
        with SharedFolder(folder, clips, IDENTITY) as shared:
            for clip in shared.claims(waiting):
                order.append(clip.name)
                shared.save(done(clip.name))
        assert order == ["x/b", "c", "a"]
        assert waits == 1
    finally:
        process.kill()
        process.communicate()


def test_overwriting_joins_those_at_work(tmp_path: Path, clips: list[Clip]):
    folder = tmp_path / "out"
    process = other_process(folder, clips, 1)
    before = time.monotonic()
    try:
        assert "a" not in work(folder, clips, overwrite=True)
        assert time.monotonic() - before < 30
    finally:
        process.kill()
        process.communicate()
    stored = json.loads((folder / "clips" / "a.json").read_bytes())
    assert stored["device"] == "a device"


def test_file_systems_without_locks(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*asked: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("iart.evaluate.locks.fcntl.lockf", refuse)
    assert work(tmp_path / "out", clips) == ["a", "x/b", "c"]
    assert work(tmp_path / "out", clips) == []
