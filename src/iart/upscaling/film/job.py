"""A job: the folder beside an output whose finished segments survive whatever stops the work.

    .out.mkv.job/
        lock         held while a run works here
        job.json     which command it belongs to
        segments/    finished segments, or pictures
        end.json     when all of them are there: how many
        tiling.json  what the network is shown at once, decided when the job began
        placed.json  when the finished output is about to get its name: which file that is

The same command goes on where the last one stopped. Another command for the same output is refused.

Which outputs are finished, what the same command need not do again, is noted in the user's cache,
since nothing is left beside outputs. A note that is lost costs nothing but the knowledge.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iart.errors import IARTError, InputError, OutputError
from iart.files.complete import Destination, locked, write_json
from iart.files.names import hidden_name, replaced_name
from iart.upscaling.budget import Tiling
from iart.upscaling.film.request import Source
from iart.video.dvd.disc import find_title
from iart.video.frame import Loss
from iart.video.read.image_series import find_images

JOB_FILE = "job.json"
CONTENT = "content of the source"
"""Name of what changes in an identity when a file of the source does."""

KEPT_NOTES = 2000
"""Of finished outputs; those noted first go."""


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
            [
                str(each.start_seconds),
                each.end_seconds and str(each.end_seconds),
                each.reason,
                each.certain,
            ]
            for each in self.losses
        ]
        return {"frames": self.frames, "segments": self.segments, "losses": losses}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "End":
        """What `to_json` gave."""
        losses = tuple(
            Loss(Fraction(start), end and Fraction(end), *rest)
            for start, end, *rest in content["losses"]
        )
        return cls(content["frames"], content["segments"], losses)


@contextmanager
def open_job(
    place: Destination, identity: Mapping[str, str], *, overwrite: bool
) -> Iterator["Job"]:
    """Make the folder of a job, or go on with the one that is there; locked for one run.

    At the end the folder stays if it holds anything finished.

    Args:
        place: of the output.
        identity: everything that the result depends on, as text by its name.
        overwrite: whether the job of another command may be thrown away.

    Raises:
        OutputError: another run works on the output, its folder is not writable, or the job that is
            there belongs to another command.
    """
    folder = _folder_of(place.final)
    with ExitStack() as lock:
        try:
            folder.mkdir(exist_ok=True)
            lock.enter_context(locked(folder / "lock", wait=False))
            if begun_segments(place, identity, overwrite=overwrite) is None:
                _clear(folder)
                write_json(folder / JOB_FILE, dict(identity))
            job = Job(place, folder)
            job.segments.mkdir(exist_ok=True)
            for leftover in job.segments.rglob("*.part"):
                leftover.unlink()
        except BlockingIOError:
            raise OutputError(
                f"cannot write '{place.final}': another run is working on it"
            ) from None
        except OSError as error:
            raise place.not_writable(error) from error
        try:
            yield job
        finally:
            kept = any(job.segments.glob("*.json")) or any(job.segments.glob("*/*"))
            is_over = job.is_placed or not kept
            if is_over:
                shutil.rmtree(folder, ignore_errors=True)
    if is_over and os.name == "nt":  # which keeps a file that is open
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Job:
    """The folder of one output, see `open_job`.

    Attributes:
        output: where the output will be.
        folder: the job's.
        is_placed: whether the output has its name.
    """

    output: Destination
    folder: Path
    is_placed: bool = False

    @property
    def segments(self) -> Path:
        """Folder for finished segments."""
        return self.folder / "segments"

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
        write_json(self.folder / "tiling.json", asdict(tiling))
        return tiling

    def complete(self, end: End) -> None:
        """Note that all segments are there."""
        write_json(self.folder / "end.json", end.to_json())

    def place(self, finished: Path) -> None:
        """Give the finished output its final name.

        Raises:
            OutputError: the name was taken meanwhile.
            OSError: the disk refuses.
        """
        write_json(self.folder / "placed.json", _identity_of(finished))
        self.output.take(finished)
        self.is_placed = True


def _folder_of(final: Path) -> Path:
    return hidden_name(final, ".job")


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == "lock":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def begun_segments(
    place: Destination, identity: Mapping[str, str], *, overwrite: bool
) -> Path | None:
    """The folder of finished segments that a run would go on with; None if it would start anew.

    Raises:
        OutputError: the job that is there belongs to another command.
    """
    folder = _folder_of(place.final)
    known = _read(folder / JOB_FILE)
    if known is not None and known != dict(identity) and not overwrite:
        raise OutputError(_refusal(place, known, identity))
    return folder / "segments" if known == dict(identity) else None


def known_tiling(folder: Path) -> Tiling | None:
    """What the first run of a job has planned; None if there was none."""
    content = _read(folder / "tiling.json")
    return None if content is None else Tiling(**content)


def take_up_placed(final: Path, identity: Mapping[str, str]) -> End | None:
    """Tidy up after a run that was stopped between naming its output and removing its folder.

    Returns:
        What the output holds; None if there was no such run, or it was of another command.
    """
    folder = _folder_of(final)
    end = _read(folder / "end.json")
    if end is None or not final.exists():
        return None
    if _read(folder / "placed.json") != _identity_of(final):
        return None
    is_ours = _read(folder / JOB_FILE) == dict(identity)
    shutil.rmtree(replaced_name(final), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return End.from_json(end) if is_ours else None


def note_finished(output: Path, identity: Mapping[str, str], end: End) -> None:
    """Note that an output is finished; never fails.

    Args:
        output: its final name, absolute.
        identity: everything that it depends on, as text by name.
        end: what was found on the way.
    """
    note = _note_of(output)
    with suppress(OSError, RuntimeError, IARTError):
        note.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": dict(identity), "output": source_fingerprint(output)}
        write_json(note, content | {"end": end.to_json()})
        notes = sorted(note.parent.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for old in notes[:-KEPT_NOTES]:
            old.unlink(missing_ok=True)


def finished_before(output: Path, identity: Mapping[str, str]) -> End | None:
    """What a run found that made this output, unchanged since; None if there was no such run."""
    with suppress(OSError, ValueError, KeyError, RuntimeError, IARTError):
        content = json.loads(_note_of(output).read_text())
        is_same = content["identity"] == dict(identity)
        if is_same and content["output"] == source_fingerprint(output):
            return End.from_json(content["end"])
    return None


def source_fingerprint(source: Source, root: Path | None = None) -> str:
    """Changes when a file of the source is exchanged or touched: sizes and times of all."""
    return files_fingerprint(source_files(source), root)


def files_fingerprint(files: Iterable[Path], root: Path | None = None) -> str:
    """Changes when one of these files is exchanged or touched.

    Args:
        files: their names, which count as well.
        root: of copies; they count as what lies in its place below `/`.

    Raises:
        OSError: one is not there.
    """
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        name = path.absolute() if root is None else Path("/", path.relative_to(root))
        digest.update(os.fsencode(name))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def model_fingerprint(model: nn.Module) -> str:
    """The kind of a model and a hash of its weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"{type(model).__name__} {digest.hexdigest()[:12]}"


