"""Endless batches in an order that depends on the seed alone.

Micro-batch m of step s on rank r holds the samples with indices

    g = start + ((s · accumulation + m) · world_size + r) · batch_size + i,   0 ≤ i < batch_size

of the run, and sample g is made of item `order(epoch)[g mod n]`, epoch = g div n, of n items. So 2
processes see together what 1 process with twice the batch sees, and a run goes on in the same order
on another number of processes.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from iart.data.augment import order_generator, sample_generator
from iart.data.batches import Unfinished, finished
from iart.data.samples import Origin, Sample, TrainingSet
from iart.data.scenes import SceneSet
from iart.errors import DataError
from iart.parallel.ordered import ordered

logger = logging.getLogger(__name__)

# Loading ends when more than this share of the samples, and so many of them, have failed.
_FAILED_SHARE, _FAILED_COUNT = 0.01, 10
_CPU = torch.device("cpu")


@dataclass
class Batch:
    """Samples, RGB in [0, 1].

    Attributes:
        lq: low resolution.
        gt: ground truth.
        origins: where each sample comes from.
        wait_seconds: how long the training step waited for this batch.
    """

    lq: Float[Tensor, "b t 3 h w"]
    gt: Float[Tensor, "b t 3 4*h 4*w"]
    origins: tuple[Origin, ...]
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class _Draw:
    index: int
    first: int
    item: int


class Loader:
    """Iterates over batches without end; a context manager.

    Attributes:
        skipped: samples that failed and were replaced, counted by what was wrong.
    """

    skipped: Counter[str]

    def __init__(
        self,
        training_set: TrainingSet,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        shuffle: bool = True,
        workers: int = 0,
        device: torch.device = _CPU,
        on_device: bool = False,
    ) -> None:
        """Nothing is read before the first batch is asked for.

        Args:
            training_set: with at least one item.
            batch_size: samples of a batch.
            seed: of the run.
            start: samples that the run has used already, on all processes.
            rank: of this process.
            world_size: processes.
            accumulation: batches of a step on each process.
            shuffle: another order in every epoch; otherwise that of the set.
            workers: threads that make samples while the network works; 0 makes them when they are
                asked for.
            device: of the batches.
            on_device: let the threads only draw samples of scenes, and the device compute them, a
                batch at once; samples that a codec has part in are the threads' as ever.
        """
        self._set, self._batch_size, self._seed, self._start = training_set, batch_size, seed, start
        self._rank, self._world_size, self._accumulation = rank, world_size, accumulation
        self._shuffle, self._workers = shuffle, workers
        self._device = device
        self._make: Callable[..., Sample | Unfinished] = training_set.sample
        if on_device and isinstance(training_set, SceneSet):
            self._make = training_set.begin
        self._given = 0
        self._running: list[Generator[tuple[Sample | Unfinished, list[str]], None, None]] = []
        self.skipped = Counter()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what they have begun is finished first."""
        while self._running:
            self._running.pop().close()

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `start` on.

        Raises:
            DataError: more than 1 % of the samples failed, and more than 10 of them; or samples of
                one batch have different sizes.
        """
        ahead = 2 * self._batch_size if self._workers else 0
        samples = ordered(self._sample, self._draws(), workers=self._workers, ahead=ahead)
        self._running.append(samples)
        try:
            while True:
                began = time.perf_counter()
                batch = [self._counted(*made) for made in islice(samples, self._batch_size)]
                if not batch:  # closed
                    return
                lq, gt = finished(batch, self._device)
                waited = time.perf_counter() - began
                yield Batch(lq, gt, tuple(sample.origin for sample in batch), waited)
        finally:
            samples.close()

    def _draws(self) -> Iterator[_Draw]:
        """What this process loads, in order."""
        length, epoch, order = len(self._set), -1, np.empty(0, np.int64)
        of_micro = self._world_size * self._batch_size
        of_step = of_micro * self._accumulation
        for first in count(self._start, of_step):
            for micro in range(first, first + of_step, of_micro):
                begin = micro + self._rank * self._batch_size
                for index in range(begin, begin + self._batch_size):
                    if index // length != epoch:
                        epoch = index // length
                        order = self._order(epoch)
                    yield _Draw(index, first, int(order[index % length]))

    def _order(self, epoch: int) -> Int[np.ndarray, " n"]:
        items = np.arange(len(self._set))
        return order_generator(self._seed, epoch).permutation(items) if self._shuffle else items

    def _sample(self, draw: _Draw) -> tuple[Sample | Unfinished, list[str]]:
        """The sample, or one that replaces it, and why others failed."""
        index, item = draw.index, draw.item
        failures: list[str] = []
        while True:
            attempt = len(failures)
            if attempt:
                rng = sample_generator(self._seed, index, attempt)
                item = int(rng.integers(len(self._set)))
            try:
                sample = self._make(item, index, self._seed, first=draw.first, attempt=attempt)
            except DataError as error:
                failures.append(str(error))
                if len(failures) > _FAILED_COUNT:
                    raise DataError(f"{len(failures)} samples in a row failed: {error}") from error
            else:
                return sample, failures

    def _counted(self, sample: Sample | Unfinished, failures: list[str]) -> Sample | Unfinished:
        """Take note of failures, in the order of samples."""
        self._given += 1 + len(failures)
        for failure in failures:
            if failure not in self.skipped:
                logger.warning("training sample skipped: %s", failure)
            self.skipped[failure] += 1
            failed = self.skipped.total()
            if failed > max(_FAILED_COUNT, _FAILED_SHARE * self._given):
                raise DataError(
                    f"{failed} of {self._given} training samples failed, the last one: {failure}."
                    " See all with `iart train --check`"
                )
        return sample
