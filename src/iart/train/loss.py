"""What training minimises: distances of enlarged clips to their ground truth, in float32.

Outputs are compared as the network gives them: clamping them first would hide values outside
[0, 1] from the gradient.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from iart.train.perceptual import PerceptualLoss
from iart.train.recipe_options import FFTLossOptions, PixelLossOptions, TrainOptions

Distance = Callable[[Tensor, Tensor], Tensor]


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


def spectral(a: Float[Tensor, "*b h w"], b: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w 2"]:
    """|Re F(a − b)| and |Im F(a − b)| at every frequency; F is the Fourier transform of a frame."""
    return torch.view_as_real(torch.fft.fft2(a - b)).abs()


class Objective:
    """Sum of the weighted losses of section `train` of an option file."""

    def __init__(self, train: TrainOptions, device: torch.device) -> None:
        """Read what the losses need.

        Raises:
            OptionsError: `perceptual_opt` names no file of weights, or one that cannot be used.
        """
        self._terms: list[tuple[float, str, Distance]] = []
        for section in (train.pixel_opt, train.fft_opt):
            if section is not None:
                self._terms.append((section.loss_weight, section.reduction, _distance(section)))
        self._perceptual = None
        if train.perceptual_opt is not None:
            self._perceptual = PerceptualLoss(train.perceptual_opt).to(device)

    def __call__(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        output, truth = output.float(), truth.float()
        loss = output.new_zeros(())
        for weight, reduction, distance in self._terms:
            values = distance(output, truth)
            loss = loss + weight * (values.mean() if reduction == "mean" else values.sum())
        if self._perceptual is not None:
            loss = loss + self._perceptual(output.flatten(0, 1), truth.flatten(0, 1))
        return loss


def _distance(section: PixelLossOptions | FFTLossOptions) -> Distance:
    """The distance that a section's `type` names."""
    if section.type == "CharbonnierLoss":
        return partial(charbonnier, epsilon=section.eps)
    return {"L1Loss": absolute, "MSELoss": squared, "FFTLoss": spectral}[section.type]
