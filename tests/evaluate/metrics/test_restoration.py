"""Measures of what restoration is for."""

import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.evaluate.metrics.restoration import Flicker, blockiness, sharpness
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize


def picture(seed: int = 0, side: int = 256) -> UInt8[Tensor, "3 s s"]:
    """Noise of several sizes."""
    random = torch.Generator().manual_seed(seed)
    layers = [
        imresize(torch.rand(3, side // n, side // n, generator=random), n)[..., :side, :side]
        for n in (1, 4, 16)
    ]
    return to_uint8((0.3 * layers[0] + 0.3 * layers[1] + 0.4 * layers[2]).clamp(0, 1))


def enlarged(small: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 4*h 4*w"]:
    return to_uint8(imresize(small.float() / 255, 4))


def blocky(small: UInt8[Tensor, "3 h w"], strength: float) -> UInt8[Tensor, "3 h w"]:
    """Blocks of 8 that differ in level."""
    random = torch.Generator().manual_seed(1)
    levels = torch.randn(3, small.shape[1] // 8, small.shape[2] // 8, generator=random)
    steps = levels.repeat_interleave(8, 1).repeat_interleave(8, 2) * strength
    return (small.float() + steps).round().clamp(0, 255).to(torch.uint8)


def test_blockiness_is_of_the_grid_and_grows_with_the_blocks():
    truth = picture()
    small = to_uint8(imresize(truth.float() / 255, 0.25))
    clean, weak, strong = (
        blockiness(enlarged(each), truth) for each in (small, blocky(small, 10), blocky(small, 24))
    )
    assert clean == pytest.approx(1, abs=0.08)
    assert clean + 0.04 < weak < strong - 0.2
    # blocks elsewhere are not of the codec's grid
    shifted = blocky(small, 24).roll(3, -1).roll(3, -2)
    assert blockiness(enlarged(shifted), truth) < weak + 0.02
    for small in (truth.new_full((3, 64, 64), 9), truth[:, :24, :24]):
        assert blockiness(small, small) == 1


def test_sharpness_is_that_of_the_truth():
    truth = picture()
    small = to_uint8(imresize(truth.float() / 255, 0.25))
    assert sharpness(truth, truth) == 1
    assert sharpness(enlarged(small), truth) < 0.5
    harder = ((truth.float() - 128) * 1.4 + 128).clamp(0, 255).to(torch.uint8)
    assert 1.2 < sharpness(harder, truth) < 1.4


def test_flicker_is_of_errors_that_change():
    truth = [picture(seed) for seed in range(3)]
    steady, coming = Flicker(), Flicker()
    for index, frame in enumerate(truth):
        brighter = (frame // 2 + 40).to(torch.uint8)
        steady.add(frame // 2 + 40, frame // 2)
        coming.add(brighter - 20 * (index % 2), frame // 2)
    assert steady.mean() == pytest.approx(0, abs=1e-3)
    assert coming.mean() == pytest.approx(20, abs=1e-3)
    assert Flicker().mean() is None
