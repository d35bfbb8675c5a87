"""A whole benchmark: a protocol, its data, and a network or frames made elsewhere → a record."""

import logging
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from iart.device import pick_device, pick_precision, precision_name, threads_per_process
from iart.errors import DataError, IARTError, OptionsError
from iart.evaluate.clips import Clip, find_clips, low_resolution_folder, make_low_resolution
from iart.evaluate.made import make_frames
from iart.evaluate.protocol import Protocol, read_protocol
from iart.evaluate.report import write_reports
from iart.evaluate.results import (
    ClipRecord,
    FinishedClip,
    Record,
    ResultFolder,
    Setting,
    open_results,
)
from iart.evaluate.scoring import Scorer, ScoringTask, limit_crops, load_scorer, published_weights
from iart.parallel.cluster import Cluster
from iart.parallel.processes import Processes
from iart.parallel.workers import WorkerLostError
from iart.upscaling.budget import device_of
from iart.upscaling.film.job import files_fingerprint
from iart.upscaling.windows import OVERLAP
from iart.version import __version__
from iart.weights.load import from_anywhere
from iart.weights.tensorfile import some

_log = logging.getLogger(__name__)

SHOWN_CLIPS = 24
"""Clips that crops are taken of, evenly spread where there are more."""


def run(
    protocol: str | Path | Protocol,
    *,
    weights: str | Path | None = None,
    key: str | None = None,
    data: str | Path | None = None,
    results: str | Path | None = None,
    make_lr: bool = False,
    limit: int | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    save_images: bool = False,
    metrics: Collection[str] = (),
    metric_weights: str | Path | None = None,
    window: int | None = None,
    overlap: int = OVERLAP,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    precision: str = "float32",
    backend: str = "auto",
    cluster: str | None = None,
    cluster_cpus: float | None = None,
    cluster_gpus: float | None = None,
    command: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Measure a network, or frames made elsewhere, by a protocol; write reports.

    Call it again to resume a run that was stopped: clips that are done stay.

    Args:
        protocol: a name of `protocol_names()`, the path of a .yml file, or one that was read.
        weights: name or file, as in `load_model`; None for the file that the protocol names.
        key: which weights of a published file to take, as in `load_model`.
        data: the folder that the protocol's places are below, "datasets" if not given; of a
            protocol that makes its clips, a folder of own clips to degrade instead of these.
        results: score these frames instead of a network's: a folder of images per clip.
        make_lr: make the low-resolution frames from the ground truth if their folder is missing.
        limit: a quick look: only the first frames of each clip, or only the first clips where one
            frame of each is scored. Cannot be compared with published scores.
        output: folder for reports and finished clips; None for one below `results/` that is named
            by what is measured.
        overwrite: measure anew what the output folder holds already.
        save_images: keep the network's frames as PNG in the output folder.
        metrics: to compute besides PSNR and SSIM, see `iart.evaluate.metrics.extra.EXTRA`. One
            that this machine cannot compute becomes a note.
        metric_weights: folder of files of weights for LPIPS, tLP and DISTS, see `extra_metrics`.
        window: frames that the network sees at once; None for whole clips, or where these do not
            fit in memory, for as many as do.
        overlap: frames of context at either end of a window.
        device: where the network runs, as in `load_model`.
        devices: several that share the clips instead, a process each; one may be named twice.
        precision: what features are computed in, as in `load_model`. Not "auto" by default: scores
            of different machines are to be comparable to the digit.
        backend: what computes most of it, as in `load_model`.
        cluster: address of a Ray cluster that shares the clips, see `iart.parallel.cluster`; its
            machines see the data, the weights and the output folder under the same paths.
        cluster_cpus: that a worker there takes.
        cluster_gpus: that a worker there takes, or the part of one.
        command: what the record gives as its command; None for this process's own.
        progress: called with the number of frames scored so far, and of all; from several threads
            if there are several devices.

    Raises:
        OptionsError: no such protocol, or options that do not go together.
        DataError: images are missing, are too many, do not fit or cannot be read.
        WeightsError: the weights are missing or cannot be used.
        DeviceError: this machine lacks the device, or the memory even for windows.
        OutputError: the output folder holds another run, is in use or cannot be written.
    """
    chosen = protocol if isinstance(protocol, Protocol) else read_protocol(protocol)
    place, made = Path(data or "datasets"), None if results is None else Path(results)
    metrics = tuple(dict.fromkeys((*chosen.metrics, *metrics)))
    if made is not None and (weights is not None or save_images):
        raise OptionsError("results exist already: pass them without weights and save_images")
    if cluster is not None and (devices is not None or precision == "auto"):
        raise OptionsError("with a cluster, leave devices out and name the precision")
    if cluster is not None:
        made = made and made.absolute()
        device = "cpu"  # here the network only tells which one it is
    threads = None if devices is None else threads_per_process(devices) or torch.get_num_threads()
    if chosen.made:
        own = None if data is None else place
        chosen, place = make_frames(chosen, own=own, progress=progress)
    place = place if cluster is None else place.absolute()
    make_lr = make_lr and made is None and not chosen.made
    clips = () if make_lr else find_clips(chosen, place, results=made, limit=limit)
    if made is None and weights is None:
        weights, key = published_weights(chosen), key or chosen.key
    files = None if metric_weights is None else Path(metric_weights)
    if cluster is not None:
        weights, files = weights and from_anywhere(weights), files and files.absolute()
    task = ScoringTask(
        chosen, weights, key, made, metrics, files, precision, backend, window, overlap, images=None
    )
    if cluster is None:
        places = [device] if devices is None else devices
        used = (precision_name(pick_precision(precision, pick_device(name))) for name in places)
        precision = ", ".join(dict.fromkeys(used))
    if devices is None and cluster is None:
        scorer = load_scorer(task, device)
    else:  # tells what is measured; the processes score
        scorer = load_scorer(replace(task, precision="float32"), "cpu")
    if make_lr:  # which takes its time: not before it is known that the rest is there
        if make_low_resolution(chosen, place, progress=progress):
            _log.info("made the frames in '%s'", low_resolution_folder(chosen, place))
        clips = find_clips(chosen, place, limit=limit)
    network = made is None
    setting = {"precision": precision, "window": window, "overlap": overlap} if network else {}
    identity = {
        "iart": __version__,
        "weights": scorer.weights_hash or scorer.name,
        "results": None if made is None else str(made.resolve()),
        "limit": limit,
        "metrics": sorted(scorer.extra.names),  # not those asked for: some may come to be had
        "save_images": save_images,
        **({} if files is None else {"metric_weights": str(files.resolve())}),
        **setting,
        "protocol": chosen.model_dump(mode="json"),
    }
    if output is None:
        more = [precision] if network and precision != "float32" else []
        more += [f"first{limit}"] if limit else []
        output = Path("results", chosen.name, "-".join([scorer.label, *more]))
    folder = Path(output) if cluster is None else Path(output).absolute()
    task = replace(task, images=folder / "images" if save_images else None)
    with open_results(folder, clips, identity, overwrite=overwrite) as done:
        if done.finished:
            _log.info(
                "%d of %d clips were scored before by the same command and are not computed anew"
                " (--overwrite does that)",
                len(done.finished),
                len(clips),
            )
        count = Count(clips, done, progress)
        if cluster is not None:
            with Cluster(cluster, cpus=cluster_cpus, gpus=cluster_gpus) as joined:
                spread_clips(task, joined, _with_crops(clips, done), count)
        elif devices is None:
            scorer = replace(scorer, task=task)
            for clip, crops in _with_crops(clips, done):
                count.save(scorer.score(clip, crops, partial(count.tell, clip.name)))
        else:
            share_clips(task, devices, threads, _with_crops(clips, done), count)
        record = _record(scorer, done.in_order(), limit, precision if network else None, command)
        write_reports(record, folder)
    _log.info("the report is in '%s', with tables and frames beside it", folder / "report.html")
    return record


def _with_crops(clips: Sequence[Clip], results: ResultFolder) -> list[tuple[Clip, int]]:
    """Clips that are left, and how many crops to take: of few clips 3 each, of many 1 of some."""
    if len(clips) <= SHOWN_CLIPS:
        return [(clip, 3) for clip in results.left()]
    chosen = {clips[i * len(clips) // SHOWN_CLIPS].name for i in range(SHOWN_CLIPS)}
    return [(clip, int(clip.name in chosen)) for clip in results.left()]


def _record(
    scorer: Scorer,
    finished: Collection[FinishedClip],
    limit: int | None,
    precision: str | None,
    command: str | None,
) -> Record:
    protocol = scorer.task.protocol
    published = protocol.expected if limit is None else None
    clips = limit_crops(done.clip for done in finished)
    return Record(
        Setting(
            protocol.name,
            protocol.description,
            protocol.colour,
            protocol.border,
            {"psnr": published.psnr, "ssim": published.ssim} if published else {},
            published.of if published else None,
        ),
        clips,
        command or shlex.join([Path(sys.executable).name, *sys.argv]),
        __version__,
        torch.__version__,
        scorer.name,
        scorer.weights_hash,
        ", ".join(sorted({done.device for done in finished})),
        precision,
        datetime.now().astimezone(),
        (
            *_notes(protocol, clips, limit),
            *scorer.extra.notes,
            *sorted({note for done in finished for note in done.notes}),
        ),
    )


def _notes(protocol: Protocol, clips: Collection[ClipRecord], limit: int | None) -> list[str]:
    notes = [protocol.note] if protocol.note else []
    if limit is not None:
        what = f"frames of each clip (limit {limit})"
        if protocol.score_frames == "centre":
            what = f"{limit} clips of the list"
        notes.append(f"a quick look at the first {what}: not the score of {protocol.name}")
    if any(clip.lr_made for clip in clips):
        notes.append(f"low-resolution frames ({protocol.degradation}) were made here")
    if windowed := [clip.name for clip in clips if clip.windowed]:
        notes.append(f"in windows, which costs a little, instead of whole: {some(windowed)}")
    return notes


# ---- clips shared among processes of this machine or workers of a cluster


MOST_LOSSES = 3
"""How often a clip may be lost with its worker before it is given up."""


Work = Callable[[Scorer, Callable[[int], None]], FinishedClip]
"""Scores a clip, and tells how many of its frames are done."""


class Count:
    """Frames of a run that are scored, in all clips together."""

    def __init__(
        self,
        clips: Sequence[Clip],
        results: ResultFolder,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._results, self._progress = results, progress
        self._scored = dict.fromkeys((clip.name for clip in clips), 0)
        self._scored |= {n: len(done.clip.frames) for n, done in results.finished.items()}
        self._total = sum(len(clip.scored) for clip in clips)

    def tell(self, name: str, frames: int) -> None:
        """So many frames of a clip are scored."""
        self._scored[name] = frames
        if self._progress is not None:
            self._progress(sum(self._scored.values()), self._total)

    def save(self, done: FinishedClip) -> None:
        """A clip is finished."""
        self._results.save(done)
        self.tell(done.clip.name, len(done.clip.frames))


def share_clips(
    task: ScoringTask,
    devices: Sequence[str],
    threads: int | None,
    clips: Sequence[tuple[Clip, int]],
    count: Count,
) -> None:
    """Score clips in a process per device; raises as `_score_all`."""
    loaders = [
        partial(load_scorer, task, device, share=1 / devices.count(device))
        for device in devices[: len(clips)]
    ]
    with Processes(loaders, threads=threads) as processes:
        tasks = (_ClipTask(clip, crops) for clip, crops in clips)
        _score_all(processes.submit, tasks, count)


def spread_clips(
    task: ScoringTask, cluster: Cluster, clips: Sequence[tuple[Clip, int]], count: Count
) -> None:
    """The same on a cluster, whose machines must see the same files."""
    load = partial(load_scorer, task, "auto", share=cluster.share)
    with cluster.workers(load, _described) as workers:
        tasks = (_ClipTask(clip, crops, files_fingerprint(_files(clip))) for clip, crops in clips)
        _score_all(workers.submit, tasks, count)


@dataclass(frozen=True)
class _ClipTask:
    """A clip to score; if its content is given, it must be the same on the machine that does."""

    clip: Clip
    crops: int
    content: str | None = None

    def score(self, scorer: Scorer, tell: Callable[[int], None]) -> FinishedClip:
        if self.content is not None:
            self._check(self.content)
        return scorer.score(self.clip, self.crops, tell)

    def _check(self, expected: str) -> None:
        try:
            content = files_fingerprint(_files(self.clip))
        except OSError as error:
            raise DataError(f"{platform.node()} cannot read '{error.filename}'") from error
        if content != expected:
            raise DataError(
                f"{platform.node()} has other files than this for '{self.clip.gt[0].parent}'; all"
                " machines must see the same"
            )


def _score_all(
    submit: Callable[[Work, Callable[[int], None]], Future[FinishedClip]],
    tasks: Iterable[_ClipTask],
    count: Count,
) -> None:
    """Have clips scored; one that fails does not keep others from it.

    A clip that is lost with its worker is given to another one.

    Raises:
        IARTError: a clip or a process failed; the first of these errors, after the other clips.
    """

    def begin(task: _ClipTask) -> Future[FinishedClip]:
        return submit(task.score, partial(count.tell, task.clip.name))

    losses: Counter[str] = Counter()
    failure: IARTError | None = None
    running = {begin(task): task for task in tasks}
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task, error = running.pop(future), future.exception()
            losses[task.clip.name] += isinstance(error, WorkerLostError)
            if isinstance(error, WorkerLostError) and losses[task.clip.name] < MOST_LOSSES:
                running[begin(task)] = task
            elif isinstance(error, IARTError):
                failure = failure or error
            else:
                count.save(future.result())
    if failure is not None:
        raise failure


def _files(clip: Clip) -> tuple[Any, ...]:
    return (*clip.gt, *clip.lq, *clip.results)


def _described(scorer: Scorer) -> str:
    """What must be the same in all workers."""
    kind = "no device" if scorer.model is None else device_of(scorer.model).type
    return f"{scorer.name} {scorer.weights_hash} on {kind}"
