"""Decoded pictures to RGB tensors and back: pixel formats, range, matrix, bit depth and chroma.

With luma weights Kr, Kg, Kb (Kr + Kg + Kb = 1), all of R, G, B in [0, 1] (ITU-T H.273):

    Y  = Kr·R + Kg·G + Kb·B
    Cb = (B − Y) / (2 − 2·Kb)
    Cr = (R − Y) / (2 − 2·Kr)

and in numbers of d bits, with s = 2^(d − 8):

    limited range:  y = s·(219·Y + 16)      c = s·(224·C + 128)
    full range:     y = (2^d − 1)·Y         c = (2^d − 1)·C + 2^(d − 1)

All is computed in float32 at the full depth of the source (no 8-bit intermediate) and rounded once.
The transfer curve is not touched: R, G, B stay as non-linear as they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.format import VideoFormat
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float
from torch import Tensor

from iart.device import download, upload
from iart.errors import InputError, OptionsError
from iart.pictures.chroma import CHROMA_REACH, Siting, downsample_chroma, upsample_chroma

_SUBSAMPLINGS = {(1, 1): "444", (1, 2): "422", (2, 2): "420", (2, 1): "440", (1, 4): "411"}
_SUBSAMPLINGS[4, 4] = "410"
_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class Layout:
    """How the numbers of a pixel format are stored.

    Attributes:
        kind: "rgb", "yuv" or "grey"; palettes and XYZ count as RGB, for swscale makes it of them.
        planar: FFmpeg's name of the format with one component per plane and the same numbers;
            8-bit numbers are bytes, others little-endian. An alpha component is left out. The
            format itself if it is such a one.
        depth: bits per component; 32 if floating.
        floating: whether numbers are float32, nominally in [0, 1].
        step: distance of chroma samples (down, right) in pixels.
        jpeg: one of FFmpeg's old "yuvj" names, which imply full range and centred chroma.
    """

    kind: Literal["rgb", "yuv", "grey"]
    planar: str
    depth: int
    floating: bool
    step: tuple[int, int]
    jpeg: bool

    @property
    def with_alpha(self) -> str:
        """FFmpeg's name of the planar format that has an alpha component, its fourth plane."""
        if self.kind == "yuv":
            return self.planar.replace("yuvj", "yuv").replace("yuv", "yuva")
        return "gbrap" + self.planar.removeprefix("gbrp").removeprefix("gray")

    @property
    def sampling(self) -> str:
        """Of chroma, as people write it: "4:2:0"."""
        return ":".join(_SUBSAMPLINGS[self.step])

    @property
    def order(self) -> tuple[int, ...]:
        """The planes that hold R, G, B (or Y, U, V, or grey)."""
        return {"rgb": (2, 0, 1), "yuv": (0, 1, 2), "grey": (0,)}[self.kind]


@cache
def layout_of(pixel_format: str) -> Layout:
    """The layout of a format by FFmpeg's name.

    Raises:
        ValueError: FFmpeg has no format of that name.
    """
    given = VideoFormat(pixel_format)
    name = given.name
    floating = any(mark in name for mark in ("f16", "f32"))
    bits = max(component.bits for component in given.components)
    depth = 32 if floating else next((d for d in _DEPTHS if d >= bits), 16)
    suffix = "f32le" if floating else "" if depth == 8 else f"{depth}le"
    if given.is_rgb or given.has_palette or name.startswith("xyz"):
        return Layout("rgb", f"gbrp{suffix}", depth, floating, (1, 1), jpeg=False)
    # PyAV's `is_chroma` is false without subsampling
    if sum(not component.is_alpha for component in given.components) == 1:
        return Layout("grey", f"gray{suffix}", depth, floating, (1, 1), jpeg=False)
    step = (16 // given.chroma_height(16), 16 // given.chroma_width(16))
    jpeg = name.startswith("yuvj")
    planar = name if jpeg else f"yuv{_SUBSAMPLINGS[step]}p{suffix}"
    return Layout("yuv", planar, depth, floating, step, jpeg)


RGB = 0
"""The matrix number of RGB itself."""
BT601 = 6
"""The matrix number of standard definition."""
UNSPECIFIED = 2
"""The colour number that says nothing; a resolved `Color` does not contain it."""


@dataclass(frozen=True)
class Color:
    """How numbers in a file mean colours, in FFmpeg's numbers, with nothing left unspecified.

    Attributes:
        primaries: `AVCOL_PRI_*`: which red, green and blue.
        transfer: `AVCOL_TRC_*`: the curve from light to number.
        matrix: `AVCOL_SPC_*`: how luma and chroma are made of R'G'B'; 0 for RGB itself.
        full_range: True if black is 0 (full), False if black is 16 in 8 bits (limited).
    """

    primaries: int
    transfer: int
    matrix: int
    full_range: bool


_YCGCO = 8
_CPU = torch.device("cpu")

_STRIP_PIXELS = 2**17
_STRIP_STEP = 4
"""Rows between chroma samples, at most; strips start where a sample does."""

# Kr and Kb by matrix number. The two constant-luminance forms (10, 13) are treated like the others,
# as FFmpeg does.
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}

