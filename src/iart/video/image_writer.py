"""Writes frames as a folder of PNG images, which appears under its name when it is complete."""

from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.video.codeccontext import VideoCodecContext

from iart.errors import OptionsError, OutputError
from iart.video.color import from_rgb
from iart.video.frame import Frame, Loss, VideoInfo
from iart.video.pending import PendingOutput, output_error
from iart.video.plans import check_drop

_FORMATS = {8: "rgb24", 16: "rgb48be"}


class ImageWriter:
    """00000000.png, 00000001.png … in a folder; a context manager like `VideoWriter`.

    Sources of more than 8 bits give images of 16 bits. Sound, subtitles and times have no place
    in images; `notes` says what is left out.

    Attributes:
        notes: what is not kept, one line each.
        losses: always empty; for symmetry with `VideoWriter`.
    """

    notes: tuple[str, ...]

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
            pixel_format: "rgb24" or "rgb48be" (16 bits); by the source's depth if not given.
            drop: kinds that need no note.
            overwrite: whether numbered images in the folder may be replaced.

        Raises:
            OutputError: the place.
            OptionsError: another pixel format, or `drop` names something that is not there.
        """
        check_drop(drop, len(like.tracks), like.stream_index)
        chosen = pixel_format or _FORMATS[8 if like.bit_depth <= 8 else 16]
        chosen = {"rgb48": "rgb48be", "rgb48le": "rgb48be"}.get(chosen, chosen)
        if chosen not in _FORMATS.values():
            raise OptionsError(f"PNG images are rgb24 or rgb48be, not {pixel_format!r}")
        self._path = Path(path)
        self._size = (like.width * scale, like.height * scale)
        self._color = like.color
        self._pixel_format = chosen
        self._count = 0
        self._is_open = True
        self.losses: list[Loss] = []
        self.notes = tuple(_notes(like, drop))
        self._pending = PendingOutput(
            self._path, folder=True, inputs=[like.path], overwrite=overwrite
        )

    def write(self, frame: Frame) -> None:
        """Write one image.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
            ValueError: the frame has another size than announced.
        """
        _, height, width = frame.data.shape
        if (width, height) != self._size:
            raise ValueError(
                f"expected frames of {self._size[0]}x{self._size[1]}, got {width}x{height}"
            )
        name = f"{self._count:08d}.png"
        try:
            (self._pending.part / name).write_bytes(self._encoded(frame))
        except OSError as error:
            raise output_error(self._path / name, error) from error
        self._count += 1

    def close(self) -> None:
        """Give the folder its final name; does nothing the second time.

        Raises:
            OutputError: no frame was written, or the name was taken meanwhile.
        """
        if not self._is_open:
            return
        if not self._count:
            self.abort()
            raise OutputError(f"cannot write '{self._path}': no frame was given")
        self._is_open = False
        try:
            self._pending.commit()
        except OSError as error:
            self._pending.discard()
            raise output_error(self._path, error) from error

    def abort(self) -> None:
        """Stop and remove what was written."""
        if self._is_open:
            self._is_open = False
            self._pending.discard()

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _encoded(self, frame: Frame) -> bytes:
        picture = from_rgb(frame.data, self._pixel_format, self._color)
        context = av.CodecContext.create("png", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = self._size
        context.pix_fmt = self._pixel_format
        context.time_base = Fraction(1, 25)
        context.options = {"pred": "mixed"}
        # untagged: colours are numbers to the tools that read folders, not light
        picture.color_primaries = picture.color_trc = 2
        picture.pts = 0
        return b"".join(bytes(packet) for packet in context.encode(picture) + context.encode(None))


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
