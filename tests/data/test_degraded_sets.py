"""Training sets whose low resolution is made on the way, as real footage has it."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.drawn import draw_leaves
from iart.data.loader import Loader
from iart.data.sets import inspect, open_training_set
from iart.errors import DataError
from tests.data.degradation.made import sliding
from tests.data.made import make_pairs, train_options


def test_clips_of_ground_truth_alone(tmp_path: Path):
    """Pictures are numbered by their level of grey, which is what low resolution shows."""
    frames = np.stack([np.full((160, 192, 3), 20 * i + 30, np.uint8) for i in range(8)])
    frames[:, ::8] += 10
    (tmp_path / "GT" / "a").mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "GT" / "a" / f"{number}.png")
    section = {"mpeg2": 0.0, "dvd": 1.0, "tape": 0.0, "web": 1.0, "bicubic": 1.0}
    options = train_options(
        "DVDRecurrentDataset", tmp_path, dataroot_lq=None, gt_size=32, num_frame=3,
        degradation=SimpleNamespace(**section), interval_list=(1, 2), random_reverse=True,
    )  # fmt: skip
    training_set = open_training_set(options)
    assert training_set.pairs[0].size == (40, 48)
    kinds, places = set(), set()
    for index in range(30):
        sample = training_set.sample(index % 8, index, 0)
        assert (sample.lq.shape, sample.gt.shape) == ((3, 3, 8, 8), (3, 3, 32, 32))
        levels = sample.gt.float().mean(dim=(1, 2, 3)).tolist()
        assert levels == pytest.approx([20 * f + 31.25 for f in sample.origin.frames], abs=1)
        near = (sample.lq.float().mean(dim=(1, 2, 3)) - torch.tensor(levels)).abs()
        assert near.max() < 9  # the moment is that of the frame
        places.add((sample.origin.top % 16, sample.origin.left % 16))
        again = training_set.sample(index % 8, index, 0)
        assert again.lq.equal(sample.lq)
        kinds.add(tuple(np.diff(sample.origin.frames)))
    assert len(places) > 10
    assert len(kinds) > 2
    assert inspect(training_set) == []


def test_ground_truth_too_small_to_degrade(tmp_path: Path):
    make_pairs(tmp_path, {"000": 4})
    options = train_options(
        "DVDRecurrentDataset", tmp_path, dataroot_lq=None,
        degradation=SimpleNamespace(mpeg2=0.0, dvd=1.0, tape=0.0, web=0.0, bicubic=0.0),
    )  # fmt: skip
    with pytest.raises(DataError, match="too small for crops of 32×32"):
        open_training_set(options)


SHARES = SimpleNamespace(mpeg2=0.0, dvd=1.0, tape=1.0, web=1.0, bicubic=1.0)


def degraded_scenes(tmp_path: Path):
    for name, count in (("a", 4), ("b", 9)):
        (tmp_path / "scenes" / name).mkdir(parents=True)
        frames = (sliding(count, 3.0, side=240) * 255).byte().permute(0, 2, 3, 1).numpy()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "scenes" / name / f"{number}.png")
    (tmp_path / "photos" / "x").mkdir(parents=True)
    photo = draw_leaves(np.random.default_rng(5), 300)
    Image.fromarray(photo).save(tmp_path / "photos" / "x" / "one.png")
    Image.fromarray(photo[::-1]).save(tmp_path / "photos" / "x" / "not this.png")
    return train_options(
        "SceneDataset", tmp_path, dataroot_gt=tmp_path / "scenes", include=("*",), exclude=(),
        reduce=(1.0, 1.5), still_share=0.2, drawn_share=0.3, photo_share=0.3, gt_size=64,
        dataroot_photos=tmp_path / "photos", exclude_photos=("*not this*",), degradation=SHARES,
    )  # fmt: skip


def test_scenes_are_degraded_by_shares(tmp_path: Path):
    training_set = open_training_set(degraded_scenes(tmp_path))
    samples = [training_set.sample(i % 2, i, 7) for i in range(40)]
    assert {s.lq.shape for s in samples} == {(3, 3, 16, 16)}
    assert {s.gt.shape for s in samples} == {(3, 3, 64, 64)}
    kinds = {s.origin.augmentation.rpartition("; ")[2] for s in samples}
    assert kinds == {"dvd", "tape", "web", "bicubic"}
    names = {sample.origin.clip.rstrip("0123456789") for sample in samples}
    assert names == {"a", "b", "drawn still ", "x/one.png"}
    for sample in samples:
        small = torch.nn.functional.avg_pool2d(sample.gt.float(), 4)
        assert (small - sample.lq.float()).abs().mean() < 45


def test_degraded_samples_depend_on_the_seed_and_their_number_alone(tmp_path: Path):
    """Whatever the number of threads and processes."""
    options = degraded_scenes(tmp_path)

    def lows(start: int, rank: int, world: int, workers: int) -> list[torch.Tensor]:
        with Loader(
            open_training_set(options), batch_size=2, seed=1, start=start, rank=rank,
            world_size=world, workers=workers,
        ) as loader:  # fmt: skip
            return [batch.lq for batch in islice(loader, 4 // world)]

    alone = torch.cat(lows(0, 0, 1, 0))
    threads = torch.cat(lows(0, 0, 1, 3))
    first, second = lows(0, 0, 2, 1), lows(0, 1, 2, 0)
    together = torch.cat([x for pair in zip(first, second, strict=True) for x in pair])
    assert alone.equal(threads)
    assert alone.equal(together)
    assert not alone.equal(torch.cat(lows(8, 0, 1, 0)))


def test_scenes_too_small_to_degrade(tmp_path: Path):
    options = degraded_scenes(tmp_path)
    options.gt_size = 192
    with pytest.raises(DataError, match="too small for crops of 256 pixels"):
        open_training_set(options)
    options.gt_size, options.photo_share, options.dataroot_photos = 64, 0.3, None
    with pytest.raises(DataError, match="name a folder of photographs"):
        open_training_set(options)
