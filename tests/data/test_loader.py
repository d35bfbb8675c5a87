import logging
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iart.data.loader import Batch, Loader
from iart.data.pairs import Pair
from iart.data.samples import Origin, Sample
from iart.errors import DataError
from tests.data.made import make_pairs, make_set


class Numbers:
    """Samples that tell their item; some items fail."""

    pairs: Sequence[Pair] = ()

    def __init__(self, length: int, *, broken: frozenset[int] = frozenset(), odd: bool = False):
        self.length, self.broken, self.odd = length, broken, odd

    def __len__(self) -> int:
        return self.length

    def sample(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample:
        if item in self.broken:
            raise DataError(f"item {item} is broken")
        t = 1 + index % 2 if self.odd else 1
        lq = torch.full((t, 3, 1, 1), item % 256, dtype=torch.uint8)
        origin = Origin(index, str(item), (), 0, 0, (1, 1), f"{first} {attempt}")
        return Sample(lq, lq.repeat_interleave(4, -1).repeat_interleave(4, -2), origin)


def take(count: int, length: int = 10, **arguments) -> list[Batch]:
    arguments = {"batch_size": 1, "seed": 0, **arguments}
    with Loader(arguments.pop("training_set", Numbers(length)), **arguments) as loader:
        return list(islice(loader, count))


def items(batches: list[Batch]) -> list[str]:
    return [origin.clip for batch in batches for origin in batch.origins]


def indices(batches: list[Batch]) -> list[int]:
    return [origin.index for batch in batches for origin in batch.origins]


def test_a_batch(tmp_path: Path):
    (batch,) = take(1, training_set=make_set(make_pairs(tmp_path)), batch_size=2)
    assert batch.lq.shape == (2, 3, 3, 4, 4)
    assert batch.gt.shape == (2, 3, 3, 16, 16)
    assert batch.lq.dtype == batch.gt.dtype == torch.float32
    assert [set((batch.lq[i, :, 2] * 255).round().int().flatten().tolist()) for i in range(2)] == [
        set(origin.frames) for origin in batch.origins
    ]
    assert batch.wait_seconds > 0


@settings(deadline=None)
@given(length=st.integers(1, 12), epochs=st.integers(1, 3), seed=st.integers(0, 2**40))
def test_every_epoch_has_every_item_once(length: int, epochs: int, seed: int):
    seen = items(take(length * epochs, length, seed=seed))
    for epoch in range(epochs):
        part = seen[epoch * length : (epoch + 1) * length]
        assert sorted(map(int, part)) == list(range(length))


def test_epochs_and_seeds_have_orders_of_their_own():
    seen = items(take(30, seed=0))
    assert len({tuple(seen[:10]), tuple(seen[10:20]), tuple(seen[20:])}) == 3
    assert seen[:10] != items(take(10, seed=1))
    assert items(take(20, shuffle=False)) == [str(i) for i in range(10)] * 2


@settings(deadline=None)
@given(
    world=st.integers(1, 4),
    batch=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    steps=st.integers(1, 4),
    start=st.integers(0, 30),
)
def test_processes_share_what_one_process_sees(
    world: int, batch: int, accumulation: int, steps: int, start: int
):
    """The samples of a step are the same ones, however they are spread."""
    of_step = world * batch * accumulation
    alone = take(steps, batch_size=of_step, start=start)
    shared = [
        take(steps * accumulation, batch_size=batch, start=start, rank=rank, world_size=world,
             accumulation=accumulation)
        for rank in range(world)
    ]  # fmt: skip
    for step in range(steps):
        micro = range(step * accumulation, (step + 1) * accumulation)
        together = [shared[rank][m] for m in micro for rank in range(world)]
        assert indices(together) == indices([alone[step]])
        assert [o for b in together for o in b.origins] == list(alone[step].origins)


@settings(deadline=None)
@given(steps=st.integers(0, 25), batch=st.integers(1, 3))
def test_going_on_equals_a_straight_run(steps: int, batch: int):
    straight = take(steps + 5, batch_size=batch)
    resumed = take(5, batch_size=batch, start=steps * batch)
    assert [b.origins for b in resumed] == [b.origins for b in straight[steps:]]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(tmp_path: Path, workers: int):
    training_set = make_set(make_pairs(tmp_path), use_hflip=True, use_rot=True)
    inline = take(12, training_set=training_set, batch_size=2)
    threaded = take(12, training_set=training_set, batch_size=2, workers=workers)
    assert [b.origins for b in threaded] == [b.origins for b in inline]
    assert all(a.gt.equal(b.gt) and a.lq.equal(b.lq) for a, b in zip(threaded, inline, strict=True))
    assert not [t for t in threading.enumerate() if t.name.startswith("iart-data")]


@pytest.mark.parametrize("end", ["close", "exception", "dropped"])
def test_threads_end(end: str):
    loader = Loader(Numbers(5), batch_size=1, seed=0, workers=2)
    batches = iter(loader)
    next(batches)
    if end == "close":
        loader.close()
        assert list(batches) == []
    elif end == "exception":
        with pytest.raises(KeyboardInterrupt), loader:
            raise KeyboardInterrupt
    else:
        del batches, loader
    assert not [t for t in threading.enumerate() if t.name.startswith("iart-data")]


# ---- samples that fail


def test_a_sample_that_fails_is_replaced(caplog: pytest.LogCaptureFixture):
    broken = Numbers(300, broken=frozenset({7}))
    with caplog.at_level(logging.WARNING), Loader(broken, batch_size=1, seed=0) as loader:
        batches = list(islice(loader, 900))
    assert indices(batches) == list(range(900))
    assert loader.skipped == {"item 7 is broken": 3}
    assert [record.message for record in caplog.records] == [
        "training sample skipped: item 7 is broken"
    ]
    replaced = [i for i, batch in enumerate(batches) if batch.origins[0].augmentation.endswith("1")]
    assert len(replaced) == 3
    again = take(900, training_set=broken, workers=2)
    assert items(again) == items(batches)


def test_too_many_failures_end_it():
    broken = Numbers(100, broken=frozenset(range(5)))
    with (
        Loader(broken, batch_size=1, seed=0) as loader,
        pytest.raises(DataError, match=r"11 of \d+ training samples failed, .* is broken"),
    ):
        list(islice(loader, 1000))


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_but_failures_ends_at_once(workers: int):
    broken = Numbers(3, broken=frozenset(range(3)))
    with (
        Loader(broken, batch_size=1, seed=0, workers=workers) as loader,
        pytest.raises(DataError, match="11 samples in a row failed: item"),
    ):
        next(iter(loader))


def test_a_mistake_of_ours_is_no_failed_sample():
    class Wrong(Numbers):
        def sample(self, item: int, index: int, seed: int, **more) -> Sample:
            raise ZeroDivisionError

    with (
        Loader(Wrong(3), batch_size=1, seed=0, workers=1) as loader,
        pytest.raises(ZeroDivisionError),
    ):
        next(iter(loader))


def test_clips_of_different_lengths_in_a_batch():
    with pytest.raises(DataError, match="batch_size_per_gpu=1"):
        take(1, training_set=Numbers(4, odd=True), batch_size=2)
