"""What readers yield and writers take: a picture with its time, and what is known about its source.

Conventions:
    - Pictures are RGB float32 in [0, 1], `3 h w`, upright (a rotation in the file is applied).
    - Times are exact: integers in units of `time_base`, or `Fraction` seconds, ranges half-open.
    - Colour numbers are FFmpeg's (`AVCOL_*`), which are those of ITU-T H.273.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError
from iart.video.fields import FieldReport

UNSPECIFIED = 2
"""The colour number that says nothing; a resolved `Color` does not contain it."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frame:
    """One picture and the time at which it is shown.

    Attributes:
        data: RGB float32 in [0, 1], shape `3 h w`.
        pts: presentation time in units of `time_base`.
        time_base: length of one unit in seconds.
        duration: in units of `time_base`; 0 if unknown.
        cut: whether a new scene starts here. The first frame of a video starts no *new* scene.
    """

    data: Float[Tensor, "3 h w"]
    pts: int
    time_base: Fraction
    duration: int = 0
    cut: bool = False

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds."""
        return self.pts * self.time_base

    def __repr__(self) -> str:
        _, height, width = self.data.shape
        cut = ", cut" if self.cut else ""
        return f"Frame({width}x{height} at {float(self.time):.3f} s{cut})"


@dataclass(frozen=True)
class Crop:
    """A rectangle of the picture as shown, in pixels of the source.

    Attributes:
        width: at least 1.
        height: at least 1.
        x: of the left column that is kept, from 0.
        y: of the top row that is kept, from 0.
    """

    width: int
    height: int
    x: int
    y: int

    def check(self, width: int, height: int) -> None:
        """Refuse a rectangle that does not lie inside a picture of this size.

        Raises:
            OptionsError: it does not.
        """
        inside = 0 <= self.x <= width - self.width and 0 <= self.y <= height - self.height
        if not inside or self.width < 1 or self.height < 1:
            raise OptionsError(
                f"crop {self} does not lie inside the picture of {width}x{height}. Pass "
                "width:height:x:y of a part of it"
            )

    def cut(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "c ch cw"]:
        """The part of a picture, in memory of its own."""
        rows, columns = slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)
        return image[:, rows, columns].clone()

    def __str__(self) -> str:
        return f"{self.width}:{self.height}:{self.x}:{self.y}"


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


@dataclass(frozen=True)
class Track:
    """One stream of a container, as its header describes it.

    Attributes:
        index: stream index in the source.
        kind: "video", "audio", "subtitle", "attachment" or "data".
        codec: FFmpeg's codec name ("aac", "subrip"), or "unknown".
        language: as the file states it ("eng"); None if it does not.
        title: None if the file states none.
        metadata: all entries of the stream, `language` and `title` included.
        disposition: set flags by FFmpeg's names ("default", "forced", "attached_pic").
        details: what a user wants to know besides ("48000 Hz, stereo"); may be empty.
    """

    index: int
    kind: str
    codec: str
    language: str | None = None
    title: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    disposition: tuple[str, ...] = ()
    details: str = ""


@dataclass(frozen=True)
class Chapter:
    """A named part [start, end) of the presentation."""

    start_seconds: Fraction
    end_seconds: Fraction
    title: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read.

    Attributes:
        path: the file, or the folder of a series of images.
        container: FFmpeg's name of the format ("matroska,webm"), or "images".
        codec: FFmpeg's name of the video codec, or the images' format ("png").
        width: in pixels, as shown: after rotation.
        height: in pixels, as shown: after rotation.
        rate: frames per second; the average one if it varies.
        time_base: unit of the frames' `pts`, in seconds.
        frame_count: an estimate unless the container stores it; None if nothing tells.
        duration_seconds: of the video; None if unknown.
        start_seconds: presentation time of the first frame.
        pixel_format: FFmpeg's name ("yuv420p10le").
        bit_depth: bits per component.
        color: with everything unspecified resolved, see `iart.video.color`.
        sample_aspect: width of a pixel over its height, as shown; 1 if square or unknown.
        rotation: degrees clockwise by which frames have been turned: 0, 90, 180 or 270.
        interlaced: whether the first frames are marked as interlaced, and nothing was done about
            it.
        variable_rate: None if it cannot be told cheaply.
        closed_captions: whether the first frames carry captions inside the video.
        tracks: every stream of the container, the video itself included; empty for images.
        chapters: in order.
        metadata: of the container.
        stream_index: index in the container of the video that is read; 0 for images.
        fields: what a survey of the whole file found the pictures to be; None without one.
    """

    path: Path
    container: str
    codec: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    frame_count: int | None
    duration_seconds: Fraction | None
    start_seconds: Fraction
    pixel_format: str
    bit_depth: int
    color: Color
    sample_aspect: Fraction = Fraction(1)
    rotation: int = 0
    interlaced: bool = False
    variable_rate: bool | None = None
    closed_captions: bool = False
    tracks: tuple[Track, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    stream_index: int = 0
    fields: FieldReport | None = None


@dataclass(frozen=True)
class Loss:
    """A part [start, end) of the input that is missing from the frames, or whose time was mended.

    Attributes:
        start_seconds: in presentation time.
        end_seconds: None if it is not known where the damage ends (the input stops early).
        reason: for the user, FFmpeg's own words included.
    """

    start_seconds: Fraction
    end_seconds: Fraction | None
    reason: str
