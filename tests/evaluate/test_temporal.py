"""Flow agrees with OpenCV's figures, and tOF says what it should of motion that is known."""

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.evaluate.farneback import expand, flow
from iart.evaluate.temporal import TemporalFlow


def grey(dx: float, dy: float, height: int = 80, width: int = 136) -> UInt8[np.ndarray, "h w"]:
    """A pattern moved by (dx, dy) pixels."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = u - dx, v - dy
    waves = 50 * np.sin(u / 5 + v / 9) + 40 * np.sin(u / 11 - v / 4) + 30 * np.cos(u * v / 700)
    return np.round(127 + waves).astype(np.uint8)


def frame(dx: float, dy: float, height: int = 80, width: int = 136) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(grey(dx, dy, height, width)).expand(3, -1, -1)


def moved(dx: float, dy: float) -> Float[Tensor, "h w 2"]:
    frames = [torch.from_numpy(grey(*by)).float()[None] for by in ((0.0, 0.0), (dx, dy))]
    return flow(expand(frames[0]), expand(frames[1]))[0].permute(1, 2, 0)


def test_flow_agrees_with_opencv() -> None:
    # What calcOpticalFlowFarneback (0.5, 3, 15, 3, 5, 1.2, 0) makes of the same two pictures
    # in OpenCV 5.0.0, at pixels (y, x): corners, edges and middle.
    expected = {
        (0, 0): (2.04513, -0.91521),
        (3, 70): (2.51062, -1.14741),
        (40, 68): (2.50402, -1.25248),
        (79, 135): (1.1064, -0.37574),
        (20, 100): (2.50071, -1.25324),
        (60, 10): (2.50071, -1.24937),
    }
    found = moved(2.5, -1.25)
    for place, displacement in expected.items():
        assert found[place].tolist() == pytest.approx(displacement, abs=2e-4)
    assert found.mean(dim=(0, 1)).tolist() == pytest.approx((2.4700515, -1.2272104), abs=2e-5)


def test_a_batch_is_its_frames() -> None:
    frames = torch.stack([torch.from_numpy(grey(d, 0.0)).float() for d in (0.0, 1.0, 2.0)])
    both = flow(expand(frames[:2]), expand(frames[1:]))
    for i in range(2):
        one = flow(expand(frames[i : i + 1]), expand(frames[i + 1 : i + 2]))
        assert (both[i] - one[0]).abs().max() < 1e-4


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
