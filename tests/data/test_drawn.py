"""Drawn stills: the same for the same numbers, and as much alike at every scale."""

from itertools import pairwise

import numpy as np
import torch

from iart.data.drawn import draw_leaves, drawn_still


def still(seed: int, side: int = 256) -> np.ndarray:
    return draw_leaves(np.random.default_rng(seed), side)


def test_equal_seeds_draw_equal_stills():
    assert np.array_equal(still(3), still(3))
    assert not np.array_equal(still(3), still(4))
    scene = drawn_still(0, 5, 96)
    assert (scene.name, scene.frames.shape) == ("drawn still 5", (1, 96, 96, 3))
    drawn_still.cache_clear()
    assert np.array_equal(drawn_still(0, 5, 96).frames, scene.frames)
    assert not np.array_equal(drawn_still(0, 6, 96).frames, scene.frames)
    assert not np.array_equal(drawn_still(1, 5, 96).frames, scene.frames)


def test_edges_are_smooth_and_sharp():
    """Larger by 2 and reduced: edges have levels between, and steps of half the range remain."""
    picture = np.stack([still(seed) for seed in range(4)]).astype(float)[..., 1]
    steps = np.abs(np.diff(picture, axis=2))
    assert np.percentile(steps, 99) > 60
    assert len(np.unique(picture)) > 200


def test_large_and_small_shapes():
    """Differences fall off slowly with the scale, as in natural pictures: by less than a third."""
    pictures = np.stack([still(seed, 512) for seed in range(4)]).transpose(0, 3, 1, 2)
    level = torch.from_numpy(pictures).float()
    spread = []
    for _ in range(4):
        spread.append(float((level[..., 1:] - level[..., :-1]).abs().mean()))
        level = torch.nn.functional.avg_pool2d(level, 2)
    ratios = [b / a for a, b in pairwise(spread)]
    assert all(0.9 < ratio < 2.1 for ratio in ratios)
