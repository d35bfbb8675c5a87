"""An upscale from standard input or to standard output, in one pass that cannot be resumed."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from iart.errors import InputError, OptionsError
from iart.parallel.pipeline import read_ahead, write_behind
from iart.progress import Progress, UpscaleResult
from iart.upscaling.budget import device_of
from iart.upscaling.clip import upscale_frames
from iart.upscaling.film.conform import check_hdr, plan_conform
from iart.upscaling.film.plan import encoding_of, open_source, resolved
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import check_damage
from iart.upscaling.film.worker import CONFORM_BEHIND, READ_AHEAD
from iart.video.frame import Frame
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from iart.video.stream import STREAM, StreamReader, StreamWriter
from iart.video.write.writer import is_folder, open_writer, writing_video

_log = logging.getLogger(__name__)


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
