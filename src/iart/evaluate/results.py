"""A benchmark's output folder, which one run fills and a later one resumes.

run.json            what is measured, and a token that differs from run to run
clips/<name>.json   a finished clip, complete or absent; counts for the run of its token
.lock               held by the run that is at work
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iart.errors import OutputError
from iart.evaluate.clips import Clip
from iart.evaluate.record import ClipRecord, from_json, to_json
from iart.files.complete import complete_file, writing
from iart.files.locks import locked


@dataclass(frozen=True)
class FinishedClip:
    """A clip that is done.

    Attributes:
        clip: its scores.
        device: that did it, in words.
        notes: what went wrong, one line each.
    """

    clip: ClipRecord
    device: str
    notes: tuple[str, ...] = ()


class ResultFolder:
    """Finished clips of one run; see `open_results`.

    Attributes:
        finished: by name.
    """

    def __init__(self, folder: Path, clips: Sequence[Clip], token: str) -> None:
        """Read what is finished of the run with this token."""
        self._folder, self._clips = folder, clips
        self._stamps = {clip.name: _stamp(clip, token) for clip in clips}
        found = {clip.name: self._read(clip.name) for clip in clips}
        self.finished = {name: done for name, done in found.items() if done is not None}

    def left(self) -> list[Clip]:
        """Clips that are not finished, in the run's order."""
        return [clip for clip in self._clips if clip.name not in self.finished]

    def in_order(self) -> list[FinishedClip]:
        """Clips that are finished, in the run's order."""
        return [self.finished[c.name] for c in self._clips if c.name in self.finished]

    def save(self, done: FinishedClip) -> None:
        """Keep a finished clip.

        Raises:
            OutputError: the operating system refuses.
        """
        tree = {
            "stamp": self._stamps[done.clip.name],
            "device": done.device,
            "notes": done.notes,
            "clip": json.loads(to_json(done.clip)),
        }
        with complete_file(self._path(done.clip.name), parents=True) as file:
            file.write(json.dumps(tree, indent=1).encode())
        self.finished[done.clip.name] = done

    def _path(self, name: str) -> Path:
        return self._folder / "clips" / f"{name}.json"

    def _read(self, name: str) -> FinishedClip | None:
        """A finished clip, unless its images have changed since, or the file is no such thing."""
        path = self._path(name)
        try:
            tree = json.loads(path.read_bytes())
            if tree["stamp"] != self._stamps[name]:
                return None
            record = from_json(json.dumps(tree["clip"]), ClipRecord)
            return FinishedClip(record, str(tree["device"]), tuple(map(str, tree["notes"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None


@contextmanager
def open_results(
    folder: Path, clips: Sequence[Clip], identity: dict[str, Any], *, overwrite: bool = False
) -> Iterator[ResultFolder]:
    """Resume the run that a folder holds, or start one; no other run can while the block lasts.

    Args:
        folder: made if missing.
        clips: of the run.
        identity: all that scores depend on besides the clips' images, as JSON can hold it.
        overwrite: replace another run, or the same.

    Raises:
        OutputError: the folder is in use, holds another run, or cannot be written.
    """
    with ExitStack() as stack:
        with writing(folder):
            (folder / "clips").mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(folder / ".lock", wait=False))
            except BlockingIOError:
                raise OutputError(
                    f"another run is writing to '{folder}'. Wait until it has ended, or pass "
                    "another output (--output)"
                ) from None
        empty = next((folder / "clips").rglob("*.json"), None) is None
        identity = json.loads(json.dumps(identity))
        yield ResultFolder(folder, clips, _token(folder, identity, anew=overwrite or empty))


def _token(folder: Path, identity: dict[str, Any], *, anew: bool) -> str:
    """The token of the run in the folder, or of one that is started.

    Raises:
        OutputError: there is another run, and `anew` is not set.
    """
    path = folder / "run.json"
    if not anew and path.exists():
        try:
            other = json.loads(path.read_bytes())
            token, known = str(other["token"]), dict(other["run"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"'{path}' is not of a benchmark run. Pass another output (--output), "
                "or overwrite it (--overwrite)"
            ) from error
        changed = [key for key in {**identity, **known} if identity.get(key) != known.get(key)]
        if not changed:
            return token
        key = changed[0]
        values = f" ({known.get(key)}, now {identity.get(key)})" * (key != "protocol")
        raise OutputError(
            f"'{folder}' holds a run with another {key}{values}. "
            "Pass another output (--output), or overwrite it (--overwrite)"
        )
    token = secrets.token_hex(8)
    with complete_file(path) as file:
        file.write(json.dumps({"token": token, "run": identity}, indent=1).encode())
    return token


def _stamp(clip: Clip, token: str) -> str:
    """Changes with the run, and when an image of the clip is replaced or changed."""
    digest = hashlib.sha256(repr((token, clip.scored, clip.size)).encode())
    for path in (*clip.gt, *clip.lq, *clip.results):
        status = path.stat()
        digest.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
