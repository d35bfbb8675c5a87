"""A whole video, enlarged: read, taken apart into segments, put together again."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from iart.errors import DamagedInputError, IARTError, InputError, OutputError
from iart.files.complete import final_name
from iart.parallel.processes import Processes
from iart.upscaling.film.job import (
    CONTENT,
    End,
    Job,
    finished_before,
    note_finished,
    open_job,
    source_fingerprint,
    take_up_placed,
)
from iart.upscaling.film.plan import UpscalePlan, plan_upscale
from iart.upscaling.film.request import (
    Progress,
    Source,
    UpscaleOptions,
    UpscaleRequest,
    UpscaleResult,
)
from iart.upscaling.film.segments import PictureStore, assemble_film
from iart.upscaling.film.spread import Spread
from iart.upscaling.film.worker import Claims, Message, Work
from iart.video.frame import Loss
from iart.video.read.describe import describe_loss
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from iart.video.write.muxer import FilmPlan
from iart.video.write.writer import writing_video

_log = logging.getLogger(__name__)

LoadModel = Callable[[], nn.Module]
"""Loads a model where it is to run; can be sent to another process."""


def upscale_video(
    source: Source,
    output: str | Path,
    model: nn.Module,
    *,
    workers: Sequence[LoadModel] = (),
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[UpscaleOptions],
) -> UpscaleResult:
    """Enlarge a video file, or a series of images, in constant memory.

    Sound, subtitles, attachments, chapters and metadata go along. Reading, the network and writing
    overlap. The output gets its name when it is complete. Until then, finished segments lie in a
    hidden folder beside it, and the same call goes on after them, whatever stopped the one before:
    the output is the same, byte by byte, as without the stop. What has to be converted is logged
    (INFO, "iart.upscaling.film.run") before the work starts.

    Args:
        source: a file that FFmpeg reads, a folder of images, a pattern such as ``shot/*.png``,
            or a list of images.
        output: a file (.mp4, .mkv, .mov, .webm) or a folder for images.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        workers: further processes that share the work: functions that load the same model, each in
            its own process and on its own device. On the CPU they compute with as many threads as
            this process.
        progress: called after every frame, of other processes every half second, by several
            threads in turn.
        options: the attributes of `iart.upscaling.film.request.UpscaleRequest`, with the same
            defaults: window, overlap, tile, size, codec, crf and so on.

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
    request = UpscaleRequest(source, output, **options)
    return run(request, model, workers=workers, progress=progress)


def run(
    request: UpscaleRequest,
    model: nn.Module,
    *,
    workers: Sequence[LoadModel] = (),
    progress: Callable[[Progress], None] | None = None,
    spread: Spread | None = None,
    skip_finished: bool = False,
) -> UpscaleResult:
    """Do what is asked for; other arguments and errors are those of `upscale_video`.

    With `skip_finished`, an output that the same call has made before is left alone, instead of
    being refused or replaced; and what is finished is noted. With `spread`, workers of a cluster
    enlarge, and `model` only tells which one it is.
    """
    began = time.monotonic()
    with plan_upscale(request) as plan:
        identity = plan.identity(model) | ({} if spread is None else spread.identity(model))
        final = final_name(plan.target.path, folder=plan.is_folder)
        end = take_up_placed(final, identity)
        if end is None and skip_finished:
            end = finished_before(final, identity)
        if end is not None:
            return replace(_result(plan, end, began), is_new=False)
        place = plan.place()
        for note in plan.notes:
            _log.info("%s", note)
        with open_job(place, identity, overwrite=request.overwrite) as job, _told(job, plan):
            end = job.end
            if end is None or not plan.store(job.segments).is_complete(end.frames):
                tally = _Tally(plan, job, began, progress)
                work = partial(Work.of, plan, job, content=identity[CONTENT])
                claims = Claims(plan.store(job.segments), tally.count)
                if spread is None:
                    tiling = partial(plan.tiling, model, processes=1 + len(workers))
                    _enlarge(work(job.tiling(tiling)), claims, plan.reader, model, workers)
                else:
                    tiling = partial(spread.tiling, plan)
                    spread.enlarge(work(job.tiling(tiling)), claims, plan.info.frame_count)
                end = _ended(plan, job, claims)
            has_tracks = isinstance(plan.target, FilmPlan) and plan.target.tracks.carried
            if has_tracks and source_fingerprint(request.source) != identity[CONTENT]:
                raise InputError(
                    f"'{request.name}' has changed while it was read: its tracks would not fit the"
                    " pictures. Put the file back that it was, or delete"
                    f" '{job.folder}' to start anew"
                )
            with writing_video(Path(request.output)):
                losses = _assemble(plan, job, end)
        end = replace(end, losses=(*end.losses, *losses))
        if skip_finished:
            note_finished(final, identity, end)
        return _result(plan, end, began)


def _enlarge(
    work: Work,
    claims: Claims,
    reader: VideoReader | ImageReader,
    model: nn.Module,
    workers: Sequence[LoadModel],
) -> None:
    """Enlarge what is not kept yet, here and in worker processes."""
    with Processes(workers, threads=torch.get_num_threads()) as processes:
        others = [processes.submit(work.share, partial(claims.answer, object())) for _ in workers]
        ours = object()

        def ask(message: Message) -> int | None:
            for other in others:
                if other.done():
                    other.result()  # raises what stopped it
            return claims.answer(ours, message)

        work.run(reader, model, ask)
        for other in as_completed(others):
            other.result()


def _ended(plan: UpscalePlan, job: Job, claims: Claims) -> End:
    """What is known when all passes have ended; complains if anything is missing."""
    assert claims.end is not None
    end = replace(claims.end, losses=tuple(plan.in_output(claims.end.losses)))
    request = plan.request
    if not end.frames:
        none = "no frame in the range" if request.has_range else "no frame"
        raise InputError(f"cannot read '{request.name}': it holds {none} that can be decoded")
    store = plan.store(job.segments)
    if not store.is_complete(end.frames):
        kept = store.count()
        raise OutputError(
            f"cannot write '{request.output}': {kept} of its {end.frames} frames are there;"
            f" run the same command again, or delete '{job.folder}' to start anew"
        )
    job.complete(end)
    return end


def _assemble(plan: UpscalePlan, job: Job, end: End) -> list[Loss]:
    """Make the output of its segments, and give it its name; damage of tracks comes back."""
    store = plan.store(job.segments)
    if isinstance(store, PictureStore):
        job.place(store.pictures)
        return []
    assert isinstance(plan.target, FilmPlan)
    part = job.folder / f"output{plan.target.path.suffix}"
    try:
        losses = assemble_film(plan.target, job.segments, end.segments, part)
    except BaseException:
        part.unlink(missing_ok=True)  # it may be what fills the disk
        raise
    job.place(part)
    return losses


class _Tally:
    """Counts frames for `progress`, those of all processes and of runs before."""

    def __init__(
        self,
        plan: UpscalePlan,
        job: Job,
        began: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._before = self._done = plan.store(job.segments).count()
        self._expected, self._began, self._progress = plan.info.frame_count, began, progress
        self._lock = threading.Lock()
        if self._before:
            total = "" if self._expected is None else f" of {self._expected}"
            _log.info("going on at frame %d%s", self._before, total)

    def count(self, frames: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += frames
            if self._progress is not None:
                elapsed = time.monotonic() - self._began
                self._progress(Progress(self._done, self._expected, elapsed, self._before))


@contextmanager
def _told(job: Job, plan: UpscalePlan) -> Iterator[None]:
    """Errors that stop the work tell what is left of it."""
    try:
        yield
    except (IARTError, KeyboardInterrupt) as error:
        frames = plan.store(job.segments).count() if job.segments.is_dir() else 0
        if frames:
            going_on = f"the same command goes on at frame {frames}"
            error.args = ("; ".join(filter(None, (str(error), going_on))), *error.args[1:])
        raise


def _result(plan: UpscalePlan, end: End, began: float) -> UpscaleResult:
    for loss in end.losses:
        if not loss.certain:
            _log.info("%s", describe_loss(loss))
    path = plan.target.path
    check_damage(plan.request, path, end.losses)
    return UpscaleResult(path, end.frames, time.monotonic() - began, plan.notes)


def check_damage(request: UpscaleRequest, output: Path, losses: Iterable[Loss]) -> None:
    """Tell of what was lost for certain, once the output is written.

    Raises:
        DamagedInputError: there is such a loss.
    """
    if certain := tuple(loss for loss in losses if loss.certain):
        listed = "; ".join(map(describe_loss, certain))
        raise DamagedInputError(
            f"'{output}' is written, but '{request.name}' is damaged: {listed}", certain
        )
