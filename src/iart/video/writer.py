"""Writes frames to a video file, with every track of the source.

    open_writer(path, like=info) → VideoWriter (mp4, mkv, mov, webm) or ImageWriter (a folder)

Everything that can be refused is refused by the constructor: the codec, each track, the place. The
file gets its final name in `close`, and only then.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av.error
from av.packet import Packet

from iart.errors import OptionsError, OutputError
from iart.video.assembly import Assembly, assemble, rehearse, with_tracks
from iart.video.codecs import CONTAINERS, Container, choose_encoding
from iart.video.color import color_for, from_rgb
from iart.video.dry_mux import DecodeTimes, Shape, dry_mux, muxer_options
from iart.video.frame import Frame, Loss, VideoInfo
from iart.video.image_writer import ImageWriter
from iart.video.matroska import amend, display_size
from iart.video.pending import PendingOutput, output_error


class VideoWriter:
    """Encodes frames and carries the tracks of the source over; a context manager.

    Leaving the `with` block without an error completes the file; an error removes it.

    Attributes:
        notes: conversions that will happen and what cannot be kept, one line each.
        losses: damaged parts of the source's tracks, filled while writing.
    """

    notes: tuple[str, ...]

    def __init__(
        self,
        path: str | Path,
        *,
        like: VideoInfo,
        scale: int = 4,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        pixel_format: str | None = None,
        drop: Collection[str] = (),
        overwrite: bool = False,
    ) -> None:
        """Decide and try everything, and open the output beside its final name.

        Args:
            path: ends in .mp4, .mkv, .mov or .webm.
            like: the source: tracks, times, colour and shape of pixels are taken from it.
            scale: size of the frames that will be written over that of the source.
            codec: see `iart.video.codecs.CODECS`; by container and bit depth if not given.
            crf: constant rate factor of the codec; smaller is better.
            preset: of the codec.
            pixel_format: FFmpeg's name; by codec and bit depth if not given.
            drop: tracks to leave out: "audio", "subtitle", "attachment", "data", "video" (every
                other than the one that is enlarged), or a stream index of the source.
            overwrite: whether an existing file may be replaced, at the end.

        Raises:
            OutputError: the place, the codec or a track; says which and what to do.
            OptionsError: an unknown codec, pixel format or `drop`.
        """
        path = Path(path)
        container = container_for(path)
        encoding = choose_encoding(
            container,
            like.bit_depth,
            codec=codec,
            crf=crf,
            preset=preset,
            pixel_format=pixel_format,
        )
        self._shape = Shape(
            like.width * scale,
            like.height * scale,
            like.rate,
            like.time_base,
            color_for(encoding.pixel_format, like.color),
            like.sample_aspect,
        )
        self._source_color = like.color
        self._path = path
        self.losses: list[Loss] = []
        self._pending = PendingOutput(
            path, suffix=path.suffix, inputs=[like.path], overwrite=overwrite
        )
        try:
            dry_mux(encoding, self._shape)
            assembly = Assembly(encoding, self._shape)
            notes = list(encoding.notes)
            if like.container != "images":
                assembly, more = with_tracks(assembly, like, drop)
                notes += more
            carried = assembly.tracks.carried
            options = muxer_options(
                encoding,
                self._shape,
                [plan.ticks for plan in carried],
                [plan.sample_rate for plan in carried],
            )
            self._assembly, lost = rehearse(replace(assembly, options=options))
            self.notes = (*notes, *lost, *_caption_note(like))
            # FFmpeg's own writing of the file starts here
            self._output, self._video, self._copier = assemble(
                self._assembly, str(self._pending.part)
            )
        except BaseException:
            self._pending.discard()
            raise
        self._decode_times = DecodeTimes(self._shape.time_base)
        self._durations: dict[int, int] = {}
        self._last_pts: int | None = None
        self._is_open = True

    def write(self, frame: Frame) -> None:
        """Encode one frame, later than all before it.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
            ValueError: the frame has another size than announced.
        """
        _, height, width = frame.data.shape
        if (width, height) != (self._shape.width, self._shape.height):
            raise ValueError(
                f"expected frames of {self._shape.width}x{self._shape.height}, got {width}x{height}"
            )
        picture = from_rgb(frame.data, self._assembly.encoding.pixel_format, self._source_color)
        clock = self._shape.time_base
        pts = round((frame.time + self._assembly.shift) / clock)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1  # encoders stop at times that do not grow
        self._last_pts = pts
        length = frame.duration * frame.time_base or 1 / self._shape.rate
        self._durations[pts] = max(1, round(length / clock))
        picture.pts, picture.time_base = pts, clock
        with self._writing():
            self._mux(self._video.encode(picture))

    def close(self) -> None:
        """Complete the file and give it its final name; does nothing the second time.

        Raises:
            OutputError: no frame was written, the disk is full, or the name was taken meanwhile.
        """
        if not self._is_open:
            return
        try:
            if self._last_pts is None:
                raise OutputError(f"cannot write '{self._path}': no frame was given")
            with self._writing():
                self._mux(self._video.encode(None))
                if self._copier is not None:
                    self._copier.finish()
                    self.losses += self._copier.losses
                self._output.close()
                self._amend()
        except BaseException:
            self.abort()
            raise
        self._is_open = False
        try:
            self._pending.commit()
        except OSError as error:
            self._pending.discard()
            raise output_error(self._path, error) from error

    def abort(self) -> None:
        """Stop and remove what was written."""
        if not self._is_open:
            return
        self._is_open = False
        self._pending.discard()  # first: closing may take time, or fail again
        if self._copier is not None:
            self._copier.close()
        try:
            self._output.close()
        except (av.error.FFmpegError, OSError, ValueError):
            return  # the file is gone; there is nothing to complete

    def __enter__(self) -> "VideoWriter":
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

    def _mux(self, packets: list[Packet]) -> None:
        for packet in map(self._decode_times.mended, packets):
            time = packet.pts if packet.dts is None else packet.dts
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            if self._copier is not None and time is not None:
                self._copier.advance(time * self._shape.time_base)
            self._output.mux(packet)

    def _writing(self) -> "_Writing":
        return _Writing(self._path)

    def _amend(self) -> None:
        """Tell Matroska what its muxer could not be told."""
        if not self._assembly.is_matroska:
            return
        shape = self._shape
        size = None
        if shape.sample_aspect != 1:
            size = display_size(shape.width, shape.height, shape.sample_aspect)
        order = [plan.index for plan in self._assembly.tracks.carried]
        # Matroska counts tracks from 1, the video is the first
        delays = {order.index(i) + 2: delay for i, delay in self._assembly.delays.items()}
        if (size or delays) and not amend(self._pending.part, display_size=size, delays=delays):
            raise OutputError(
                f"cannot write '{self._path}': its header has no room for more tracks"
            )


class _Writing:
    """Errors of FFmpeg and of the system while writing become `OutputError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        if isinstance(error, (av.error.FFmpegError, OSError)):
            if not isinstance(error, OSError):
                raise OutputError(f"cannot write '{self._path}': {error}") from error
            raise output_error(self._path, error) from error


def open_writer(
    path: str | Path,
    *,
    like: VideoInfo,
    scale: int = 4,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pixel_format: str | None = None,
    drop: Collection[str] = (),
    overwrite: bool = False,
) -> VideoWriter | ImageWriter:
    """A `VideoWriter` for names of video files, an `ImageWriter` for folders.

    A folder is an existing one, a path that ends in a slash, or one without an ending. Arguments
    and errors are those of the two classes; options that a folder of images has no use for are
    refused.
    """
    if is_folder(path):
        for name, value in (("codec", codec), ("crf", crf), ("preset", preset)):
            if value is not None:
                raise OptionsError(f"--{name} does not apply to a folder of PNG images")
        return ImageWriter(
            path, like=like, scale=scale, pixel_format=pixel_format, drop=drop, overwrite=overwrite
        )
    return VideoWriter(
        path,
        like=like,
        scale=scale,
        codec=codec,
        crf=crf,
        preset=preset,
        pixel_format=pixel_format,
        drop=drop,
        overwrite=overwrite,
    )


def is_folder(path: str | Path) -> bool:
    """Whether an output of this name is a folder of images."""
    if str(path).endswith(("/", "\\")) or not Path(path).suffix:
        return True
    try:
        return Path(path).is_dir()
    except OSError:  # a name that cannot be: refused where it is written
        return False


def container_for(path: Path) -> Container:
    """The container that the ending of a file name asks for.

    Raises:
        OutputError: another ending.
    """
    container = CONTAINERS.get(path.suffix.lower().removeprefix("."))
    if container is None:
        names = ", ".join(f".{name}" for name in CONTAINERS)
        raise OutputError(
            f"cannot write '{path}': unknown ending '{path.suffix}'; pass {names},"
            " or a folder for PNG images"
        )
    return container


def _caption_note(like: VideoInfo) -> list[str]:
    if not like.closed_captions:
        return []
    return ["closed captions: those inside the video are lost (they cannot be passed on yet)"]
