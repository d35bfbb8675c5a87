"""Which planes a pixel format has, and the plain planar format that holds the same numbers."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from av.video.format import VideoFormat

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
