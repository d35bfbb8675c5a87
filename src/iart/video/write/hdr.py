"""The light that a picture was graded for (HDR10): read from the source, passed to encoders.

PyAV cannot hand side data to an encoder; x264, x265 and SVT-AV1 take the same by option.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Mastering:
    """Mastering display and content light, as HDR10 states them.

    Attributes:
        chromaticities: x, y of red, green, blue and white; empty if not stated.
        luminance: brightest and darkest in cd/m²; empty if not stated.
        content_light: brightest pixel and brightest mean in cd/m²; empty if not stated.
    """

    chromaticities: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance: tuple[Fraction, ...] = ()
    content_light: tuple[int, ...] = ()

    def encoder_options(self, encoder: str) -> dict[str, str]:
        """Options that make the encoder write it; empty for other encoders."""
        display = bool(self.chromaticities and self.luminance)
        light = ",".join(map(str, self.content_light))
        if encoder == "libsvtav1":
            parts = [f"mastering-display={self._points(_decimal)}"] if display else []
            parts += [f"content-light={light}"] if light else []
            return {"svtav1-params": ":".join(parts)} if parts else {}
        if encoder == "libx265":
            parts = [f"master-display={self._points(_steps)}"] if display else []
            parts += [f"max-cll={light}"] if light else []
            return {"x265-params": ":".join(parts)} if parts else {}
        if encoder == "libx264":
            parts = [f"mastering-display={self._points(_steps)}"] if display else []
            parts += [f"cll={light}"] if light else []
            return {"x264-params": ":".join(parts)} if parts else {}
        return {}

    def _points(self, number: Callable[[Fraction, int], object]) -> str:
        red, green, blue, white = self.chromaticities
        named = zip(["G", "B", "R", "WP"], (green, blue, red, white), strict=True)
        points = "".join(f"{name}({number(x, 50000)},{number(y, 50000)})" for name, (x, y) in named)
        brightest, darkest = (number(value, 10000) for value in self.luminance)
        return f"{points}L({brightest},{darkest})"


def mastering_of(frame: VideoFrame) -> Mastering:
    """What a frame states; an empty `Mastering` if nothing."""
    display: tuple = ((), ())
    light: tuple[int, ...] = ()
    data: Any
    for data in frame.side_data:
        name = data.type.name
        if name == "MASTERING_DISPLAY_METADATA":
            display = _parse_display(bytes(data))
        elif name == "CONTENT_LIGHT_LEVEL":
            light = struct.unpack_from("2I", bytes(data))
    return Mastering(display[0], display[1], light)


def _parse_display(data: bytes) -> tuple[tuple, tuple]:
    """FFmpeg's structure: ten fractions of two integers, then what of it is set."""
    numbers = struct.unpack_from("22i", data)
    fractions = [
        Fraction(a, b) if b else Fraction(0)
        for a, b in zip(numbers[0:20:2], numbers[1:20:2], strict=True)
    ]
    points = tuple(zip(fractions[0:8:2], fractions[1:8:2], strict=True))
    has_points, has_luminance = numbers[20], numbers[21]
    darkest, brightest = fractions[8], fractions[9]
    return (points if has_points else ()), ((brightest, darkest) if has_luminance else ())


def _steps(value: Fraction, per_unit: int) -> int:
    return round(value * per_unit)


def _decimal(value: Fraction, per_unit: int) -> str:
    return f"{round(value * per_unit) / per_unit:.5f}"
