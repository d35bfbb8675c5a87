"""What happens to pictures beside the network: colours before it, size and shape of pixels after.

The network makes everything four times larger. `Conform` is decided once for a film, from what the
user asks for; it can be sent to other processes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av

from iart.errors import InputError, OptionsError
from iart.model.upsample import SCALE
from iart.pictures.color import RGB, Color
from iart.pictures.color_tags import TELEVISION, can_convert, color_name, convert_primaries, is_hd
from iart.pictures.resize import lanczos
from iart.upscaling.film.request import COLORS, HDR, UpscaleRequest
from iart.video.frame import Frame, VideoInfo

BOXES = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "2160p": (3840, 2160),
    "4k": (3840, 2160),
    "576p": (1024, 576),
    "480p": (854, 480),
}
"""Width and height that a picture of this size fits into; turned for upright pictures."""

_FACTORS = {f"{factor}x": factor for factor in range(1, SCALE + 1)}
_SIDES = (16, 16384)
"""What encoders take, from and to."""

_LARGEST_ASPECT_TERM = 10_000  # headers of H.264 and HEVC hold numbers of 16 bits

_BT709 = Color(1, 1, 1, full_range=False)
_BT601 = {5: Color(5, 6, 5, full_range=False), 6: Color(6, 6, 6, full_range=False)}
_BT2020 = Color(9, 14, 9, full_range=False)
_SD_MATRICES = (5, 6)
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_HDR_BITS = 10


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
            fits into the box, with square pixels. "1x" to "4x": so many times the source. "WxH" or
            "W:H": exactly that; pixels get the shape that keeps the picture's, as FFmpeg's scale
            does.
        square_pixels: with no size or a factor, the width is changed until pixels are square; with
            "WxH", refuse other pixels.

    Raises:
        OptionsError: unknown words, a size that no encoder takes, or one that needs other pixels.
    """
    shape = Fraction(info.width, info.height) * info.sample_aspect
    size = None if size is None else size.lower()
    factor = SCALE if size is None else _FACTORS.get(size)
    if factor is not None:
        geometry = _enlarged(info, factor, shape, square_pixels)
    elif size in BOXES:
        geometry = _fitted(BOXES[size], shape)
    else:
        geometry = _exactly(*_numbers(size or ""), shape, square_pixels)
    smallest, largest = _SIDES
    if not all(smallest <= side <= largest for side in (geometry.width, geometry.height)):
        raise OptionsError(
            f"the output would be {geometry}; sides are from {smallest} to {largest}"
        )
    return geometry


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
    found = re.fullmatch(r"(\d{1,9})[x:](\d{1,9})", size)
    width, height = (int(side) for side in found.groups()) if found else (0, 0)
    if not width or not height:
        known = ", ".join([*BOXES, *_FACTORS])
        raise OptionsError(f"unknown size {size!r}; pass {known}, or WIDTHxHEIGHT")
    return width, height


def _even(side: Fraction) -> int:
    """The nearest even number: 4:2:0 stores colour for pairs of pixels."""
    return max(2, 2 * round(side / 2))


def plan_color(
    info: VideoInfo, size: tuple[int, int], choice: str = "auto", *, is_folder: bool = False
) -> Color:
    """The colours of the output.

    Limited or full range stays as it is. Greys keep their numbers.

    Args:
        info: of the source.
        size: width and height of the output.
        choice: "auto": BT.601 becomes BT.709 in videos larger than SD, where players expect that;
            all else is kept. "keep"; or "bt709", "bt601" (625 lines for 25 and 50 frames per
            second, else 525), "bt2020".
        is_folder: whether the output is a folder of images, whose colours are kept by "auto".

    Raises:
        OptionsError: an unknown choice, or a source that cannot be converted to it.
    """
    source = info.color
    if choice not in COLORS:
        raise OptionsError(f"unknown color {choice!r}; pass {', '.join(COLORS)}")
    is_sd_color = source.matrix in _SD_MATRICES and source.transfer in TELEVISION
    if choice == "auto":
        can = is_sd_color and can_convert(source.primaries, _BT709.primaries, source.transfer)
        choice = "bt709" if can and is_hd(*size) and not is_folder else "keep"
    if choice == "keep":
        return source
    bt601 = _BT601[5 if source.primaries == 5 or info.rate in (25, 50) else 6]  # lines: 625 or 525
    target = {"bt709": _BT709, "bt601": bt601, "bt2020": _BT2020}[choice]
    if not can_convert(source.primaries, target.primaries, source.transfer):
        raise OptionsError(
            f"colours of '{info.path.name}' (primaries {source.primaries}, transfer"
            f" {source.transfer}) cannot be converted to {choice}; pass --color keep"
        )
    return replace(
        target,
        # one curve for all televisions, so that only its name changes; others stay
        transfer=target.transfer if source.transfer in TELEVISION else source.transfer,
        matrix=RGB if source.matrix == RGB else target.matrix,
        full_range=source.full_range,
    )


