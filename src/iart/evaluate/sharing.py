"""A benchmark's output folder, which several processes may fill together and a later run goes on.

    run.json            what is measured, and a token that differs from run to run
    clips/<name>.json   a finished clip, written in one piece; counts for the run of its token
    .lock               who does what

A clip is claimed by a lock on one byte of the lock file, which is free again when its process ends,
however it ends: nobody waits for the dead.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from iart.errors import DataError, OutputError
from iart.evaluate.layout import Clip
from iart.evaluate.locks import LockFile
from iart.evaluate.record import ClipRecord, from_json, to_json
from iart.weights.tensorfile import atomic_file

# Bytes of the lock file; those of clips follow.
GATE, PRESENCE, REPORT, FIRST_CLIP = range(4)
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Finished:
    """A clip that is done.

    Attributes:
        clip: its scores.
        device: that did it, in words.
        notes: what went wrong, one line each.
    """

    clip: ClipRecord
    device: str
    notes: tuple[str, ...] = ()


class SharedFolder:
    """The output folder of one run while this process works in it; a context manager.

    Attributes:
        folder: the folder.
        frames: how many frames the clips have that are known to be done.
    """

    def __init__(
        self,
        folder: Path,
        clips: Sequence[Clip],
        identity: dict[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        """Join the run that the folder holds, or start one.

        Args:
            folder: made if missing.
            clips: of the run, the same for every process.
            identity: all that scores depend on besides the clips' images, as JSON can hold it.
            overwrite: replace another run, or the same, unless a process is at work in it.

        Raises:
            OutputError: the folder holds another run, or cannot be written.
        """
        self.folder, self._clips = folder, clips
        self._finished: dict[str, Finished] = {}
        self.frames = 0
        with writing(folder):
            (folder / "clips").mkdir(parents=True, exist_ok=True)
        self._locks = LockFile(folder / ".lock")
        try:
            with self._locks.locked(GATE):
                alone = self._locks.try_lock(PRESENCE)
                empty = next((folder / "clips").rglob("*.json"), None) is None
                anew = alone and (overwrite or empty)
                token = self._join(json.loads(json.dumps(identity)), anew=anew)
                self._locks.lock(PRESENCE, shared=True)
        except BaseException:
            self._locks.close()
            raise
        self._stamps = {clip.name: _stamp(clip, token) for clip in clips}

    def __enter__(self) -> "SharedFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._locks.close()

    def seen(self) -> list[Finished]:
        """Clips that are known to be done, by whomever, in the run's order."""
        return [self._finished[c.name] for c in self._clips if c.name in self._finished]

    def claims(self, waiting: Callable[[], None] = lambda: None) -> Iterator[Clip]:
        """Clips for this process, one after another; ends when all clips of the run are done.

        While others work on the last clips this waits, to take over from one that dies. Each clip
        has to be saved before the next is asked for.

        Args:
            waiting: called now and then while there is nothing to do but wait.
        """
        while True:
            claimed = False
            for index, clip in enumerate(self._clips):
                if self._is_done(clip) or not self._locks.try_lock(FIRST_CLIP + index):
                    continue
                try:
                    if not self._is_done(clip):  # by another, in between
                        claimed = True
                        yield clip
                finally:
                    self._locks.unlock(FIRST_CLIP + index)
            if len(self._finished) == len(self._clips):
                return
            if not claimed:
                waiting()
                time.sleep(WAIT_SECONDS)

    def save(self, done: Finished) -> None:
        """Keep a finished clip.

        Raises:
            OutputError: the operating system refuses.
        """
        path = self._path(done.clip.name)
        tree = {
            "stamp": self._stamps[done.clip.name],
            "device": done.device,
            "notes": done.notes,
            "clip": json.loads(to_json(done.clip)),
        }
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps(tree, indent=1).encode())
        self._keep(done)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """One process at a time inside."""
        with self._locks.locked(REPORT):
            yield

    def _is_done(self, clip: Clip) -> bool:
        if clip.name not in self._finished and (found := self._read(clip)) is not None:
            self._keep(found)
        return clip.name in self._finished

    def _keep(self, done: Finished) -> None:
        self._finished[done.clip.name] = done
        self.frames += len(done.clip.frames)

    def _path(self, name: str) -> Path:
        return self.folder / "clips" / f"{name}.json"

    def _read(self, clip: Clip) -> Finished | None:
        """A finished clip, unless its images have changed since, or the file is no such thing."""
        path = self._path(clip.name)
        try:
            tree = json.loads(path.read_bytes())
            if tree["stamp"] != self._stamps[clip.name]:
                return None
            record = from_json(json.dumps(tree["clip"]), ClipRecord, source=str(path))
            return Finished(record, str(tree["device"]), tuple(map(str, tree["notes"])))
        except (OSError, ValueError, KeyError, TypeError, DataError):
            return None

    def _join(self, identity: dict[str, Any], *, anew: bool) -> str:
        """The token of the run in the folder, which is started if there is none or `anew`."""
        path = self.folder / "run.json"
        try:
            other = json.loads(path.read_bytes())
            token, known = str(other["token"]), dict(other["run"])
        except FileNotFoundError:
            anew = True
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not anew:
                raise OutputError(
                    f"'{path}' is not of a benchmark run. Pass another output (--output), "
                    "or overwrite it (--overwrite)"
                ) from error
        else:
            changed = [key for key in {**identity, **known} if identity.get(key) != known.get(key)]
            if changed and not anew:
                key = changed[0]
                values = f" ({known.get(key)}, now {identity.get(key)})" * (key != "protocol")
                raise OutputError(
                    f"'{self.folder}' holds a run with another {key}{values}. "
                    "Pass another output (--output), or overwrite it (--overwrite)"
                )
            if not anew:
                return token
        token = secrets.token_hex(8)
        with atomic_file(path) as file:
            file.write(json.dumps({"token": token, "run": identity}, indent=1).encode())
        return token


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The system's refusals inside the block become an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error


def _stamp(clip: Clip, token: str) -> str:
    """Changes with the run, and when an image of the clip is replaced or changed."""
    digest = hashlib.sha256(repr((token, clip.scored, clip.size)).encode())
    for path in (*clip.gt, *clip.lq, *clip.results):
        status = path.stat()
        digest.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
