"""tOF: how well the motion of a result follows the motion of its ground truth.

Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation"
(TecoGAN), ACM TOG 2020: tOF = ‖OF(b_{t−1}, b_t) − OF(g_{t−1}, g_t)‖, the optical flow OF between
consecutive frames of a result b and of its ground truth g, as the length of the difference in
pixels of the ground truth, 0 for equal motion. Flow is Farnebäck's of 8-bit grey frames, from
OpenCV, as in the paper. The mean is over the middle of the frame (sides a multiple of 32 that
leaves at least 16 pixels, as in the paper's evaluation; smaller frames whole), then over the pairs
of frames.
"""

import math
from typing import Any

import numpy as np
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


class TemporalFlow:
    """tOF of one clip, fed frame by frame; keeps the frame before."""

    def __init__(self) -> None:
        """Find OpenCV.

        Raises:
            MissingExtraError: it is not installed.
        """
        try:
            from cv2 import calcOpticalFlowFarneback
        except ImportError as error:
            raise MissingExtraError(
                "tof is not computed: OpenCV is missing. It comes with"
                " `pip install 'iart-vsr[metrics]'`"
            ) from error
        self._flow = calcOpticalFlowFarneback
        self._before: list[UInt8[np.ndarray, "h w"]] = []
        self._distances: list[float] = []

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""
        now = [_grey(result), _grey(gt)]
        if self._before:
            of_result, of_gt = (
                self._flow(before, after, None, **FARNEBACK)  # pyright: ignore[reportCallIssue, reportArgumentType]
                for before, after in zip(self._before, now, strict=True)
            )
            self._distances.append(
                float(_middle(np.hypot(*np.moveaxis(of_result - of_gt, -1, 0))).mean())
            )
        self._before = now

    def mean(self) -> float | None:
        """The clip's tOF in pixels; None if it has fewer than two frames."""
        return math.fsum(self._distances) / len(self._distances) if self._distances else None


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