def check_hdr(info: VideoInfo, choice: str, pixel_format: str) -> tuple[str, ...]:
    """Refuse HDR unless it is asked for and the output can hold it; notes on what is lost.

    Dolby Vision without a base layer of usual colours is refused whatever is asked for.

    Args:
        info: of the source.
        choice: one of `HDR`.
        pixel_format: of the output; that of a folder of images is RGB.

    Raises:
        InputError: the source is HDR, and `choice` is "refuse".
        OptionsError: the output cannot hold HDR, or an unknown choice.
    """
    if choice not in HDR:
        raise OptionsError(f"unknown hdr {choice!r}; pass {' or '.join(HDR)}")
    kind = _HDR_TRANSFERS.get(info.color.transfer)
    dolby = info.marks.dolby_vision
    if dolby is not None and not dolby.has_base:
        raise InputError(
            f"'{info.path.name}' is HDR (Dolby Vision, profile {dolby.profile}), in colours that"
            " only decoders of Dolby Vision know. Convert it to SDR first"
        )
    lost = ()
    if dolby is not None:
        lost = (
            f"dolby vision: profile {dolby.profile} is lost; its base layer ({kind or 'SDR'}) is"
            " enlarged",
        )
    if kind is None:
        return lost
    if choice == "refuse":
        raise InputError(
            f"'{info.path.name}' is HDR ({kind}), which the network does not know. Pass"
            " --hdr passthrough to enlarge it as it is, or convert it to SDR first"
        )
    form = av.VideoFormat(pixel_format)
    if form.is_rgb:
        raise OptionsError("images cannot say that they are HDR; pass a video file as output")
    if max(component.bits for component in form.components) < _HDR_BITS:
        raise OptionsError(
            f"HDR needs {_HDR_BITS} bits, {pixel_format} has fewer; pass --codec x265"
            " --pixel-format yuv420p10le"
        )
    return (
        *lost,
        f"hdr: {kind} goes through as it is; mastering display and content light are kept by x265"
        " and svt-av1; HDR10+ and Dolby Vision are lost",
    )


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
        data, alpha = (
            None if part is None else lanczos(part, wanted.height, wanted.width).clamp_(0, 1)
            for part in (frame.data, frame.alpha)
        )
        assert data is not None
        return replace(frame, data=data, alpha=alpha)

    def output(self, info: VideoInfo) -> VideoInfo:
        """What is known of the source, with size, shape of pixels and colours of the output."""
        return replace(
            info,
            width=self.geometry.width,
            height=self.geometry.height,
            sample_aspect=self.geometry.sample_aspect,
            color=self.color,
        )


def plan_conform(info: VideoInfo, request: UpscaleRequest, *, is_folder: bool = False) -> Conform:
    """Decide size and colours of the output.

    Args:
        info: of what the reader gives.
        request: what is asked for.
        is_folder: whether the output is a folder of images.

    Raises:
        OptionsError: something asked for cannot be.
    """
    geometry = plan_size(info, size=request.size, square_pixels=request.square_pixels)
    size = (geometry.width, geometry.height)
    wanted = plan_color(info, size, request.color, is_folder=is_folder)
    notes = []
    largest = Geometry(SCALE * info.width, SCALE * info.height)
    if geometry.width > largest.width or geometry.height > largest.height:
        notes.append(
            f"size: {geometry} is more than {SCALE} times {info.width}x{info.height}; the rest is"
            " interpolation"
        )
    if wanted != info.color:
        way_out = " (--color keep leaves it)" if request.color == "auto" else ""
        notes.append(f"colour: {color_name(info.color)} becomes {color_name(wanted)}{way_out}")
    aperture, stored = info.marks.aperture, info.stored_size
    if aperture is not None and stored is not None:
        shown = f"{aperture.width}x{aperture.height} of its {stored[0]}x{stored[1]}"
        notes.append(f"cropping: the file asks to show {shown}, and so much is enlarged")
    return Conform(geometry, info.color, wanted, tuple(notes))
