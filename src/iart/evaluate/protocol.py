"""Test protocols: small YAML files that say what is measured, how, and what was published.

Those that ship lie in `benchmarks/`; `read_protocol` takes their names, or the path of a file.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from iart.data.degradation.parameters import Degradation
from iart.data.pairs import check_clip_name
from iart.errors import OptionsError
from iart.files.shipped import shipped_files
from iart.files.text import numbered, read_yaml

_SHOWN = 34
"""Characters of a protocol's places in the table."""


def _check_name(name: str) -> str:
    if name in ("", ".", "..") or set(name) & set("/\\"):
        raise ValueError(f"'{name}' is no name of a protocol: results go to a folder of that name")
    return name


ClipName = Annotated[str, AfterValidator(check_clip_name)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expected(_Strict):
    """A published score."""

    psnr: float
    """Mean in dB."""
    ssim: float
    of: str
    """Whose score, and where it is published."""


class MadeClip(_Strict):
    """A clip that is made on the spot, see `iart.evaluate.made`."""

    picture: str
    """"demo" (the demo clip), "drawn" (a drawn still), or a photograph of `assets/photos`."""
    behind: str = "drawn"
    """The still over which it moves; the demo clip moves by itself."""
    seed: NonNegativeInt = 0
    """Of the motion, and of what is drawn."""
    shift: Annotated[float, Field(ge=0)] = 4.0
    """Largest motion, in pixels of the ground truth per frame."""
    degradation: Degradation
    """Every parameter of it."""


class Protocol(_Strict):
    """What a benchmark measures. Paths are relative to the data folder unless absolute."""

    name: Annotated[str, AfterValidator(_check_name)]
    """The file's name without its ending."""
    description: str
    gt: Path
    """Ground truth: a folder of images per clip."""
    lq: Annotated[Paths, Field(min_length=1)]
    """Low-resolution frames, likewise; the first of these places that exists."""
    degradation: Literal["bi", "bd"] | None = None
    """How they were made: MATLAB's bicubic, or blur and decimation; `made` says it itself."""
    made: dict[ClipName, MadeClip] = Field(default_factory=dict)
    """How the clips are made on the spot: one for each of `clips`, or none."""
    metrics: tuple[str, ...] = ()
    """Scores besides PSNR and SSIM that belong to it."""
    clips: dict[ClipName, PositiveInt] = Field(default_factory=dict)
    """Exactly these clips, and how many frames each has."""
    clip_list: Paths = ()
    """A text file instead that names a clip at the start of each line; the first that exists."""
    clip_count: PositiveInt | None = None
    """How many clips the list must have."""
    frames: PositiveInt | None = None
    """How many frames each clip of the list has."""
    score_frames: Literal["all", "centre"] = "all"
    colour: Literal["rgb", "y"]
    """Scores are of RGB or of BT.601 Y."""
    border: NonNegativeInt = 0
    """Pixels left out on each side."""
    flip_seq: bool = False
    """Show the network each clip there and back, and take the mean of both ways (as BasicSR)."""
    weights: Path | None = None
    """Where the weights with the published score are looked for, from the working folder."""
    key: str | None = None
    """Which of several sets of weights in that file; see `load_model`."""
    expected: Expected | None = None
    note: str | None = None
    """What else a reader of the score should know, in one line."""

    @model_validator(mode="after")
    def _names_clips_once(self) -> "Protocol":
        conflicts = {
            "needs either clips (name: frames) or clip_list (a text file)": (
                bool(self.clips) == bool(self.clip_list)
            ),
            "made needs exactly the names of clips": (
                self.made and self.made.keys() != self.clips.keys()
            ),
            "needs either degradation (bi or bd) or made (a clip each)": (
                bool(self.made) == bool(self.degradation)
            ),
            "a clip_list needs frames: how many each of its clips has": (
                self.clip_list and not self.frames
            ),
            "frames and clip_count belong to a clip_list; clips has them already": (
                self.clips and (self.frames or self.clip_count)
            ),
        }
        if said := "; ".join(text for text, holds in conflicts.items() if holds):
            raise ValueError(said)
        return self


def protocol_names() -> list[str]:
    """Names of the protocols that ship."""
    return list(shipped_files("benchmarks", ".yml"))


def read_protocol(name_or_path: str | Path) -> Protocol:
    """The protocol that ships under a name, or that of a file (.yml, .yaml).

    Raises:
        OptionsError: no such protocol or file, not YAML, keys that are unknown or given twice, or
            values that do not fit; all of the kind are named.
    """
    shipped, path = shipped_files("benchmarks", ".yml"), Path(name_or_path)
    place = shipped.get(str(name_or_path))
    if place is None:
        if path.suffix not in (".yml", ".yaml") and len(path.parts) <= 1:
            raise OptionsError(
                f"unknown protocol '{name_or_path}'{_nearest(str(name_or_path), list(shipped))}. "
                f"Pass one of {', '.join(shipped)}, or the path of a .yml file"
            )
        place = path
    tree = read_yaml(place, f"protocol '{name_or_path}'", "nothing to measure")
    try:
        return Protocol.model_validate({"name": path.stem, **tree})
    except ValidationError as error:
        raise OptionsError(f"protocol '{name_or_path}': {_problems(error)}") from error


def overview() -> str:
    """A table of the protocols that ship, for people, within 80 columns."""
    rows = [("protocol", "data", "clips", "colour", "published")]
    for name in protocol_names():
        protocol = read_protocol(name)
        places = " + ".join(str(place) for place in (protocol.gt, protocol.lq[0]))
        if protocol.made:
            places = "made on the spot"
        score = protocol.expected
        rows.append(
            (
                name,
                _shortened(places),
                str(len(protocol.clips) or protocol.clip_count or "list"),
                protocol.colour,
                f"{score.psnr:.2f} / {score.ssim:.4f}" if score else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _shortened(text: str) -> str:
    """Without its middle, if it is long."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[1 - _SHOWN // 2 :]}"


def _problems(error: ValidationError) -> str:
    """All of them in one line; a key that is spelt wrong explains the one that is missing."""
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    return numbered(list(map(_problem, errors)))


def _problem(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = Expected.model_fields if "." in place else Protocol.model_fields
        return f"unknown key '{place}'{_nearest(place.rpartition('.')[2], list(fields))}"
    came = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{came}".removeprefix(": ")


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
