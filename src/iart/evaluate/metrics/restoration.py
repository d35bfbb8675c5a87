"""What is left of compression in a picture, what went of its detail, and what flickers.

All three look at luma (BT.601) in 8 bits. Blockiness and sharpness belong together: blur removes
blocks too.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.evaluate.metrics.temporal import GREY

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


class Flicker:
    """How differently a result changes from frame to frame than its ground truth does.

        flicker = mean |(b_t − b_{t−1}) − (g_t − g_{t−1})|

    in 8-bit values of luma, of a result b and its ground truth g; 0 if all changes are true ones.
    It is the temporal gradient of the error: errors that stay do not count. Ours; without optical
    flow, so that it sees noise and blocks that come and go in still parts as well as in motion.
    """

    def __init__(self) -> None:
        self._before: Float[Tensor, "h w"] | None = None
        self._changes: list[float] = []

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""
        error = _luma(result) - _luma(gt)
        if self._before is not None:
            self._changes.append(float((error - self._before).abs().mean()))
        self._before = error

    def mean(self) -> float | None:
        """The clip's flicker; None if it has fewer than two frames."""
        return math.fsum(self._changes) / len(self._changes) if self._changes else None


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
