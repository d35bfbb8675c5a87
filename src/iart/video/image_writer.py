"""Writes frames as a folder of PNG images, which appears under its name when it is complete."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext

from iart.errors import OptionsError
from iart.video.color import from_rgb
from iart.video.frame import Color, Frame, VideoInfo
from iart.video.pending import PendingOutput
from iart.video.plans import check_drop
from iart.video.writing import Writer

_FORMATS = {8: "rgb24", 16: "rgb48be"}


@dataclass(frozen=True)
class PicturePlan:
    """Everything decided about a folder of images before its first frame.

    Attributes:
        path: of the folder.
        width: of every image.
        height: of every image.
        pixel_format: "rgb24" or "rgb48be".
        color: of the source.
        notes: what is not kept, one line each.
    """

    path: Path
    width: int
    height: int
    pixel_format: str
    color: Color
    notes: tuple[str, ...]

    def encoded(self, frame: Frame) -> bytes:
        """A PNG file.

        Raises:
            ValueError: the frame has another size than announced.
        """
        _, height, width = frame.data.shape
        if (width, height) != (self.width, self.height):
            raise ValueError(f"expected frames of {self.width}x{self.height}, got {width}x{height}")
        picture = from_rgb(frame.data, self.pixel_format, self.color)
        context = av.CodecContext.create("png", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = self.width, self.height
        context.pix_fmt = self.pixel_format
        context.time_base = Fraction(1, 25)
        context.options = {"pred": "mixed"}
        # untagged: colours are numbers to the tools that read folders, not light
        picture.color_primaries = picture.color_trc = 2
        picture.pts = 0
        return b"".join(bytes(packet) for packet in context.encode(picture) + context.encode(None))


def plan_pictures(
    path: str | Path,
    *,
    like: VideoInfo,
    scale: int = 4,
    pixel_format: str | None = None,
    drop: Collection[str] = (),
) -> PicturePlan:
    """Decide everything about a folder of images.

    Args:
        path: of the folder.
        like: the source.
        scale: size of the frames that will be written over that of the source.
        pixel_format: "rgb24" or "rgb48be" (16 bits); by the source's depth if not given.
        drop: kinds that need no note.

    Raises:
        OptionsError: another pixel format, or `drop` names something that is not there.
    """
    check_drop(drop, len(like.tracks), like.stream_index)
    chosen = pixel_format or _FORMATS[8 if like.bit_depth <= 8 else 16]
    chosen = {"rgb48": "rgb48be", "rgb48le": "rgb48be"}.get(chosen, chosen)
    if chosen not in _FORMATS.values():
        raise OptionsError(f"PNG images are rgb24 or rgb48be, not {pixel_format!r}")
    size = (like.width * scale, like.height * scale)
    return PicturePlan(Path(path), *size, chosen, like.color, tuple(_notes(like, drop)))


def image_name(index: int) -> str:
    """The file name of a frame, counted from 0."""
    return f"{index:08d}.png"


class ImageWriter(Writer):
    """00000000.png, 00000001.png … in a folder; a context manager like `VideoWriter`.

    Sources of more than 8 bits give images of 16 bits. Sound, subtitles and times have no place
    in images; `notes` says what is left out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        like: VideoInfo,
        scale: int = 4,
        pixel_format: str | None = None,
        drop: Collection[str] = (),
        overwrite: bool = False,
    ) -> None:
        """Start the folder beside its final name.

        Args:
            path: of the folder; may exist if it is empty.
            like: the source.
            scale: size of the frames that will be written over that of the source.
            pixel_format: see `plan_pictures`.
            drop: kinds that need no note.
            overwrite: whether numbered images in the folder may be replaced.

        Raises:
            OutputError: the place.
            OptionsError: another pixel format, or `drop` names something that is not there.
        """
        self._plan = plan_pictures(
            path, like=like, scale=scale, pixel_format=pixel_format, drop=drop
        )
        path = self._plan.path
        pending = PendingOutput(path, folder=True, inputs=[like.path], overwrite=overwrite)
        super().__init__(path, pending, self._plan.notes)

    def __enter__(self) -> "ImageWriter":
        return self

    def _write(self, frame: Frame) -> None:
        name = image_name(self._count)
        (self._pending.part / name).write_bytes(self._plan.encoded(frame))


def _notes(like: VideoInfo, drop: Collection[str]) -> list[str]:
    left_out = [
        f"{track.kind} {track.index} ({track.codec})"
        for track in like.tracks
        if track.index != like.stream_index
        and track.kind != "data"
        and not {track.kind, str(track.index)} & set(drop)
    ]
    notes = [f"not carried into a folder of images: {', '.join(left_out)}"] if left_out else []
    if like.variable_rate:
        notes.append("times: the rate varies, and images carry no times")
    return notes
