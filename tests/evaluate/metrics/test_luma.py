"""Scores without networks say what they should of motion, flicker and pictures that are known."""

import sys

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.evaluate.metrics.extra import extra_metrics
from iart.evaluate.metrics.luma import Flicker, TemporalFlow, blockiness, sharpness
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize


def grey(dx: float, dy: float, height: int = 80, width: int = 136) -> UInt8[np.ndarray, "h w"]:
    """A pattern moved by (dx, dy) pixels."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = u - dx, v - dy
    waves = 50 * np.sin(u / 5 + v / 9) + 40 * np.sin(u / 11 - v / 4) + 30 * np.cos(u * v / 700)
    return np.round(127 + waves).astype(np.uint8)


def frame(dx: float, dy: float, height: int = 80, width: int = 136) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(grey(dx, dy, height, width)).expand(3, -1, -1)


def test_tof_of_equal_motion_is_zero_and_of_other_motion_its_difference() -> None:
    same, still = TemporalFlow(), TemporalFlow()
    for i in range(4):
        gt = frame(1.5 * i, 2.0 * i)
        same.add(gt, gt)
        still.add(frame(0.0, 0.0), gt)
    assert same.mean() == 0
    assert still.mean() == pytest.approx(2.5, abs=0.02)  # (1.5, 2) is 2.5 pixels long


def test_a_clip_of_one_frame_has_none() -> None:
    measure = TemporalFlow()
    assert measure.mean() is None
    measure.add(frame(0.0, 0.0), frame(0.0, 0.0))
    assert measure.mean() is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (33, 40), (65, 31)])
def test_frames_of_any_size(height: int, width: int) -> None:
    measure = TemporalFlow()
    for i in range(2):
        measure.add(frame(0.0, 0.0, height, width), frame(0.5 * i, 0.0, height, width))
    mean = measure.mean()
    assert mean is not None
    assert 0 <= mean < 5


def test_without_opencv_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    extra = extra_metrics(["tof"], torch.device("cpu"))
    assert extra.names == ()
    assert extra.notes == (
        "tof is not computed: OpenCV is missing. It comes with `pip install 'iart-vsr[metrics]'`",
    )


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
