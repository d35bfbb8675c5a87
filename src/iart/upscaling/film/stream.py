"""An upscale from standard input or to standard output, in one pass that cannot be resumed.

    vspipe script.vpy - -c y4m | iart upscale - -o - | x265 --y4m - -o out.hevc

Pictures from and to other programs are YUV4MPEG2 (y4m), read once and never sought in. A stream has
a rate and a shape of pixels, but no sound, no times and no tags of colours.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import torch
from av.error import FFmpegError
from av.video.stream import VideoStream
from torch import nn

from iart.errors import InputError, OptionsError, OutputError
from iart.parallel.pipeline import read_ahead, write_behind
from iart.pictures.color import color_for, layout_of
from iart.pictures.color_tags import ColorTags, resolve_color
from iart.upscaling.budget import device_of
from iart.upscaling.clip import upscale_frames
from iart.upscaling.film.conform import check_hdr, plan_conform
from iart.upscaling.film.plan import encoding_of, open_source, resolved
from iart.upscaling.film.request import Progress, UpscaleRequest, UpscaleResult
from iart.upscaling.film.run import check_damage
from iart.upscaling.film.worker import CONFORM_BEHIND, READ_AHEAD
from iart.video.frame import Crop, Frame, Loss, VideoInfo
from iart.video.read.decode import Decoder
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import Finish, VideoReader, limited
from iart.video.read.scenes import CutDetector
from iart.video.write.writer import is_folder, open_writer, writing_video

STREAM = "-"
"""The name that stands for standard input and output."""

_FORMAT = "yuv4mpegpipe"
_log = logging.getLogger(__name__)


class _Counted:
    """A file that is read once, and how much of it was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count, self.head = 0, b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        if self.head.count(b"\n") < 2:
            self.head += data
        return data

    def is_cut(self, picture_bytes: int) -> bool:
        """Whether it ended within a picture; FFmpeg drops that without a word."""
        header, frame_header, *_ = [len(line) + 1 for line in self.head.split(b"\n")]
        return (self.count - header) % (frame_header + picture_bytes) != 0


class StreamReader(AbstractContextManager["StreamReader"]):
    """Iterates once over the pictures of a stream, taken as they are; like `VideoReader` otherwise.

    Attributes:
        info: what the header says.
        losses: a picture that is cut off.
        device: see `VideoReader`.
    """

    device = torch.device("cpu")
    info: VideoInfo
    losses: list[Loss]

    def __init__(self, file: BinaryIO, *, crop: Crop | None = None) -> None:
        """Read the header.

        Args:
            file: open to read; need not be seekable.
            crop: the part of the picture to give; None for all of it.

        Raises:
            InputError: it is no y4m.
            OptionsError: the crop lies outside the picture.
        """
        try:
            self._file = _Counted(file)
            self._container = av.open(self._file, "r", format=_FORMAT)
        except (FFmpegError, OSError, ValueError) as error:
            raise InputError(
                "cannot read the standard input: it is no y4m stream. Pipe one in, such as"
                " 'ffmpeg -i FILE -f yuv4mpegpipe -'"
            ) from error
        stream = self._container.streams.video[0]
        context = stream.codec_context
        form, rate = context.pix_fmt or "yuv420p", stream.average_rate or Fraction(25)
        size = (context.width, context.height)
        self._source = VideoInfo(
            path=Path(STREAM),
            container=_FORMAT,
            codec="rawvideo",
            width=size[0],
            height=size[1],
            rate=rate,
            time_base=stream.time_base or 1 / rate,
            frame_count=None,
            duration_seconds=None,
            start_seconds=Fraction(0),
            pixel_format=form,
            bit_depth=layout_of(form).depth,
            color=resolve_color(ColorTags.of(context), form, size, rate),
            sample_aspect=stream.sample_aspect_ratio or Fraction(1),
            variable_rate=False,
        )
        self.info = limited(self._source, crop, None, None)
        self._crop, self.losses = crop, []

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        decoder, detector = Decoder(self._container, self._source), CutDetector()
        self.losses = decoder.losses
        finish = Finish(self._source, self._container, decoder, self._crop, self.device)
        told, count, last = False, 0, None
        for picture in decoder:
            if picture.image.interlaced_frame and not told:
                _log.info("fields: the stream is marked as interlaced, and taken as it is")
                told = True
            rgb, _ = finish(picture.image)
            cut = detector.is_cut(picture.image)
            yield Frame(rgb, picture.pts, self.info.time_base, picture.duration, cut)
            count, last = count + 1, picture.image
        if last is None:
            return
        samples = sum(plane.width * plane.height for plane in last.planes)
        if self._file.is_cut(samples * (1 + (self.info.bit_depth > 8))):
            reason = "the stream ends within a picture"
            self.losses.append(Loss(count / self.info.rate, None, reason))


