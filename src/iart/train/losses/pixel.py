"""Distances of pixels: Charbonnier (Charbonnier et al., ICIP 1994; Lai et al., CVPR 2017), L1, MSE.

Charbonnier is √(d² + ε): L1 with a round tip. The temporal loss is that of pixels' changes, mean
|(x_t − W x_{t−1}) − (y_t − W y_{t−1})|, which is flicker (ours): x is the output, y the ground
truth; W brings a frame to the next along the ground truth's motion, so that what the ground truth
itself changes, and what it uncovers, costs nothing. After Lai et al., ECCV 2018, who compare an
output's neighbours only with each other.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from iart.model.flow import SpyNet, warp
from iart.train.options.losses import PixelLossOptions, TemporalOptions


def charbonnier(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], epsilon: float = 1e-12
) -> Float[Tensor, "*shape"]:
    """√((a − b)² + ε) of every value."""
    return ((a - b) ** 2 + epsilon).sqrt()


def absolute(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """|a − b| of every value."""
    return (a - b).abs()


def squared(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(a − b)² of every value."""
    return (a - b) ** 2


def reduced(
    values: Float[Tensor, "*shape"], reduction: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Mean or sum of all values."""
    return values.mean() if reduction == "mean" else values.sum()


def pixel_loss(options: PixelLossOptions) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a section's `type` names."""
    distance = {
        "CharbonnierLoss": partial(charbonnier, epsilon=options.eps),
        "L1Loss": absolute,
        "MSELoss": squared,
    }[options.type]
    return lambda output, truth: reduced(distance(output, truth), options.reduction)


class TemporalLoss:
    """The loss of a section `temporal_opt`; 0 for clips of one frame."""

    def __init__(self, options: TemporalOptions, flow: SpyNet) -> None:
        """Motion is what `flow`, the run's own network, sees in the ground truth."""
        self._options, self._flow = options, flow

    def __call__(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        if output.shape[1] == 1:
            return output.new_zeros(())
        with torch.no_grad():
            flow = self._flow(truth[:, 1:].flatten(0, 1), truth[:, :-1].flatten(0, 1))
        error = output - truth
        moved = warp(error[:, :-1].flatten(0, 1), flow, "border")
        return reduced((error[:, 1:].flatten(0, 1) - moved).abs(), self._options.reduction)
