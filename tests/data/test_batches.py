"""Batches that a device computes are those that the loader's threads make."""

import runpy
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from iart.data.batches import Unfinished, finished
from iart.data.clips import DrawnCrop, Scene, draw_crop
from iart.data.loader import Batch, Loader
from iart.data.motion import Motion, Speed, draw_motion, moving_batch
from iart.data.scenes import SceneSet
from iart.errors import DataError

CPU, META = torch.device("cpu"), torch.device("meta")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
OPERATIONS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "operations.py"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that share such small pictures wait for each other on a busy machine."""
    torch.set_num_threads(1)


def still(name: str, height: int, width: int) -> Scene:
    """Sharp edges and fine detail."""
    rng = np.random.default_rng(len(name))
    cells = rng.integers(0, 256, (-(-height // 7), -(-width // 7), 3), dtype=np.uint8)
    picture = cells.repeat(7, axis=0).repeat(7, axis=1)[:height, :width]
    return Scene(name, (picture // 8 * 7 + rng.integers(0, 32, picture.shape, np.uint8))[None])


def scene(name: str, count: int, height: int, width: int) -> Scene:
    """A picture that moves by one pixel a frame."""
    picture = still(name, height + count, width + count).frames[0]
    frames = [picture[i : i + height, i : i + width] for i in range(count)]
    return Scene(name, np.stack(frames))


def scenes(**changes) -> SceneSet:
    """Scenes of several sizes, some shorter than a sample of low resolution needs."""
    chosen = {
        "num_frame": 3, "gt_size": 32, "reduce": (1.0, 2.4), "still_share": 0.2,
        "photo_share": 0.3, "photos": [still("photo", 70, 90)],
    }  # fmt: skip
    pictures = [scene("one", 5, 150, 170), scene("first", 3, 132, 128)]
    return SceneSet(pictures, **(chosen | changes))


DEGRADED = {"bicubic": 3.0, "mpeg2": 1.0}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("degradation", [None, DEGRADED], ids=["clean", "degraded"])
def test_a_batch_is_what_threads_make_of_it(degradation: dict | None, device: str):
    """Within one of 255 levels, which rounding takes in few places."""
    training_set = scenes(degradation=degradation)
    indices, kinds = range(16), set()
    drawn = [training_set.begin(i % 2, i, 7) for i in indices]
    made = [training_set.sample(i % 2, i, 7) for i in indices]
    assert [each.origin for each in drawn] == [sample.origin for sample in made]
    for each in drawn:
        kinds.add(type(each.source) if isinstance(each, Unfinished) else type(each))
    assert len(kinds) == (2 if degradation is None else 3)
    for found, wanted in zip(
        finished(drawn, torch.device(device)), finished(made, CPU), strict=True
    ):
        assert (found.shape, found.dtype, found.device.type) == (
            wanted.shape,
            torch.float32,
            device,
        )
        levels = 255 * (found.cpu() - wanted).abs()
        assert levels.max() < 1.01
        assert (levels > 0.5).float().mean() < 1e-3


@pytest.mark.parametrize("picture", [(16, 22), (40, 300), (300, 40), (200, 200)])
def test_pictures_go_on_mirrored(picture: tuple[int, int]):
    """Where a clip sees far beyond a picture, as the CPU's own reflection has it."""
    motions = [
        draw_motion(
            still("front", *picture), still("back", 120, 64), 4, 32,
            Speed(20.0, zoom=0.2, turn=0.3), np.random.default_rng(seed),
        )
        for seed in range(3)
    ]  # fmt: skip
    together = moving_batch(motions, CPU)
    apart = torch.stack([motion.clip() for motion in motions])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-3)
    assert (together - apart).abs().mean() < 1e-5


@pytest.mark.parametrize("degradation", [None, DEGRADED], ids=["clean", "degraded"])
def test_a_device_is_not_waited_for(degradation: dict | None):
    """What it is asked for does not depend on the numbers that it computes, or on how many."""
    training_set = scenes(degradation=degradation)
    finished([training_set.begin(0, i, 7) for i in range(8)], META)  # sends what is kept there
    counts = []
    for size in (8, 16):
        drawn = [training_set.begin(i % 2, i, 7) for i in range(size)]
        kinds = {type(each.source) for each in drawn if isinstance(each, Unfinished)}
        assert kinds == {DrawnCrop, Motion}
        with OPERATIONS["Operations"]() as found:
            low, truth = finished(drawn, META)
        assert found.waits == []
        assert low.shape == (size, 3, 3, 8, 8)
        assert truth.shape == (size, 3, 3, 32, 32)
        counts.append(found.calls.total())
    assert counts[1] < counts[0] + 4 * 8 + 8


def take(count: int, training_set: SceneSet, **arguments) -> list[Batch]:
    chosen = {"batch_size": 3, "seed": 1, "on_device": True} | arguments
    with Loader(training_set, **chosen) as loader:
        return list(islice(loader, count))


def equal(found: Sequence[Batch], wanted: Sequence[Batch]) -> bool:
    assert [batch.origins for batch in found] == [batch.origins for batch in wanted]
    pairs = list(zip(found, wanted, strict=True))
    return all(a.lq.equal(b.lq) and a.gt.equal(b.gt) for a, b in pairs)


def test_batches_go_on_bit_for_bit():
    training_set = scenes(degradation=DEGRADED)
    straight = take(4, training_set)
    assert equal(take(2, training_set, start=6), straight[2:])
    assert equal(take(4, training_set, workers=2), straight)
    assert not equal(take(4, training_set, on_device=False), straight)


def test_samples_of_other_sets_have_one_size():
    crop = draw_crop(scene("one", 5, 64, 64), 3, 32, (1.0, 1.0), np.random.default_rng(0))
    assert crop.scale == 1
    whole = [scenes(num_frame=n).sample(0, 0, 0) for n in (2, 3)]
    with pytest.raises(DataError, match="clips of one batch have different lengths"):
        finished(whole, CPU)
