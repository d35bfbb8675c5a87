"""What readers yield and writers take: a picture with its time, and what is known about its source.

Conventions:
    - Pictures are RGB float32 in [0, 1], `3 h w`, upright (a rotation in the file is applied).
    - Times are exact: integers in units of `time_base`, or `Fraction` seconds, ranges half-open.
    - Colour numbers are FFmpeg's (`AVCOL_*`), which are those of ITU-T H.273.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.color import Color, from_rgb, has_alpha, set_alpha
from iart.pictures.orientation import Orientation
from iart.video.fields.classify import FieldReport


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frame:
    """One picture and the time at which it is shown.

    Attributes:
        data: RGB float32 in [0, 1], shape `3 h w`.
        pts: presentation time in units of `time_base`.
        time_base: length of one unit in seconds.
        duration: in units of `time_base`; 0 if unknown.
        cut: whether a new scene starts here. The first frame of a video starts no *new* scene.
        alpha: 1 where the picture is opaque, shape `1 h w`; None for all of it.
    """

    data: Float[Tensor, "3 h w"]
    pts: int
    time_base: Fraction
    duration: int = 0
    cut: bool = False
    alpha: Float[Tensor, "1 h w"] | None = None

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds."""
        return self.pts * self.time_base

    def picture(self, pixel_format: str, color: Color, size: tuple[int, int]) -> av.VideoFrame:
        """The frame as an encoder takes it; see `from_rgb`.

        Raises:
            ValueError: it has another (width, height) than `size`.
        """
        _, height, width = self.data.shape
        if (width, height) != size:
            raise ValueError(f"expected frames of {size[0]}x{size[1]}, got {width}x{height}")
        picture = from_rgb(self.data, pixel_format, color)
        if self.alpha is not None and has_alpha(pixel_format):
            picture = set_alpha(picture, self.alpha)
        return picture

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

    def upright(self, orientation: Orientation, width: int, height: int) -> "Crop":
        """Where the rectangle of a stored picture of this size lies when that is upright."""
        crop = self
        if orientation.transpose:
            crop = Crop(self.height, self.width, self.y, self.x)
        width, height = orientation.size(width, height)
        x = width - crop.x - crop.width if orientation.mirror_x else crop.x
        y = height - crop.y - crop.height if orientation.mirror_y else crop.y
        return Crop(crop.width, crop.height, x, y)

    def __str__(self) -> str:
        return f"{self.width}:{self.height}:{self.x}:{self.y}"


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
class DolbyVision:
    """A stated configuration of Dolby Vision.

    Attributes:
        profile: "5", "8.1": with the compatibility of the base layer where there is one.
        has_base: whether the picture without Dolby Vision has colours that the tags describe.
    """

    profile: str
    has_base: bool


@dataclass(frozen=True)
class Spherical:
    """A picture that lies around the viewer.

    Attributes:
        projection: "equirectangular", "cubemap" or "mesh".
        yaw: degrees by which it is turned; pitch and roll likewise.
        data: of the projection, as Matroska and MP4 hold it.
    """

    projection: str
    yaw: Fraction = Fraction(0)
    pitch: Fraction = Fraction(0)
    roll: Fraction = Fraction(0)
    data: bytes = b""


@dataclass(frozen=True)
class Marks:
    """What a stream's header says beside colours.

    Attributes:
        dolby_vision: None without.
        aperture: the part of the stored picture that is shown, in the upright whole; None for all.
        spherical: None for a flat picture.
        stereo: how the pictures of both eyes lie in one, in Matroska's words ("left_right",
            "top_bottom"), or "other"; None for one eye.
        valid: False if a part was cut out, of which spherical and stereo are not true.
    """

    dolby_vision: DolbyVision | None = None
    aperture: Crop | None = None
    spherical: Spherical | None = None
    stereo: str | None = None
    valid: bool = True

    def lost(self, why: str) -> tuple[str, ...]:
        """Notes that the marks of spherical and stereo pictures are lost."""
        found = {
            "spherical": self.spherical and self.spherical.projection,
            "stereo": self.stereo and self.stereo.replace("_", " "),
        }
        return tuple(
            f"{name}: the mark ({kind}) is lost ({why})" for name, kind in found.items() if kind
        )


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read.

    Attributes:
        path: the file, or the folder of a series of images.
        container: FFmpeg's name of the format ("matroska,webm"), or "images".
        codec: FFmpeg's name of the video codec, or the images' format ("png").
        width: in pixels, as shown: after rotation and the container's cropping.
        height: likewise.
        rate: frames per second; the average one if it varies.
        time_base: unit of the frames' `pts`, in seconds.
        frame_count: an estimate unless the container stores it; None if nothing tells.
        duration_seconds: of the video; None if unknown.
        start_seconds: presentation time of the first frame.
        pixel_format: FFmpeg's name ("yuv420p10le").
        bit_depth: bits per component.
        alpha: whether frames say where they are transparent.
        profile: ICC profile that says what the colours of images mean, in place of `color`; empty
            without one.
        notes: what the frames do not tell of the source, one line each.
        bits_per_pixel: of the video as stored, on average; where the container does not tell,
            estimated from the size of the file. None for images and if unknown.
        color: with everything unspecified resolved, see `iart.pictures.color`.
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
        treatment: what is done about fields, for people; empty for nothing.
        marks: what the header says of the pictures beside colours.
        stored_size: (width, height) of upright pictures before the container's cropping; None
            where there is none.
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
    treatment: str = ""
    marks: Marks = Marks()
    stored_size: tuple[int, int] | None = None
    alpha: bool = False
    profile: bytes = b""
    notes: tuple[str, ...] = ()
    bits_per_pixel: float | None = None


@dataclass(frozen=True)
class Loss:
    """A part [start, end) of the input that is missing from the frames, or whose time was mended.

    Attributes:
        start_seconds: in presentation time.
        end_seconds: None if it is not known where the damage ends (the input stops early).
        reason: for the user, FFmpeg's own words included.
        certain: False for what is no damage, or may be none: recordings joined end to end, a hole
            in times where files may leave out pictures that repeat the one before.
    """

    start_seconds: Fraction
    end_seconds: Fraction | None
    reason: str
    certain: bool = True
