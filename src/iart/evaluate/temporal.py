"""tOF: how well the motion of a result follows the motion of its ground truth.

Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation"
(TecoGAN), ACM TOG 2020: tOF = ‖OF(b_{t−1}, b_t) − OF(g_{t−1}, g_t)‖, the optical flow OF between
consecutive frames of a result b and of its ground truth g, as the length of the difference in
pixels of the ground truth, 0 for equal motion. Flow is Farnebäck's of 8-bit grey frames. The mean
is over the middle of the frame (sides a multiple of 32 that leaves at least 16 pixels, as in the
paper's evaluation; smaller frames whole), then over the pairs of frames.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.evaluate.farneback import Expansion, expand, flow

GREY = (0.299, 0.587, 0.114)


class TemporalFlow:
    """tOF of one clip, fed frame by frame; keeps what it needs of the frame before."""

    def __init__(self) -> None:
        self._before: list[Expansion] | None = None
        self._distances: list[float] = []

    @torch.inference_mode()
    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame; the work runs on its device (0.25 s at 720×576 on one CPU core)."""
        now = expand(torch.stack([_grey(result), _grey(gt)]))
        if self._before is not None:
            of_result, of_gt = flow(self._before, now)
            self._distances.append(_middle((of_result - of_gt).norm(dim=0)).mean().item())
        self._before = now

    def mean(self) -> float | None:
        """The clip's tOF in pixels; None if it has fewer than two frames."""
        return math.fsum(self._distances) / len(self._distances) if self._distances else None


def _grey(frame: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    red, green, blue = frame.float()
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).round()


def _middle(values: Float[Tensor, "h w"]) -> Float[Tensor, "h2 w2"]:
    height, width = values.shape
    inner = [(side - 16) // 32 * 32 for side in (height, width)]
    if min(inner) < 32:
        return values
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return values[top : top + inner[0], left : left + inner[1]]
