"""Jobs of a folder: they live on the disk, each as a process of `iart`.

    .iart/jobs/ID/
        job.json   what is to be done
        lock       held by the process as long as it runs, whoever started it
        pid        of that process
        wanted     "run" or "pause", as asked last
        result     exit code, once it has ended of itself
        log        what it wrote

A process outlives a server that is killed; the next server finds it by its lock, and nobody starts
a second one. What was to run and does not is started again: `iart` goes on where it stopped.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from iart.errors import IARTError, InputError, OptionsError
from iart.files.complete import write_json
from iart.files.names import hidden_name
from iart.web.command import (
    PREVIEW_SECONDS,
    environment,
    error_of,
    iart_command,
    preview_flags,
    run_iart,
)
from iart.web.folder import OWN, Folder

State = Literal["waiting", "running", "stopping", "paused", "done", "failed"]
Kind = Literal["film", "preview", "compare"]

LOOK_EVERY_SECONDS = 0.3
KEPT_PREVIEWS = 8
SIDES = ("before", "after")
"""Of a preview."""
_STOPPED = (130, -signal.SIGTERM)
"""Exit codes of a process that was asked to stop: after and before it listens to that."""
_PROGRESS = re.compile(
    r"^(\d+)(?: of (\d+))? frames, ([\d.]+ (?:fps|s a frame))(?:, (\S+) left)?$", re.MULTILINE
)
_ID = re.compile(r"[0-9a-z-]{4,60}")


@dataclass(frozen=True)
class PageJob:
    """What is to be done.

    Attributes:
        id: its name, of letters, digits and "-"; later ones sort after earlier ones.
        kind: what it is for.
        source: name of the source in the folder.
        output: name of the output in the folder.
        arguments: of `iart`.
    """

    id: str
    kind: Kind
    source: str
    output: str
    arguments: list[str]


@dataclass(frozen=True)
class JobProgress:
    """How far a job has come, as its process wrote last.

    Attributes:
        state: what it does.
        done: frames.
        total: frames, if known.
        speed: as text: "4.1 fps".
        left: time, as text; "" if not known.
        message: the error, or the last line.
    """

    state: State
    done: int = 0
    total: int | None = None
    speed: str = ""
    left: str = ""
    message: str = ""


class Jobs:
    """The jobs of a folder, and the thread that starts them; a context manager."""

    def __init__(self, folder: Folder, *, at_once: int = 1) -> None:
        """Take the folder; the thread starts with the block.

        Args:
            folder: served.
            at_once: films that are enlarged at the same time; previews go beside them.
        """
        if sys.platform == "win32":
            raise OptionsError("iart serve needs Linux or macOS: jobs are found again by flock")
        self._folder, self._at_once = folder, at_once
        self._root = folder.own / "jobs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._changing = threading.RLock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def __enter__(self) -> "Jobs":
        self._server_lock = (self._folder.own / "server.lock").open("w")
        if not _lock(self._server_lock):
            self._server_lock.close()
            raise InputError(f"cannot serve '{self._folder.root}': another iart serve does")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what runs; the next server goes on with it."""
        self._end.set()
        self._thread.join()
        running = [job for job in self.all() if self.is_running(job)]
        for job in running:
            self._signal(job)
        for job in running:
            while self.is_running(job):
                time.sleep(0.05)
        self._server_lock.close()

    def all(self) -> list[PageJob]:
        """All that there are, the latest first; damaged ones are left out."""
        found = []
        for folder in self._root.iterdir():
            with suppress(OSError, ValueError, TypeError):
                found.append(PageJob(**json.loads((folder / "job.json").read_text())))
        return sorted(found, key=lambda job: job.id, reverse=True)

    def find(self, id_: str) -> PageJob:
        """The job of a name that a client gave.

        Raises:
            InputError: there is none.
        """
        if _ID.fullmatch(id_):
            with suppress(OSError, ValueError, TypeError):
                return PageJob(**json.loads((self._root / id_ / "job.json").read_text()))
        raise InputError("there is no such job")

    def add(
        self, kind: Kind, source: str, output: str, arguments: Sequence[str], *, id_: str = ""
    ) -> PageJob:
        """Put a job at the end of the queue; one of the same name and arguments is taken up.

        Raises:
            InputError: another one that has not ended has the same output.
        """
        with self._changing:
            for other in self.all():
                is_same = other.id == id_ and other.arguments == list(arguments)
                if is_same and self.progress(other).state != "failed":
                    return other
                if other.output == output and self.progress(other).state not in ("done", "failed"):
                    raise InputError(f"another job writes '{output}'")
            id_ = id_ or f"{time.time_ns():016x}-{secrets.token_hex(3)}"
            job = PageJob(id_, kind, source, output, list(arguments))
            shutil.rmtree(self._root / id_, ignore_errors=True)
            (self._root / id_).mkdir()
            self._want(job, "run")
            write_json(self._root / id_ / "job.json", asdict(job))
            if kind == "preview":
                self._forget_previews()
            return job

    def pause(self, job: PageJob) -> None:
        """Stop it; what is finished is kept."""
        with self._changing:
            self._want(job, "pause")
            self._signal(job)

    def go_on(self, job: PageJob) -> None:
        """Start it again where it stopped."""
        with self._changing:
            (self._root / job.id / "result").unlink(missing_ok=True)
            self._want(job, "run")

    def cancel(self, job: PageJob) -> None:
        """Stop it and forget it, with what it has begun; a finished output stays."""
        self.pause(job)
        while self.is_running(job):
            time.sleep(0.02)
        with self._changing:
            begun = hidden_name(self._folder.root / job.output, ".job")
            shutil.rmtree(begun, ignore_errors=True)
            shutil.rmtree(self._root / job.id, ignore_errors=True)

    def is_running(self, job: PageJob) -> bool:
        """Whether a process works on it, whoever started it."""
        if (process := self._processes.get(job.id)) is not None:
            process.poll()  # else a dead child would keep its number
        with suppress(OSError), (self._root / job.id / "lock").open("r+") as file:
            return not _lock(file, shared=True)  # looks do not hinder each other
        return False

    def progress(self, job: PageJob) -> JobProgress:
        """How far it has come."""
        folder = self._root / job.id
        log = _text(folder / "log")
        found = _PROGRESS.findall(log)
        done, total, speed, left = found[-1] if found else ("0", "", "", "")
        lines = [line for line in log.splitlines() if not _PROGRESS.fullmatch(line)]
        message, result = lines[-1] if lines else "", _text(folder / "result")
        wanted = _text(folder / "wanted")
        if self.is_running(job):
            state: State = "running" if wanted == "run" else "stopping"
        elif result:
            state = "done" if result == "0" else "failed"
            message = message if state == "done" else str(error_of(log))
        else:
            state = "waiting" if wanted == "run" else "paused"
        known = (int(total) if total else None, speed, "" if left == "?" else left)
        return JobProgress(state, int(done), *known, message)

    def _run(self) -> None:
        while not self._end.wait(LOOK_EVERY_SECONDS):
            with suppress(OSError):
                self._look()

    def _look(self) -> None:
        """Note what has ended, and start what is to run."""
        with self._changing:
            for id_, process in list(self._processes.items()):
                if (code := process.poll()) is not None:
                    del self._processes[id_]
                    with suppress(OSError):  # it may be cancelled
                        if code not in _STOPPED:
                            (self._root / id_ / "result").write_text(str(code))
            states = [(job, self.progress(job).state) for job in reversed(self.all())]
            free = {"film": self._at_once, "preview": 1, "compare": 1}
            for job, state in states:
                free[job.kind] -= state in ("running", "stopping")
            for job, state in states:
                if job.id in self._processes:  # if it has ended by now, the next look notes how
                    continue
                if state == "waiting" and free[job.kind] > 0:
                    self._start(job)
                    free[job.kind] -= 1

    def _start(self, job: PageJob) -> None:
        """Start its process, which takes over the lock and keeps it until it ends."""
        folder = self._root / job.id
        with (folder / "lock").open("w") as lock, (folder / "log").open("wb") as log:
            if not _lock(lock):
                return
            process = subprocess.Popen(
                iart_command(job.arguments),
                cwd=self._folder.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is for the server
            )
            (folder / "pid").write_text(str(process.pid))
        self._processes[job.id] = process

    def _want(self, job: PageJob, what: str) -> None:
        part = self._root / job.id / "wanted.part"
        part.write_text(what)
        part.replace(part.with_suffix(""))  # nobody reads half of it

    def _signal(self, job: PageJob) -> None:
        """Interrupt its process; the lock tells that the number is still its own."""
        if self.is_running(job):
            with suppress(OSError, ValueError):
                os.kill(int(_text(self._root / job.id / "pid")), signal.SIGTERM)

    def _forget_previews(self) -> None:
        previews = [job for job in self.all() if job.kind == "preview" and not self.is_running(job)]
        by_age = sorted(previews, key=lambda job: (self._root / job.id).stat().st_mtime)
        for job in by_age[: -2 * KEPT_PREVIEWS]:
            shutil.rmtree(self._root / job.id, ignore_errors=True)
            (self._folder.root / job.output).unlink(missing_ok=True)


