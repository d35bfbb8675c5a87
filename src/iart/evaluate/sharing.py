"""A benchmark's output folder, which several processes may fill together and a later run goes on.

    run.json            what is measured; a folder never mixes two runs
    clips/<name>.json   a finished clip, written in one piece
    .lock               who does what

A clip is claimed by a lock on one byte of the lock file, which is free again when its process ends,
however it ends: nobody waits for the dead.
"""

import hashlib
import json
import shutil
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
    """The output folder of one run while this process works in it; a context manager."""

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
        self._stamps = {clip.name: _stamp(clip) for clip in clips}
        self._finished: dict[str, Finished] = {}
        with writing(folder):
            (folder / "clips").mkdir(parents=True, exist_ok=True)
        self._locks = LockFile(folder / ".lock")
        try:
            with self._locks.locked(GATE):
                if overwrite and self._locks.try_lock(PRESENCE):
                    self._clear()
                self._locks.lock(PRESENCE, shared=True)
                self._join(identity)
        except BaseException:
            self._locks.close()
            raise

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
        self._finished[done.clip.name] = done

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """One process at a time inside."""
        with self._locks.locked(REPORT):
            yield

    def _is_done(self, clip: Clip) -> bool:
        if clip.name not in self._finished and (found := self._read(clip)) is not None:
            self._finished[clip.name] = found
        return clip.name in self._finished

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

    def _join(self, identity: dict[str, Any]) -> None:
        path = self.folder / "run.json"
        identity = json.loads(json.dumps(identity))  # as it comes back
        try:
            other = json.loads(path.read_bytes())
        except FileNotFoundError:
            with atomic_file(path) as file:
                file.write(json.dumps(identity, indent=1).encode())
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read '{path}': {error}. Pass another output") from error
        if other != identity:
            keys = [
                k for k in identity if not isinstance(other, dict) or other.get(k) != identity[k]
            ]
            key = keys[0] if keys else "version"
            was = other.get(key) if isinstance(other, dict) else None
            values = f" ({was}, now {identity.get(key)})" if key != "protocol" else ""
            raise OutputError(
                f"'{self.folder}' holds a run with another {key}{values}. "
                "Pass another output (--output), or overwrite it (--overwrite)"
            )

    def _clear(self) -> None:
        with writing(self.folder):
            shutil.rmtree(self.folder / "clips")
            (self.folder / "clips").mkdir()
            (self.folder / "run.json").unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The system's refusals inside the block become an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error


def _stamp(clip: Clip) -> str:
    """Changes when an image of the clip is replaced or changed."""
    digest = hashlib.sha256(repr((clip.scored, clip.size)).encode())
    for path in (*clip.gt, *clip.lq, *clip.results):
        status = path.stat()
        digest.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
