"""tOF says what it should of motion that is known."""

import sys

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.evaluate.metrics.extra import extra_metrics
from iart.evaluate.metrics.temporal import TemporalFlow


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
