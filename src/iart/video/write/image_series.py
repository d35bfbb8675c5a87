"""Frames as PNG images in a folder: what is decided before the first, and each as a file."""

import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext

from iart.errors import OptionsError
from iart.files.names import FRAMES, NumberedName, frames_of
from iart.pictures.color import Color, has_alpha
from iart.pictures.color_tags import SRGB
from iart.video.frame import Frame, VideoInfo
from iart.video.tracks.plan import check_drop

_HEADER_BYTES = 33  # signature and first chunk of PNG
_FORMATS = {"rgb24": "rgba", "rgb48be": "rgba64be"}
"""Of 8 and 16 bits, without and with an alpha channel."""


@dataclass(frozen=True)
class PicturePlan:
    """Everything decided about a folder of images before its first frame.

    Attributes:
        path: of the folder.
        width: of every image.
        height: of every image.
        pixel_format: "rgb24" or "rgb48be", "rgba" or "rgba64be".
        color: of the source.
        notes: what is not kept, one line each.
        profile: ICC profile of every image; empty for none.
        names: of the images.
    """

    path: Path
    width: int
    height: int
    pixel_format: str
    color: Color
    notes: tuple[str, ...]
    profile: bytes = b""
    names: NumberedName = FRAMES

    def encoded(self, frame: Frame) -> bytes:
        """A PNG file.

        Raises:
            ValueError: the frame has another size than announced.
        """
        picture = frame.picture(self.pixel_format, self.color, (self.width, self.height))
        context = av.CodecContext.create("png", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = self.width, self.height
        context.pix_fmt = self.pixel_format
        context.time_base = Fraction(1, 25)
        context.options = {"pred": "mixed"}
        # untagged: colours are numbers to the tools that read folders, not light
        picture.color_primaries = picture.color_trc = 2
        picture.pts = 0
        file = b"".join(bytes(packet) for packet in context.encode(picture) + context.encode(None))
        if not self.profile:
            return file
        chunk = b"iCCPICC profile\0\0" + zlib.compress(self.profile)
        size, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
        return file[:_HEADER_BYTES] + size + chunk + checksum + file[_HEADER_BYTES:]


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
        path: of the folder, or with the names of the images ("out/f%03d.png").
        like: the source.
        scale: size of the frames that will be written over that of the source.
        pixel_format: "rgb24" or "rgb48be" (16 bits), "rgba" or "rgba64be" with an alpha channel;
            as the source if not given.
        drop: kinds that need no note.

    Raises:
        OptionsError: another pixel format, or `drop` names something that is not there.
    """
    check_drop(drop, len(like.tracks), like.stream_index)
    chosen = pixel_format
    if chosen is None:
        opaque = "rgb24" if like.bit_depth <= 8 else "rgb48be"
        chosen = _FORMATS[opaque] if like.alpha else opaque
    chosen = re.sub(r"^(rgb48|rgba64)(le)?$", r"\1be", chosen)
    if chosen not in {*_FORMATS, *_FORMATS.values()}:
        raise OptionsError(
            f"PNG images are rgb24 or rgb48be, with alpha rgba or rgba64be, not {pixel_format!r}"
        )
    notes = _notes(like, drop)
    if like.alpha and not has_alpha(chosen):
        notes.append(f"alpha: the alpha channel is not carried: {chosen} cannot hold it")
    size = (like.width * scale, like.height * scale)
    profile = like.profile
    if profile and (profile[16:20] != b"RGB " or like.color != SRGB):
        notes.append("colour: the images' ICC profile is lost; it is not of these colours")
        profile = b""
    folder, names = frames_of(path)
    return PicturePlan(folder, *size, chosen, like.color, tuple(notes), profile, names)


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
    return [*notes, *like.notes, *like.marks.lost("images cannot hold it")]
