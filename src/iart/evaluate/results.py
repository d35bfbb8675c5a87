"""What a benchmark run found, as plain data that goes through JSON; and the folder that keeps it.

Convention: PSNR is in dB and infinite where a frame equals its ground truth. JSON has no infinity:
there it is the string "Infinity". A mean is as published: over the frames of a clip, then over the
clips, each clip counting the same; a mean that holds an infinite score is infinite.

The folder is filled by one run, and a later one resumes it:

    run.json            what is measured, and a token that differs from run to run
    clips/<name>.json   a finished clip, complete or absent; counts for the run of its token
    .lock               held by the run that is at work
"""

import hashlib
import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, PlainSerializer, TypeAdapter

from iart.errors import OutputError
from iart.evaluate.clips import Clip
from iart.files.complete import complete_file, locked, writing

TEMPORAL = "tof"  # the name of `ClipRecord.temporal` among the means
FLICKER, TLP = "flicker", "tlp"


def _number(value: float) -> float:
    if math.isnan(value):
        raise ValueError("a score is a number, got NaN")
    return value


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


Score = Annotated[float, AfterValidator(_number)]
# Names of files, and commands, may hold bytes that are no text: JSON shows them as \udcff.
Name = Annotated[str, PlainSerializer(_encodable, when_used="json")]

_AS_JSON = ConfigDict(
    extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


@dataclass(frozen=True)
class FrameScore:
    """One frame's scores by metric: "psnr" (dB), "ssim", and what else was asked for."""

    __pydantic_config__ = _AS_JSON

    name: Name
    values: dict[str, Score]


@dataclass(frozen=True)
class CropRecord:
    """The same place of one frame four times, each a PNG of the same size.

    Attributes:
        frame: the frame's name.
        y: the top row, in pixels of the ground truth.
        x: the left column, likewise.
        difference: how far bicubic, result and ground truth lie apart here, 0 … 255 (the mean over
            the crop of largest minus smallest value): what ranks crops.
        lr: the input, each of its pixels 4×4 pixels of the PNG; None if there was none.
        bicubic: the input enlarged by `iart.pictures.resize.imresize`; None if there was none.
        result: the frame that was scored.
        gt: the ground truth.
    """

    __pydantic_config__ = _AS_JSON

    frame: Name
    y: int
    x: int
    difference: Score
    lr: bytes | None
    bicubic: bytes | None
    result: bytes
    gt: bytes


@dataclass(frozen=True)
class ClipRecord:
    """One clip's scores.

    Attributes:
        name: the clip's name in the protocol.
        frames: the frames that were scored, in order.
        temporal: tOF in pixels, or None where it was not asked for or the clip has one frame.
        seconds: wall clock time of the clip, reading and scoring included.
        windowed: how the clip was cut to fit in memory, or None for the whole clip at once.
        crops: where bicubic, result and ground truth differ most.
        lr_made: its low-resolution frames were made here from the ground truth.
        flicker: in 8-bit values, or None as `temporal`.
        tlp: tLP, or None as `temporal`.
    """

    __pydantic_config__ = _AS_JSON

    name: Name
    frames: tuple[FrameScore, ...]
    temporal: Score | None
    seconds: float
    windowed: str | None = None
    crops: tuple[CropRecord, ...] = ()
    lr_made: bool = False
    flicker: Score | None = None
    tlp: Score | None = None

    def means(self) -> dict[str, float]:
        """Mean of each metric that every frame has, and those of the whole clip if there are."""
        means = _means([frame.values for frame in self.frames])
        temporal = {TEMPORAL: self.temporal, FLICKER: self.flicker, TLP: self.tlp}
        return means | {name: value for name, value in temporal.items() if value is not None}


@dataclass(frozen=True)
class Setting:
    """What of a protocol a report states.

    Attributes:
        name: as passed to `iart test`.
        description: one line: data, degradation, who trains on what.
        colour: scores are of RGB or of BT.601 Y.
        border: pixels left out on each side.
        expected: the published mean of each metric, empty if none is.
        expected_of: whose scores `expected` are, e.g. "IART, 16 frames (Xu et al. 2024)".
    """

    __pydantic_config__ = _AS_JSON

    name: str
    description: str
    colour: Literal["rgb", "y"]
    border: int = 0
    expected: dict[str, Score] = field(default_factory=dict[str, float])
    expected_of: str | None = None


@dataclass(frozen=True)
class Record:
    """All of one benchmark run: enough to check it and to repeat it.

    Attributes:
        protocol: what was measured.
        clips: each clip's scores.
        command: the exact command line, quoted for a shell.
        iart_version: version of this package.
        torch_version: version of PyTorch.
        model: name of the model, or of the folder of frames that was scored.
        weights_hash: `iart.weights.weights_hash`; None where frames made elsewhere were scored.
        device: where it ran, in words.
        precision: of the network, e.g. "float32"; None where no network ran.
        date: when the run ended, with its time zone.
        notes: one line each: LR frames made here, windows, a limit, metrics that are missing.
    """

    __pydantic_config__ = _AS_JSON

    protocol: Setting
    clips: tuple[ClipRecord, ...]
    command: Name
    iart_version: str
    torch_version: str
    model: Name
    weights_hash: str | None
    device: str
    precision: str | None
    date: datetime
    notes: tuple[Name, ...] = ()

    def means(self) -> dict[str, float]:
        """Mean over the clips of each metric that every clip has."""
        return _means([clip.means() for clip in self.clips])


Written = TypeVar("Written", Record, ClipRecord)


def to_json(record: Record | ClipRecord) -> str:
    """The record as JSON text; crops are base64, infinite scores the string "Infinity"."""
    return _adapter(type(record)).dump_json(record, indent=1).decode()


def from_json(text: str | bytes, kind: type[Written]) -> Written:
    """Read what `to_json` wrote, a `Record` or a `ClipRecord`.

    Raises:
        ValueError: the text is damaged or holds something else.
    """
    return _adapter(kind).validate_json(text)


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Arithmetic mean of each key that all rows have, in the first row's order."""
    if not rows:
        return {}
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: math.fsum(row[key] for row in rows) / len(rows) for key in shared}


@cache
def _adapter(kind: type[Any]) -> Any:  # beartype does not know TypeAdapter as a hint
    return TypeAdapter(kind)


# ---- the folder


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
