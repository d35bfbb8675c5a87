"""Scores without networks, of luma (BT.601) in 8 bits: motion, flicker, blockiness, sharpness.

What is left of compression in a picture, and what went of its detail, belong together: blur removes
blocks too.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.errors import MissingExtraError

GREY = (0.299, 0.587, 0.114)
FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


class OverTime(ABC):
    """A score of one clip, fed frame by frame: the mean over its pairs of successive frames."""

    def __init__(self) -> None:
        """Nothing is known of the clip yet."""
        self._values: list[float] = []  # of each pair

    @abstractmethod
    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""

    def mean(self) -> float | None:
        """The clip's score; None if it has fewer than two frames."""
        return math.fsum(self._values) / len(self._values) if self._values else None


class TemporalFlow(OverTime):
    """tOF, in pixels: how well the motion of a result follows the motion of its ground truth.

        tOF = ‖OF(b_{t−1}, b_t) − OF(g_{t−1}, g_t)‖

    Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation"
    (TecoGAN), ACM TOG 2020: the optical flow OF between consecutive frames of a result b and of its
    ground truth g, as the length of the difference in pixels of the ground truth, 0 for equal
    motion. Flow is Farnebäck's of 8-bit grey frames, from OpenCV, as in the paper. The mean is over
    the middle of the frame (sides a multiple of 32 that leaves at least 16 pixels, as in the
    paper's evaluation; smaller frames whole), then over the pairs of frames.
    """

    def __init__(self) -> None:
        """Find OpenCV.

        Raises:
            MissingExtraError: it is not installed.
        """
        super().__init__()
        try:
            from cv2 import calcOpticalFlowFarneback
        except ImportError as error:
            raise MissingExtraError(
                "tof is not computed: OpenCV is missing. It comes with"
                " `pip install 'iart-vsr[metrics]'`"
            ) from error
        self._flow = calcOpticalFlowFarneback
        self._before: list[UInt8[np.ndarray, "h w"]] = []

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""
        now = [_grey(result), _grey(gt)]
        if self._before:
            of_result, of_gt = (
                self._flow(before, after, None, **FARNEBACK)  # pyright: ignore[reportCallIssue, reportArgumentType]
                for before, after in zip(self._before, now, strict=True)
            )
            self._values.append(
                float(_middle(np.hypot(*np.moveaxis(of_result - of_gt, -1, 0))).mean())
            )
        self._before = now


def _grey(frame: UInt8[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w"]:
    red, green, blue = frame.cpu().numpy().astype(np.float32)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).round().astype(np.uint8)


def _middle(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    height, width = values.shape
    inner = [(side - 16) // 32 * 32 for side in (height, width)]
    if min(inner) < 32:
        return values
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return values[top : top + inner[0], left : left + inner[1]]


BLOCK = 8
"""Side of a codec's block, in pixels of the low resolution."""
ENLARGED = 4
_LEAST = 1e-6  # of a mean difference: a flat picture has none


def blockiness(result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> float:
    """Steps at the edges of blocks over steps elsewhere.

        B(x) = mean |x[n] − x[n−1]| over n = 32, 64, …  /  the same over n = 4, 8, … that are others
        blockiness = (B of columns + B of rows) / 2

    1 for no blocks, more for blocks. Wang, Sheikh and Bovik 2002, "No-reference perceptual quality
    assessment of JPEG compressed images", take mean differences across the edges of blocks; here
    they are seen against differences at other edges of low-resolution pixels, where an enlargement
    has the same slope. The grid of blocks of 8 is 4·8 = 32 pixels wide after the enlargement, and
    begins at the picture's corner: frames that are made by the protocols do.
    """
    del gt
    luma = _luma(result)
    across, down = _ratio(luma), _ratio(luma.T)
    return (across + down) / 2


def sharpness(result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> float:
    """Mean length of the gradient over that of the ground truth: 1 as sharp, less is blurred.

    Gradients are differences of neighbours; their energy measures focus since Tenenbaum 1970
    (Krotkov 1988, "Focusing"). Noise, ringing and blocks count as detail too.
    """
    return _gradient(_luma(result)) / max(_gradient(_luma(gt)), _LEAST)


class Flicker(OverTime):
    """How differently a result changes from frame to frame than its ground truth does.

        flicker = mean |(b_t − b_{t−1}) − (g_t − g_{t−1})|

    in 8-bit values of luma, of a result b and its ground truth g; 0 if all changes are true ones.
    It is the temporal gradient of the error: errors that stay do not count. Ours; without optical
    flow, so that it sees noise and blocks that come and go in still parts as well as in motion.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: Float[Tensor, "h w"] | None = None

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""
        error = _luma(result) - _luma(gt)
        if self._before is not None:
            self._values.append(float((error - self._before).abs().mean()))
        self._before = error


def _luma(frame: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    return torch.einsum("c,chw->hw", torch.tensor(GREY), frame.cpu().float())


def _ratio(luma: Float[Tensor, "h w"]) -> float:
    """Of columns."""
    steps = (luma[:, ENLARGED::ENLARGED] - luma[:, ENLARGED - 1 : -1 : ENLARGED]).abs().mean(dim=0)
    edges = torch.arange(1, len(steps) + 1) % BLOCK == 0
    if not edges.any():
        return 1.0
    return float((steps[edges].mean() + _LEAST) / (steps[~edges].mean() + _LEAST))


def _gradient(luma: Float[Tensor, "h w"]) -> float:
    across, down = luma[:-1, 1:] - luma[:-1, :-1], luma[1:, :-1] - luma[:-1, :-1]
    return float(torch.hypot(across, down).mean())
