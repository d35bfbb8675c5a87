"""A job: the folder beside an output in which its finished parts survive whatever stops the work.

    .out.mkv.job/
        lock         held while a run works here
        job.json     which command it belongs to
        parts/       finished segments or pictures
        end.json     when all of them are there: how many
        tiling.json  what the network is shown at once, decided when the job began
        placed.json  when the finished output is about to get its name: which file that is

The same command goes on where the last one stopped. Another command for the same output is refused.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from iart.errors import OutputError
from iart.inference.tiling import Tiling
from iart.video.frame import Loss
from iart.video.pending import Place, hidden_name, replaced_name
from iart.video.segment import write_durably

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@dataclass(frozen=True)
class End:
    """What is known when every frame of a film has been read.

    Attributes:
        frames: of the film.
        segments: of the film.
        losses: damage met while reading.
    """

    frames: int
    segments: int
    losses: tuple[Loss, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `json.dump`."""
        losses = [
            [str(loss.start_seconds), loss.end_seconds and str(loss.end_seconds), loss.reason]
            for loss in self.losses
        ]
        return {"frames": self.frames, "segments": self.segments, "losses": losses}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "End":
        """What `to_json` gave."""
        losses = tuple(
            Loss(Fraction(start), end and Fraction(end), reason)
            for start, end, reason in content["losses"]
        )
        return cls(content["frames"], content["segments"], losses)


class Job:
    """The folder of one output, locked for one run; a context manager.

    After an error the folder stays if it holds anything finished.

    Attributes:
        folder: the job's.
        parts: folder for finished parts.
        is_new: whether nothing was there to go on with.
    """

    def __init__(self, place: Place, identity: Mapping[str, str], *, overwrite: bool) -> None:
        """Make the folder, or go on with the one that is there.

        Args:
            place: of the output.
            identity: everything that the result depends on, as text by its name.
            overwrite: whether the job of another command may be thrown away.

        Raises:
            OutputError: another run works on the output, its folder is not writable, or the job
                that is there belongs to another command.
        """
        self._place = place
        self.folder = place.hidden(".job")
        self.parts = self.folder / "parts"
        try:
            self._lock = _locked(self.folder, place)
        except OSError as error:
            raise place.not_writable(error) from error
        try:
            known = _read(self.folder / "job.json")
            if known is not None and known != dict(identity) and not overwrite:
                raise OutputError(_refusal(place, known, identity))
            self.is_new = known != dict(identity)
            if self.is_new:
                self._clear()
                write_durably(self.folder / "job.json", dict(identity))
            self.parts.mkdir(exist_ok=True)
            for leftover in (*self.parts.glob("*.part"), *self.folder.glob("*.claim")):
                leftover.unlink()
        except OSError as error:
            self._let_go()
            raise place.not_writable(error) from error
        except BaseException:
            self._let_go()
            raise

    @property
    def end(self) -> End | None:
        """What a run has found that saw every frame and finished every segment; None before."""
        content = _read(self.folder / "end.json")
        return None if content is None else End.from_json(content)

    def tiling(self, plan: Callable[[], Tiling]) -> Tiling:
        """What the network is shown at once: as the first run of the job has planned it."""
        known = known_tiling(self.folder)
        if known is not None:
            return known
        tiling = plan()
        write_durably(self.folder / "tiling.json", asdict(tiling))
        return tiling

    def complete(self, end: End) -> None:
        """Note that all parts are there."""
        write_durably(self.folder / "end.json", end.to_json())

    def place(self, finished: Path) -> None:
        """Give the finished output its final name, and remove the folder.

        Raises:
            OutputError: the name was taken meanwhile.
            OSError: the disk refuses.
        """
        write_durably(self.folder / "placed.json", _identity_of(finished))
        self._place.take(finished)
        self._remove()

    def __enter__(self) -> "Job":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock.closed:
            return
        if any(self.parts.glob("*.json")) or any(self.parts.glob("*/*.png")):
            self._let_go()
        else:
            self._remove()

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._let_go()
        if os.name == "nt":  # which keeps a file that is open; elsewhere, the next run may be there
            shutil.rmtree(self.folder, ignore_errors=True)

    def _let_go(self) -> None:
        self._lock.close()


def claim(folder: Path, number: int) -> bool:
    """Take a segment of a job, if no other process of the same run has."""
    try:
        (folder / f"{number:06d}.claim").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def begun_parts(place: Place, identity: Mapping[str, str], *, overwrite: bool) -> Path | None:
    """The folder of finished parts that a run would go on with; None if it would start anew.

    Raises:
        OutputError: the job that is there belongs to another command.
    """
    folder = place.hidden(".job")
    known = _read(folder / "job.json")
    if known is not None and known != dict(identity) and not overwrite:
        raise OutputError(_refusal(place, known, identity))
    return folder / "parts" if known == dict(identity) else None


def known_tiling(folder: Path) -> Tiling | None:
    """What the first run of a job has planned; None if there was none."""
    content = _read(folder / "tiling.json")
    return None if content is None else Tiling(**content)


def take_up_placed(final: Path, identity: Mapping[str, str]) -> End | None:
    """Tidy up after a run that was stopped between naming its output and removing its folder.

    Returns:
        What the output holds; None if there was no such run, or it was of another command.
    """
    folder = hidden_name(final, ".job")
    end = _read(folder / "end.json")
    if end is None or not final.exists():
        return None
    if _read(folder / "placed.json") != _identity_of(final):
        return None
    is_ours = _read(folder / "job.json") == dict(identity)
    shutil.rmtree(replaced_name(final), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return End.from_json(end) if is_ours else None


def _identity_of(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"device": status.st_dev, "inode": status.st_ino}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _refusal(place: Place, known: Mapping[str, str], identity: Mapping[str, str]) -> str:
    names = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
    listed = ", ".join(
        f"{name} {known.get(name, 'none')}, now {identity.get(name, 'none')}" for name in names
    )
    return (
        f"cannot write '{place.final}': another command has begun it ({listed}). Run that one to"
        " go on, or pass --overwrite to start anew"
    )


def _locked(folder: Path, place: Place) -> IO[str]:
    """An open file that no other process holds."""
    while True:
        folder.mkdir(exist_ok=True)
        file = (folder / "lock").open("a")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _HELD:
                file.close()
                raise OutputError(
                    f"cannot write '{place.final}': another run is working on it"
                ) from None
            # else a file system without locks, as some network shares are
        try:
            if os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
                return file
        except FileNotFoundError:
            pass  # the run that held it has just finished, and removed the folder
        file.close()


def _lock(file: IO[str]) -> None:
    """Lock for as long as the file is open in this process.

    Raises:
        OSError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
