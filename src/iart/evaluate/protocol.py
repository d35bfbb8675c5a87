"""Test protocols: small YAML files that say what is measured, how, and what was published.

Those that ship lie in `benchmarks/`; `read_protocol` takes their names, or the path of a file.
"""

import difflib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
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

from iart.errors import OptionsError


def check_clip_name(name: str) -> str:
    """Refuse names that are no place below a folder: they become paths.

    Raises:
        ValueError: the name is empty, absolute or leads upwards.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"'{name}' is no name of a clip (expected e.g. calendar or 00001/0266)")
    return name


def _check_name(name: str) -> str:
    if name in ("", ".", "..") or set(name) & set("/\\"):
        raise ValueError(f"'{name}' is no name of a protocol: results go to a folder of that name")
    return name


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


ClipName = Annotated[str, AfterValidator(check_clip_name)]
Places = Annotated[tuple[Path, ...], BeforeValidator(_as_list)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expected(_Part):
    """A published score."""

    psnr: float
    """Mean in dB."""
    ssim: float
    of: str
    """Whose score, and where it is published."""


class Protocol(_Part):
    """What a benchmark measures. Places are relative to the data folder unless absolute."""

    name: Annotated[str, AfterValidator(_check_name)]
    """The file's name without its ending."""
    description: str
    gt: Path
    """Ground truth: a folder of images per clip."""
    lq: Annotated[Places, Field(min_length=1)]
    """Low-resolution frames, likewise; the first of these places that exists."""
    degradation: Literal["bi", "bd"]
    """How they were made: MATLAB's bicubic, or blur and decimation."""
    clips: dict[ClipName, PositiveInt] = Field(default_factory=dict)
    """Exactly these clips, and how many frames each has."""
    clip_list: Places = ()
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
        if bool(self.clips) == bool(self.clip_list):
            raise ValueError("needs either clips (name: frames) or clip_list (a text file)")
        if self.clip_list and not self.frames:
            raise ValueError("a clip_list needs frames: how many each of its clips has")
        if self.clips and (self.frames or self.clip_count):
            raise ValueError("frames and clip_count belong to a clip_list; clips has them already")
        return self


def protocol_names() -> list[str]:
    """Names of the protocols that ship."""
    return list(_shipped())


def read_protocol(name_or_path: str | Path) -> Protocol:
    """The protocol that ships under a name, or that of a file (.yml, .yaml).

    Raises:
        OptionsError: no such protocol or file, not YAML, an unknown key or a value that does not
            fit.
    """
    shipped, path = _shipped(), Path(name_or_path)
    place = shipped.get(str(name_or_path))
    if place is None:
        if path.suffix not in (".yml", ".yaml") and len(path.parts) <= 1:
            raise OptionsError(
                f"unknown protocol '{name_or_path}'{_nearest(str(name_or_path), list(shipped))}. "
                f"Pass one of {', '.join(shipped)}, or the path of a .yml file"
            )
        place = path
    try:
        tree = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OptionsError(f"cannot read protocol '{name_or_path}': {reason}") from error
    if not isinstance(tree, dict):
        raise OptionsError(
            f"protocol '{name_or_path}' holds nothing to measure (expected `key: value` lines)"
        )
    try:
        return Protocol.model_validate({"name": path.stem, **tree})
    except ValidationError as error:
        raise OptionsError(f"protocol '{name_or_path}': {_first_problem(error)}") from error


def overview() -> str:
    """A table of the protocols that ship, for people."""
    rows = [("protocol", "data", "clips", "colour", "published", "of")]
    for name in protocol_names():
        protocol = read_protocol(name)
        places = " + ".join(str(place) for place in (protocol.gt, protocol.lq[0]))
        score = protocol.expected
        rows.append(
            (
                name,
                places,
                str(len(protocol.clips) or protocol.clip_count or "list"),
                protocol.colour,
                f"{score.psnr:.2f} / {score.ssim:.4f}" if score else "-",
                score.of if score else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _shipped() -> dict[str, Traversable]:
    """Name → file: in the installed package, or in the source tree beside it."""
    package = resources.files("iart")
    places: list[Traversable] = [package.joinpath("assets", "benchmarks")]
    if isinstance(package, Path):
        places.append(package.parents[1] / "benchmarks")
    for place in places:
        files = place.iterdir() if place.is_dir() else ()
        found = {f.name.removesuffix(".yml"): f for f in files if f.name.endswith(".yml")}
        if found:
            return dict(sorted(found.items()))
    return {}


def _first_problem(error: ValidationError) -> str:
    errors = error.errors()
    # A key that is spelt wrong explains the one that is missing.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = Expected.model_fields if "." in place else Protocol.model_fields
        return f"unknown key '{place}'{_nearest(place.rpartition('.')[2], list(fields))}"
    came = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    return f"{place}: {first['msg'].removeprefix('Value error, ')}{came}".removeprefix(": ")


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