class StreamWriter(AbstractContextManager["StreamWriter"]):
    """Writes frames to a stream at the source's rate.

    Attributes:
        notes: what the stream does not hold, one line each.
        pixel_format: FFmpeg's name.
    """

    def __init__(self, file: BinaryIO, *, like: VideoInfo, pixel_format: str | None = None) -> None:
        """Open the muxer.

        Args:
            file: open to write; need not be seekable.
            like: the source, in the size and colours of the frames.
            pixel_format: FFmpeg's name; the source's if not given (RGB becomes 4:4:4).

        Raises:
            OutputError: y4m cannot hold the pixel format.
        """
        layout = layout_of(like.pixel_format)
        depth = f"{layout.depth}le" if 8 < layout.depth <= 16 else ""
        given = f"yuv444p{depth}" if layout.kind == "rgb" else layout.planar.replace("yuvj", "yuv")
        self.pixel_format = pixel_format or given
        self._color, self._size = like.color, (like.width, like.height)
        self._count, self._time_base = 0, 1 / like.rate
        self._file, self._muxed = file, BytesIO()
        self._aspect = like.sample_aspect
        try:
            options = {"strict": "-1", "fflags": "+flush_packets"}
            self._output = av.open(self._muxed, "w", format=_FORMAT, options=options)
            stream = self._output.add_stream("rawvideo", rate=like.rate)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = self._size
            stream.pix_fmt = self.pixel_format
            full = color_for(self.pixel_format, like.color).full_range
            stream.codec_context.color_range = 2 if full else 1
            self._output.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise OutputError(f"y4m cannot hold {self.pixel_format}: {error}") from error
        self._stream = stream
        left_out = [
            f"{track.kind} {track.index} ({track.codec})"
            for track in like.tracks
            if track.index != like.stream_index
        ]
        notes = list(like.notes)
        if left_out:
            notes.append(f"not carried into a stream: {', '.join(left_out)}")
        if like.variable_rate:
            notes.append("times: the rate varies, and a stream has one rate")
        if like.alpha:
            notes.append("alpha: the alpha channel is not carried: y4m cannot hold it")
        self.notes = (*notes, *like.marks.lost("y4m cannot hold it"))

    def write(self, frame: Frame) -> None:
        """Write one frame.

        Raises:
            ValueError: it has another size than announced.
            OutputError: the other end is closed, or a disk is full.
        """
        picture = frame.picture(self.pixel_format, self._color, self._size)
        picture.pts, picture.time_base = self._count, self._time_base
        self._output.mux(self._stream.encode(picture))
        data = self._muxed.getvalue()
        self._muxed.seek(0)
        self._muxed.truncate()
        if not self._count:  # PyAV does not tell the muxer the shape of pixels
            aspect = f" A{self._aspect.numerator}:{self._aspect.denominator} "
            data = data.replace(b" A0:0 ", aspect.encode(), 1)
        self._count += 1
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write to the standard output ({error.strerror or error}): the program that"
                " reads it has stopped, or a disk is full"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._output.close()


def is_stream(request: UpscaleRequest) -> bool:
    """Whether source or output is "-"."""
    return STREAM in (str(request.source), str(request.output))


def _reader(request: UpscaleRequest) -> StreamReader | VideoReader | ImageReader:
    if str(request.source) != STREAM:
        return open_source(resolved(request))
    if request.has_range or request.crop == "auto" or request.deinterlace not in ("auto", "off"):
        raise OptionsError(
            "a stream is read once: --start, --end, --crop auto and --deinterlace need a file"
        )
    return StreamReader(sys.stdin.buffer, crop=request.crop)


def run_stream(
    request: UpscaleRequest,
    model: nn.Module,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> UpscaleResult:
    """Enlarge from or to a stream; errors are those of `iart.upscaling.film.run.upscale_video`.

    Args:
        request: source or output is "-", or both.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        progress: called after every frame.
    """
    began, output = time.monotonic(), Path(request.output)
    with ExitStack() as scope:
        reader = scope.enter_context(_reader(request))
        to_stream = str(request.output) == STREAM
        as_images = not to_stream and is_folder(output)
        conform = plan_conform(reader.info, request, is_folder=as_images)
        like = conform.output(reader.info)
        if to_stream:
            encoding = encoding_of(request)
            if any(value is not None for name, value in encoding.items() if name != "pixel_format"):
                raise OptionsError("a stream is not encoded: leave --codec, --crf and --preset out")
            writer = StreamWriter(sys.stdout.buffer, like=like, pixel_format=request.pixel_format)
            notes = check_hdr(reader.info, request.hdr, writer.pixel_format)
        else:
            notes = check_hdr(reader.info, request.hdr, request.pixel_format or "yuv420p10le")
            writer = open_writer(
                output,
                like=like,
                scale=1,
                drop=request.drop,
                overwrite=request.overwrite,
                **encoding_of(request),
            )
        notes = (*conform.notes, *notes, *writer.notes)
        for note in (*notes, "stream: a run that stops cannot be resumed"):
            _log.info("%s", note)
        count, device = 0, device_of(model)
        reader.device = device

        def write(frame: Frame) -> None:
            nonlocal count
            with writing_video(output):
                writer.write(conform.after(frame))
            count += 1
            if progress is not None:
                progress(Progress(count, reader.info.frame_count, time.monotonic() - began))

        with (
            writing_video(output),
            writer,
            read_ahead(conform.before(reader), READ_AHEAD, device) as frames,
            write_behind(write, CONFORM_BEHIND, device) as pass_on,
        ):
            for frame in upscale_frames(
                frames,
                model,
                window=request.window,
                overlap=request.overlap,
                tile=request.tile,
            ):
                pass_on(frame)
        if not count:
            raise InputError(f"cannot read '{request.name}': it holds no frame")
        check_damage(request, output, reader.losses)
    return UpscaleResult(output, count, time.monotonic() - began, notes)
