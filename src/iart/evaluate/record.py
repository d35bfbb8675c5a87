"""What a benchmark run found, as plain data that goes through JSON and comes back equal.

Convention: PSNR is in dB and infinite where a frame equals its ground truth. JSON has no infinity:
there it is the string "Infinity". A mean is as published: over the frames of a clip, then over the
clips, each clip counting the same; a mean that holds an infinite score is infinite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, PlainSerializer, TypeAdapter

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