MATRIX_OF_PRIMARIES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9}
"""The matrix that belongs to primaries."""


def is_supported(matrix: int) -> bool:
    """Whether a matrix number is one that this module converts."""
    return matrix in (RGB, _YCGCO) or matrix in _LUMA_WEIGHTS


@cache
def luma_and_chroma(matrix: int) -> Tensor:
    """The 3×3 matrix from (R, G, B) to (Y, Cb, Cr), float64.

    Raises:
        OptionsError: the matrix number is not supported.
    """
    if matrix == _YCGCO:  # Cg in the place of Cb, Co in that of Cr
        rows = [[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]]
        return torch.tensor(rows, dtype=torch.float64)
    if matrix not in _LUMA_WEIGHTS:
        raise OptionsError(f"cannot convert colours of matrix {matrix}: it is not supported")
    kr, kb = _LUMA_WEIGHTS[matrix]
    luma = torch.tensor([kr, 1 - kr - kb, kb], dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    return torch.stack([luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])


@lru_cache(maxsize=32)
def _matrix_on(device: torch.device, matrix: int, *, inverse: bool = False) -> Tensor:
    """`luma_and_chroma` in float32 on a device, or the way back."""
    with torch.inference_mode(False):  # kept: a later gradient may go through it
        there = luma_and_chroma(matrix)
        return (torch.linalg.inv(there) if inverse else there).float().to(device)


def color_for(pixel_format: str, color: Color) -> Color:
    """The colour description with which a picture of `color` is stored in a pixel format.

    RGB formats hold full-range RGB; old JPEG formats ("yuvj…") are full-range; YUV made of an RGB
    source gets limited range and the matrix that belongs to its primaries (BT.709 if none does).
    """
    layout = layout_of(pixel_format)
    primaries, matrix, full = color.primaries, color.matrix, color.full_range
    if layout.kind == "rgb":
        return Color(primaries, color.transfer, RGB, full_range=True)
    if matrix == RGB:
        matrix, full = MATRIX_OF_PRIMARIES.get(primaries, 1), layout.kind == "grey"
    return Color(
        primaries, color.transfer, matrix, full_range=full or layout.jpeg or layout.floating
    )


def _scales(layout: Layout, full_range: bool) -> tuple[float, float, float, float]:
    """Factor and offset of luma, then of chroma, from [0, 1] (±0.5) to stored numbers."""
    if layout.floating:
        return 1.0, 0.0, 1.0, 0.5
    if full_range:
        top = 2.0**layout.depth - 1
        return top, 0.0, top, 2.0 ** (layout.depth - 1)
    unit = 2.0 ** (layout.depth - 8)
    return 219 * unit, 16 * unit, 224 * unit, 128 * unit


def plane_numbers(plane: VideoPlane, layout: Layout) -> np.ndarray:
    """The own memory of a plane of the planar format as (height, width), without padding."""
    dtype = np.dtype("<f4" if layout.floating else "u1" if layout.depth == 8 else "<u2")
    return plane_rows(plane).view(dtype)[:, : plane.width]


def plane_rows(plane: VideoPlane) -> np.ndarray:
    """The own memory of a plane in rows of bytes, padding at their ends included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)


def repack(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """The same numbers in another arrangement; no matrix, range or chroma step changes."""
    if frame.format.name == pixel_format:
        return frame
    # any range and matrix will do if both sides have the same, but swscale knows few matrices
    rgb = layout_of(pixel_format).kind == "rgb"
    level = int(ColorRange.JPEG if rgb else ColorRange.MPEG)
    matrix = None if rgb else Colorspace.ITU709
    return frame.reformat(
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=level,
        dst_color_range=level,
        threads=1,
    )


def to_rgb(
    frame: av.VideoFrame, color: Color, *, siting: Siting = "left", device: torch.device = _CPU
) -> Float[Tensor, "3 h w"]:
    """A decoded picture as RGB float32 in [0, 1]; numbers outside are clamped, alpha is dropped.

    Args:
        frame: in any pixel format that FFmpeg decodes to.
        color: of which matrix and range are used (for YUV), range alone (for grey), nothing (RGB).
        siting: where 4:2:0 and 4:2:2 chroma samples lie; ignored for "yuvj" formats: centred.
        device: where it is computed and stays.

    Raises:
        InputError: the pixel format cannot be converted.
    """
    layout = layout_of(frame.format.name)
    try:
        plain = repack(frame, layout.planar)
    except (FFmpegError, ValueError) as error:
        raise InputError(
            f"cannot convert pictures in pixel format {frame.format.name}: {error}"
        ) from error
    planes = [upload(plane_numbers(plain.planes[i], layout), device) for i in layout.order]
    if layout.kind == "rgb":
        return (torch.stack(planes) / (1.0 if layout.floating else 2**layout.depth - 1)).clamp_(
            0, 1
        )
    full = color.full_range or layout.jpeg
    scale, offset, chroma_scale, chroma_offset = _scales(layout, full)
    luma = (planes[0] - offset) / scale
    if layout.kind == "grey":
        return luma.clamp_(0, 1).expand(3, -1, -1).contiguous()
    chroma = (torch.stack(planes[1:]) - chroma_offset) / chroma_scale
    siting = "centre" if layout.jpeg else siting
    chroma = upsample_chroma(chroma, (frame.height, frame.width), layout.step, siting)
    inverse = _matrix_on(device, color_for(frame.format.name, color).matrix, inverse=True)
    ycc = torch.cat([luma[None], chroma])
    return torch.mm(inverse, ycc.flatten(1)).unflatten(1, luma.shape).clamp_(0, 1)


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """[top, bottom) of rows that are converted at once: what a processor keeps at hand."""
    rows = max(1, _STRIP_PIXELS // width // _STRIP_STEP) * _STRIP_STEP
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _stored(
    image: Float[Tensor, "3 h w"], top: int, bottom: int, layout: Layout, color: Color
) -> list[Tensor]:
    """Numbers to store for rows [top, bottom) of a picture, plane by plane; integers in float32."""
    down, _ = layout.step
    above = min(top, CHROMA_REACH * down) if layout.kind == "yuv" else 0
    below = CHROMA_REACH * down if layout.kind == "yuv" else 0
    rgb = image[:, top - above : bottom + below].clamp(0, 1)
    if layout.kind == "rgb":
        planes = list(rgb if layout.floating else rgb.mul_(2**layout.depth - 1))
    else:
        scale, offset, chroma_scale, chroma_offset = _scales(layout, color.full_range)
        ycc = torch.mm(_matrix_on(rgb.device, color.matrix), rgb.flatten(1)).view_as(rgb)
        planes = [ycc[0, above : above + bottom - top].mul_(scale).add_(offset)]
        if layout.kind == "yuv":
            siting: Siting = "centre" if layout.jpeg else "left"
            small = downsample_chroma(ycc[1:], layout.step, siting)
            first, end = above // down, -(-(above + bottom - top) // down)
            planes += list(small[:, first:end].mul_(chroma_scale).add_(chroma_offset))
    if layout.floating:
        return planes
    return [plane.round_().clamp_(0, 2**layout.depth - 1) for plane in planes]


def from_rgb(image: Float[Tensor, "3 h w"], pixel_format: str, color: Color) -> av.VideoFrame:
    """RGB float in [0, 1] as a picture to encode, tagged with its colour description.

    Odd sizes are valid: chroma planes are rounded up. Chroma lies left ("yuvj" formats: centred),
    which is what players assume without a tag.

    Args:
        image: on any device, where it is converted; numbers outside [0, 1] are clamped.
        pixel_format: FFmpeg's name; any that swscale writes.
        color: converted by `color_for(pixel_format, color)`, which is also what the frame says.

    Raises:
        OptionsError: the pixel format or the matrix is not supported.
    """
    try:
        layout = layout_of(pixel_format)
    except ValueError as error:
        raise OptionsError(f"unknown pixel format {pixel_format!r}") from error
    color = color_for(pixel_format, color)
    _, height, width = image.shape
    image = image.detach().float()
    frame = av.VideoFrame(width, height, layout.planar)
    targets = [plane_numbers(frame.planes[index], layout) for index in layout.order]
    steps = [1, *[layout.step[0]] * (len(targets) - 1)] if layout.kind == "yuv" else [1] * 3
    on_cpu = image.device.type == "cpu"
    for top, bottom in _strips(height, width) if on_cpu else [(0, height)]:
        planes = _stored(image, top, bottom, layout, color)
        arrays = download(planes, targets[0].dtype)
        for target, step, plane in zip(targets, steps, arrays, strict=False):
            target[top // step : -(-bottom // step)] = plane
    try:
        frame = repack(frame, pixel_format)
    except (FFmpegError, ValueError) as error:
        raise OptionsError(f"cannot write pixel format {pixel_format!r}: {error}") from error
    tag_color(frame, color)
    return frame


def tag_color(frame: av.VideoFrame, color: Color) -> None:
    """Let a picture say how its numbers mean colours."""
    frame.color_primaries, frame.color_trc = color.primaries, color.transfer
    frame.colorspace = color.matrix
    frame.color_range = int(ColorRange.JPEG if color.full_range else ColorRange.MPEG)


def has_alpha(pixel_format: str) -> bool:
    """Whether pictures in a format of FFmpeg's name have the channel; palettes do not say."""
    return any(component.is_alpha for component in VideoFormat(pixel_format).components)


def alpha_of(frame: av.VideoFrame) -> Float[Tensor, "1 h w"] | None:
    """The channel in [0, 1]; None if a picture has none that can be read.

    A palette says of any picture that it may be transparent, so one that is nowhere has none.
    """
    palette = frame.format.has_palette
    if not (palette or has_alpha(frame.format.name)):
        return None
    layout = layout_of(frame.format.name)
    try:
        plain = repack(frame, layout.with_alpha)
    except (FFmpegError, ValueError):
        return None
    top = 1.0 if layout.floating else 2.0**layout.depth - 1
    numbers = plane_numbers(plain.planes[3], layout).astype(np.float32)
    alpha = (torch.from_numpy(numbers)[None] / top).clamp_(0, 1)
    return None if palette and bool((alpha == 1).all()) else alpha


def set_alpha(frame: av.VideoFrame, alpha: Float[Tensor, "1 h w"]) -> av.VideoFrame:
    """The picture with another channel, in the same pixel format, which must have one."""
    layout = layout_of(frame.format.name)
    plain = repack(frame, layout.with_alpha)
    top = 1.0 if layout.floating else 2.0**layout.depth - 1
    numbers = alpha[0].detach().to("cpu", torch.float32).clamp(0, 1) * top
    target = plane_numbers(plain.planes[3], layout)
    target[:] = (numbers if layout.floating else numbers.round()).numpy()
    made = repack(plain, frame.format.name)
    made.color_primaries, made.color_trc = frame.color_primaries, frame.color_trc
    made.colorspace, made.color_range = frame.colorspace, frame.color_range
    return made
