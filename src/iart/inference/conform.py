"""What happens to pictures beside the network: colours before it, size and shape of pixels after.

The network makes everything four times larger. `Conform` is decided once for a film, from what the
user asks for; it can be sent to other processes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from iart.errors import OptionsError
from iart.inference.coloring import plan_color
from iart.model.upsample import SCALE
from iart.resize import lanczos
from iart.video.frame import Color, Frame, VideoInfo
from iart.video.gamut import convert_primaries
from iart.video.tags import color_name

BOXES = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "2160p": (3840, 2160),
}
"""Width and height that a picture of this size fits into; turned for upright pictures."""

_FACTORS = {f"{factor}x": factor for factor in range(1, SCALE + 1)}
_SIDES = (16, 16384)
"""What encoders take, from and to."""

_LARGEST_ASPECT_TERM = 10_000  # headers of H.264 and HEVC hold numbers of 16 bits


@dataclass(frozen=True)
class Geometry:
    """Size of the pictures that are written.

    Attributes:
        width: in pixels.
        height: in pixels.
        sample_aspect: width of a pixel over its height.
    """

    width: int
    height: int
    sample_aspect: Fraction = Fraction(1)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def plan_size(info: VideoInfo, *, size: str | None = None, square_pixels: bool = False) -> Geometry:
    """The size of the output; the shape of the picture as shown never changes.

    Args:
        info: of the source.
        size: None for four times the source. "1080p" and the other names of `BOXES`: as large as
            fits into the box, with square pixels. "1x" to "4x": so many times the source. "WxH":
            exactly that; pixels get the shape that keeps the picture's, as FFmpeg's scale does.
        square_pixels: with no size or a factor, the width is changed until pixels are square; with
            "WxH", refuse other pixels.

    Raises:
        OptionsError: unknown words, a size that no encoder takes, or one that needs other pixels.
    """
    shape = Fraction(info.width, info.height) * info.sample_aspect
    factor = SCALE if size is None else _FACTORS.get(size)
    if factor is not None:
        geometry = _enlarged(info, factor, shape, square_pixels)
    elif size in BOXES:
        geometry = _fitted(BOXES[size], shape)
    else:
        geometry = _exactly(*_numbers(size or ""), shape, square_pixels)
    smallest, largest = _SIDES
    if not smallest <= min(geometry.width, geometry.height) <= largest:
        raise _impossible(geometry)
    if max(geometry.width, geometry.height) > largest:
        raise _impossible(geometry)
    return geometry


def _impossible(geometry: Geometry) -> OptionsError:
    return OptionsError(
        f"the output would be {geometry}; sides are from {_SIDES[0]} to {_SIDES[1]}"
    )


def _enlarged(info: VideoInfo, factor: int, shape: Fraction, square: bool) -> Geometry:
    width, height = factor * info.width, factor * info.height
    if square and info.sample_aspect != 1:
        return Geometry(_even(height * shape), _even(Fraction(height)))
    if factor != SCALE:
        width, height = _even(Fraction(width)), _even(Fraction(height))
    return Geometry(width, height, info.sample_aspect)


def _fitted(box: tuple[int, int], shape: Fraction) -> Geometry:
    width, height = box if shape >= 1 else box[::-1]
    if shape * height > width:
        return Geometry(width, _even(width / shape))
    return Geometry(_even(height * shape), height)


def _exactly(width: int, height: int, shape: Fraction, square: bool) -> Geometry:
    aspect = (shape * height / width).limit_denominator(_LARGEST_ASPECT_TERM)
    if abs(shape * height - width) < 2 or abs(width / shape - height) < 2:
        aspect = Fraction(1)  # even sides are no closer to the shape
    if square and aspect != 1:
        fitting = _fitted((width, height), shape)
        raise OptionsError(
            f"{width}x{height} has another shape than the picture; with square pixels"
            f" {fitting} fits into it. Pass that as --size, or leave --square-pixels out"
        )
    return Geometry(width, height, aspect)


def _numbers(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", size.lower())
    width, height = (int(side) for side in found.groups()) if found else (0, 0)
    if not width or not height:
        known = ", ".join([*BOXES, *_FACTORS])
        raise OptionsError(f"unknown size {size!r}; pass {known}, or WIDTHxHEIGHT")
    return width, height


def _even(side: Fraction) -> int:
    """The nearest even number: 4:2:0 stores colour for pairs of pixels."""
    return max(2, 2 * round(side / 2))


@dataclass(frozen=True)
class Conform:
    """Everything that is decided about pictures beside the network.

    Attributes:
        geometry: of the output.
        source: colours of the frames that are read.
        color: colours of the output.
        notes: for the user, one line each.
    """

    geometry: Geometry
    source: Color
    color: Color
    notes: tuple[str, ...] = ()

    def before(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Frames as they are read, in the primaries of the output."""
        source, target = self.source.primaries, self.color.primaries
        for frame in frames:
            data = convert_primaries(frame.data, source, target, self.source.transfer)
            yield replace(frame, data=data)

    def after(self, frame: Frame) -> Frame:
        """An enlarged frame in the size of the output.

        Resampled as the numbers are, not as light: see docs/video.md for what was measured.
        """
        _, height, width = frame.data.shape
        wanted = self.geometry
        if (width, height) == (wanted.width, wanted.height):
            return frame
        return replace(frame, data=lanczos(frame.data, wanted.height, wanted.width).clamp_(0, 1))

    def output(self, info: VideoInfo) -> VideoInfo:
        """What is known of the source, with size, shape of pixels and colours of the output."""
        return replace(
            info,
            width=self.geometry.width,
            height=self.geometry.height,
            sample_aspect=self.geometry.sample_aspect,
            color=self.color,
        )


def plan_conform(
    info: VideoInfo,
    *,
    size: str | None = None,
    square_pixels: bool = False,
    color: str = "auto",
    is_folder: bool = False,
) -> Conform:
    """Decide size and colours of the output.

    Args:
        info: of what the reader gives.
        size: see `plan_size`.
        square_pixels: see `plan_size`.
        color: see `iart.inference.coloring.plan_color`.
        is_folder: whether the output is a folder of images.

    Raises:
        OptionsError: something asked for cannot be.
    """
    geometry = plan_size(info, size=size, square_pixels=square_pixels)
    wanted = plan_color(info, (geometry.width, geometry.height), color, is_folder=is_folder)
    notes = []
    largest = Geometry(SCALE * info.width, SCALE * info.height)
    if geometry.width > largest.width or geometry.height > largest.height:
        notes.append(
            f"size: {geometry} is more than {SCALE} times {info.width}x{info.height}; the rest is"
            " interpolation"
        )
    if wanted != info.color:
        way_out = " (--color keep leaves it)" if color == "auto" else ""
        notes.append(f"colour: {color_name(info.color)} becomes {color_name(wanted)}{way_out}")
    return Conform(geometry, info.color, wanted, tuple(notes))