def precision_asked(model: nn.Module) -> str:
    """What a model computes in; "auto" where that is float16 as long as it can hold the values."""
    is_auto = getattr(model, "widens", False)
    return "auto" if is_auto else getattr(model, "precision", "float32")


def source_files(source: Source) -> list[Path]:
    """Files that pictures are read from."""
    title = find_title(source) if isinstance(source, str | Path) else None
    if title is not None:
        return [*title.files, *title.sheets]
    if isinstance(source, str | Path) and Path(source).is_file():
        return [Path(source)]
    try:
        return find_images(source)
    except InputError:  # a folder of something else
        assert isinstance(source, str | Path)
        folder = Path(source)
        # hidden ones may be ours
        seen = (path for path in folder.rglob("*") if path.is_file())
        return sorted(p for p in seen if "/." not in f"/{p.relative_to(folder).as_posix()}")


def _note_of(output: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(output)).hexdigest()[:32]
    return Path(cache) / "iart" / "finished" / f"{name}.json"


def _identity_of(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"device": status.st_dev, "inode": status.st_ino}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _refusal(place: Destination, known: Mapping[str, str], identity: Mapping[str, str]) -> str:
    names = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
    listed = ", ".join(
        f"{name} {known.get(name, 'none')}, now {identity.get(name, 'none')}" for name in names
    )
    return (
        f"cannot write '{place.final}': another command has begun it ({listed}). Run that one to"
        " go on, or pass --overwrite to start anew"
    )