class Previews:
    """Previews in a folder: a piece of a video before and after, each made by a job."""

    def __init__(self, folder: Folder, jobs: Jobs) -> None:
        self._folder, self._jobs = folder, jobs
        # A preview that is being stopped is not taken up.
        self._changing = threading.Lock()

    def begin(
        self,
        source: str,
        model: str,
        values: Mapping[str, Any],
        at: float | None,
        seconds: float | None,
    ) -> str:
        """Start the jobs of a preview, or take up one that is the same.

        Args:
            source: name in the folder.
            model: what `--model` takes.
            values: of the form.
            at: where it begins, in seconds; None for the beginning.
            seconds: its length, within `PREVIEW_SECONDS`; None for the usual one.

        Returns:
            Its name.

        Raises:
            IARTError: the source or an option is refused.
        """
        shortest, longest, most = PREVIEW_SECONDS
        seconds = min(max(float(seconds or most), shortest), longest)
        path = self._folder.find(source)
        words = [str(path), *preview_flags(values, max(0.0, float(at or 0)), seconds)]
        key = " ".join((*words, model, str(path.stat().st_mtime_ns)))
        id_ = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
        for side, name in zip(SIDES, ("bicubic", model), strict=True):
            output = f"{OWN}/previews/{id_}-{side}.mp4"
            command = ["upscale", *words, f"--model={name}", "--progress-every=1"]
            command += [f"--output={self._folder.root / output}", "--overwrite"]
            if side == SIDES[0]:
                run_iart([*command, "--dry-run"], self._folder.root)
            with self._changing:
                self._jobs.add("preview", source, output, command, id_=f"{id_}-{side}")
        return id_

    def stop(self, id_: str) -> None:
        """Nobody waits for it any more; what is finished is kept."""
        for side in SIDES:
            with self._changing, suppress(IARTError):
                job = self._jobs.find(f"{id_}-{side}")
                if self._jobs.progress(job).state not in ("done", "failed"):
                    self._jobs.cancel(job)

    def progress(self, id_: str) -> list[JobProgress]:
        """How far both videos are; none if the preview is gone: another tab has stopped it."""
        try:
            return [self._jobs.progress(self._jobs.find(f"{id_}-{side}")) for side in SIDES]
        except IARTError:
            return []


def _lock(file: IO[str], *, shared: bool = False) -> bool:
    """Whether the lock of an open file could be taken; it goes with the file, in all processes."""
    import fcntl  # which Windows lacks

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
