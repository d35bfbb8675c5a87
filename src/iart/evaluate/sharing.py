"""Clips of a benchmark, shared among processes of this machine or workers of a cluster."""

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from iart.errors import DataError, IARTError
from iart.evaluate.clips import Clip
from iart.evaluate.results import FinishedClip, ResultFolder
from iart.evaluate.scoring import Scorer, ScoringTask, load_scorer
from iart.parallel.cluster import Cluster
from iart.parallel.processes import Processes
from iart.parallel.workers import WorkerLostError
from iart.upscaling.budget import device_of
from iart.upscaling.film.job import files_fingerprint

MOST_LOSSES = 3
"""How often a clip may be lost with its worker before it is given up."""


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
    """Score clips in a process per device; a clip that fails does not keep others from it.

    Raises:
        IARTError: a clip or a process failed; the first of these errors, after the other clips.
    """
    loaders = [
        partial(load_scorer, task, device, share=1 / devices.count(device))
        for device in devices[: len(clips)]
    ]
    failure: IARTError | None = None
    with Processes(loaders, threads=threads) as processes:
        futures = [
            processes.submit(partial(_score, clip, crops), partial(count.tell, clip.name))
            for clip, crops in clips
        ]
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, IARTError):
                failure = failure or error
            else:
                count.save(future.result())
    if failure is not None:
        raise failure


def spread_clips(
    task: ScoringTask, cluster: Cluster, clips: Sequence[tuple[Clip, int]], count: Count
) -> None:
    """The same on a cluster; a clip that is lost with its worker is given to another one."""
    load = partial(load_scorer, task, "auto", share=cluster.share)
    losses: Counter[str] = Counter()
    failure: IARTError | None = None
    with cluster.workers(load, _described) as workers:
        running: dict[Future[FinishedClip], _Checked] = {}

        def submit(checked: _Checked) -> None:
            told = partial(count.tell, checked.clip.name)
            running[workers.submit(checked.score, told)] = checked

        for clip, crops in clips:
            submit(_Checked(clip, crops, files_fingerprint(_files(clip))))
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                checked, error = running.pop(future), future.exception()
                losses[checked.clip.name] += isinstance(error, WorkerLostError)
                if isinstance(error, WorkerLostError) and losses[checked.clip.name] < MOST_LOSSES:
                    submit(checked)
                elif isinstance(error, IARTError):
                    failure = failure or error
                else:
                    count.save(future.result())
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _Checked:
    """A clip that must be the same on the machine that scores it."""

    clip: Clip
    crops: int
    content: str

    def score(self, scorer: Scorer, tell: Callable[[int], None]) -> FinishedClip:
        try:
            content = files_fingerprint(_files(self.clip))
        except OSError as error:
            raise DataError(f"{platform.node()} cannot read '{error.filename}'") from error
        if content != self.content:
            raise DataError(
                f"{platform.node()} has other files than this for '{self.clip.gt[0].parent}'; all"
                " machines must see the same"
            )
        return scorer.score(self.clip, self.crops, tell)


def _files(clip: Clip) -> tuple[Any, ...]:
    return (*clip.gt, *clip.lq, *clip.results)


def _described(scorer: Scorer) -> str:
    """What must be the same in all workers."""
    kind = "no device" if scorer.model is None else device_of(scorer.model).type
    return f"{scorer.name} {scorer.weights_hash} on {kind}"


def _score(clip: Clip, crops: int, scorer: Scorer, tell: Callable[[int], None]) -> FinishedClip:
    return scorer.score(clip, crops, tell)
