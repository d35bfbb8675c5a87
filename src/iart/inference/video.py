"""A whole video, enlarged: read, taken apart into segments, put together again."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from iart.errors import DamagedInputError, IARTError, InputError, OutputError
from iart.inference.crew import Crew, LoadModel
from iart.inference.job import End, Job, take_up_placed
from iart.inference.order import Order, Target
from iart.inference.parts import PictureParts, assemble_film
from iart.inference.reading import Reading
from iart.inference.report import Progress, UpscaleResult
from iart.inference.tiling import TileOption, Tiling, device_of, film_bytes, plan_tiling
from iart.inference.windows import OVERLAP, WINDOW
from iart.inference.work import Work
from iart.video.describe import describe_loss
from iart.video.film import EncodingOptions, FilmPlan
from iart.video.frame import Crop, Loss, VideoInfo
from iart.video.pending import Place, final_name
from iart.video.writing import Writing

_log = logging.getLogger(__name__)


def upscale_video(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: TileOption = "auto",
    deinterlace: str = "auto",
    crop: Crop | Literal["auto"] | None = None,
    start_seconds: Fraction | None = None,
    end_seconds: Fraction | None = None,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pixel_format: str | None = None,
    drop: Collection[str] = (),
    overwrite: bool = False,
    size: str | None = None,
    square_pixels: bool = False,
    color: str = "auto",
    hdr: str = "refuse",
    rate: Fraction = Fraction(25),
    precision: str = "float32",
    crew: Sequence[LoadModel] = (),
    progress: Callable[[Progress], None] | None = None,
) -> UpscaleResult:
    """Enlarge a video file, or a series of images, in constant memory.

    Sound, subtitles, attachments, chapters and metadata go along. Reading, the network and writing
    overlap. The output gets its name when it is complete. Until then, finished segments lie in a
    hidden folder beside it, and the same call goes on after them, whatever stopped the one before:
    the output is the same, byte by byte, as without the stop. What has to be converted is logged
    (INFO, "iart.inference.video") before the work starts.

    Args:
        source: a file that FFmpeg reads, a folder of images, a pattern such as "shot/*.png",
            or a list of images.
        output: a file (.mp4, .mkv, .mov, .webm) or a folder for images.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side of square tiles in pixels, for pictures too large for the memory; "auto" plans
            tiles and window from what is free when a job begins; None for none.
        deinterlace: "auto", "off", "bwdif" or "bwdif-field".
        crop: the part of the picture to enlarge, in pixels of the source as shown; None for all,
            "auto" for all but black borders.
        start_seconds: where to start, from the beginning of the film; None from the beginning.
        end_seconds: where to stop, from the beginning of the film; None at its end.
        codec: FFmpeg's name of the video encoder; None for the container's default.
        crf: quality, lower is better; None for the codec's default here.
        preset: speed of the encoder, in its own words.
        pixel_format: FFmpeg's name, such as "yuv420p10le"; None to follow the source.
        drop: tracks to leave out: "audio", "subtitle", "attachment", "data" or a stream's index.
        overwrite: replace an output that exists, and a job for it that another call has begun.
        size: "1080p", "1440p", "2160p", "2x", "3x" or "WxH"; None for four times the source. See
            `iart.inference.conform.plan_size`.
        square_pixels: make pixels of the output square; else the picture keeps its shape by theirs.
        color: "auto": BT.601 becomes BT.709 in videos larger than SD; "keep", "bt709", "bt601" or
            "bt2020".
        hdr: "refuse" or "passthrough", for sources in PQ or HLG.
        rate: frames per second of a folder of images.
        precision: that the model computes in, as `load_model` was told; a job that was begun with
            another is not gone on with.
        crew: further processes that share the work: functions that load the same model, each in its
            own process and on its own device.
        progress: called after every frame, by several threads in turn.

    Raises:
        InputError: the source cannot be read, holds no frame, or is HDR.
        OutputError: the output exists, cannot be written, or cannot hold a track or the codec;
            another call has begun it with other arguments, or is working on it now.
        OptionsError: the window keeps no frame, the tile is too small, or an encoder refuses a
            setting.
        DeviceError: the device's memory does not suffice for a window.
        DamagedInputError: parts of the source were lost. The output is complete otherwise, and in
            place; the error lists what is missing.
    """
    order = Order.to(
        output,
        Reading(source, rate, deinterlace, crop, start_seconds, end_seconds),
        window=window,
        overlap=overlap,
        tile=tile,
        drop=tuple(drop),
        encoding=EncodingOptions(codec=codec, crf=crf, preset=preset, pixel_format=pixel_format),
        precision=precision,
        size=size,
        square_pixels=square_pixels,
        color=color,
        hdr=hdr,
    )
    return fulfil(order, model, overwrite=overwrite, crew=crew, progress=progress)


def fulfil(
    order: Order,
    model: nn.Module,
    *,
    overwrite: bool = False,
    crew: Sequence[LoadModel] = (),
    progress: Callable[[Progress], None] | None = None,
) -> UpscaleResult:
    """Do what an order says; arguments and errors are those of `upscale_video`."""
    began, output = time.monotonic(), order.output
    reading = order.reading.resolved()
    with reading.open() as reader:
        target = order.plan(reader.info, reading)
        identity = order.identity(model)
        end = take_up_placed(final_name(output, folder=order.is_folder), identity)
        if end is not None:
            return _result(order, target, end, (), began)
        place = Place(
            output, folder=order.is_folder, inputs=[reader.info.path], overwrite=overwrite
        )
        for note in target.plan.notes:
            _log.info("%s", note)
        with Job(place, identity, overwrite=overwrite) as job, _kept(job, target):
            end, kept = job.end, target.parts(job.parts).count()
            if end is None or end.frames != kept:
                tally = _Tally(kept, reader.info.frame_count, began, progress)
                tiling = job.tiling(
                    partial(plan_for, order, model, reader.info, processes=1 + len(crew))
                )
                work = Work.of(order, target, job, tiling)
                with Crew(crew, reading, work, tally.count) as others:

                    def done() -> None:
                        others.check()
                        tally.count()

                    end = work.run(reader, model, done)
                    others.join()
                if not end.frames:
                    none = "no frame in the range" if reading.has_range else "no frame"
                    raise InputError(
                        f"cannot read '{reading.name}': it holds {none} that can be decoded"
                    )
                kept = target.parts(job.parts).count()
                if kept != end.frames:
                    raise OutputError(
                        f"cannot write '{output}': {kept} of its {end.frames} frames are there;"
                        f" run the same command again, or delete '{job.folder}' to start anew"
                    )
                job.complete(end)
            has_tracks = isinstance(target.plan, FilmPlan) and target.plan.assembly.tracks.carried
            if has_tracks and reading.fingerprint() != identity["content of the source"]:
                raise InputError(
                    f"'{reading.name}' has changed while it was read: its tracks would not fit the"
                    " pictures. Put the file back that it was, or delete"
                    f" '{job.folder}' to start anew"
                )
            with Writing(output):
                losses = _assemble(target, job, end)
    return _result(order, target, end, losses, began)


def plan_for(order: Order, model: nn.Module, info: VideoInfo, *, processes: int = 1) -> Tiling:
    """What the network is shown at once, if so many processes share the work.

    Raises:
        OptionsError: the tile is too small.
        DeviceError: this machine has too little memory.
    """
    return plan_tiling(
        model,
        info.height,
        info.width,
        window=order.window,
        overlap=order.overlap,
        tile=order.tile,
        precision=order.precision,
        beside=film_bytes(info.height, info.width),
        # Others on GPUs have a memory of their own.
        share=1 / processes if device_of(model).type == "cpu" else 1.0,
    )


def _assemble(target: Target, job: Job, end: End) -> list[Loss]:
    """Make the output of its parts, and give it its name; damage of tracks comes back."""
    parts = target.parts(job.parts)
    if isinstance(parts, PictureParts):
        job.place(parts.pictures)
        return []
    assert isinstance(target.plan, FilmPlan)
    part = job.folder / f"output{target.plan.path.suffix}"
    try:
        losses = assemble_film(target.plan, job.parts, end.segments, part)
    except BaseException:
        part.unlink(missing_ok=True)  # it may be what fills the disk
        raise
    job.place(part)
    return losses


class _Tally:
    """Counts frames for `progress`, those of all processes and of runs before."""

    def __init__(
        self,
        before: int,
        expected: int | None,
        began: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._before = self._done = before
        self._expected, self._began, self._progress = expected, began, progress
        self._lock = threading.Lock()
        if before:
            total = "" if expected is None else f" of {expected}"
            _log.info("going on at frame %d%s", before, total)

    def count(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            if self._progress is not None:
                elapsed = time.monotonic() - self._began
                self._progress(Progress(self._done, self._expected, elapsed, self._before))


@contextmanager
def _kept(job: Job, target: Target) -> Iterator[None]:
    """Errors that stop the work tell what is left of it."""
    try:
        yield
    except (IARTError, KeyboardInterrupt) as error:
        frames = target.parts(job.parts).count() if job.parts.is_dir() else 0
        if frames:
            going_on = f"the same command goes on at frame {frames}"
            error.args = ("; ".join(filter(None, (str(error), going_on))), *error.args[1:])
        raise


def _result(
    order: Order, target: Target, end: End, losses: Sequence[Loss], began: float
) -> UpscaleResult:
    plan, losses = target.plan, (*end.losses, *losses)
    if losses:
        listed = "; ".join(describe_loss(loss) for loss in losses)
        raise DamagedInputError(
            f"'{plan.path}' is written, but '{order.reading.name}' is damaged: {listed}", losses
        )
    return UpscaleResult(plan.path, end.frames, time.monotonic() - began, plan.notes)
