"""A micro-batch as the loop learns from it: enlarged by the network, and compared by all losses."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.data.augment import depth_generator
from iart.data.loader import Batch
from iart.device import autocast
from iart.errors import OptionsError
from iart.model import IARTConfig
from iart.model.flow import SpyNet
from iart.train.adversary import Adversary
from iart.train.losses.convnext import ConvNeXtLoss
from iart.train.losses.fourier import FFTLoss, FocalFrequencyLoss
from iart.train.losses.frequency_distribution import FrequencyDistributionLoss
from iart.train.losses.perceptual import LPIPSLoss, PerceptualLoss
from iart.train.losses.pixel import TemporalLoss, pixel_loss
from iart.train.options.data import PairedOptions
from iart.train.options.recipe import RecipeOptions
from iart.train.options.run import TrainingOptions

_KINDS: dict[str, Callable[[Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "pixel_opt": pixel_loss,
    "fft_opt": FFTLoss,
    "fft_high_opt": FFTLoss,
    "fft_low_opt": FFTLoss,
    "focal_freq_opt": FocalFrequencyLoss,
    "fdl_opt": FrequencyDistributionLoss,
    "perceptual_opt": PerceptualLoss,
    "lpips_opt": LPIPSLoss,
    "convnext_opt": ConvNeXtLoss,
}


class Objective:
    """Weighted losses of section `train` of an option file, and of its discriminators."""

    def __init__(
        self,
        train: RecipeOptions,
        device: torch.device,
        flow: SpyNet | None = None,
        adversaries: Sequence[Adversary] = (),
    ) -> None:
        """Read what the losses need.

        Args:
            train: weights, starts and files of the losses.
            device: that clips will be on.
            flow: tells motion, for `temporal_opt`.
            adversaries: discriminators, whose losses count too.

        Raises:
            OptionsError: a loss names no file of weights, or one that cannot be used.
        """
        self._adversaries = adversaries
        self._losses: list[tuple[str, Any, Callable[[Tensor, Tensor], Tensor]]] = []
        for key, section in train.losses():
            if key == "temporal_opt":
                if flow is None:
                    raise OptionsError("train.temporal_opt needs a flow network: set it to null")
                loss = TemporalLoss(train.temporal_opt, flow)  # pyright: ignore[reportArgumentType]
            else:
                loss = _KINDS[key](section)
            if isinstance(loss, nn.Module):
                loss = loss.to(device)
            self._losses.append((key.removesuffix("_opt"), section, loss))

    def terms(
        self,
        output: Float[Tensor, "b t 3 h w"],
        truth: Float[Tensor, "b t 3 h w"],
        step: int | float = math.inf,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted losses of a batch by their names ("pixel"), of those that are on.

        Args:
            output: enlarged clips, in any precision; they are compared in float32.
            truth: ground truth.
            step: steps done before.
        """
        output, truth = output.float(), truth.float()
        terms = {
            name: getattr(section, "loss_weight", 1.0) * loss(output, truth)
            for name, section, loss in self._losses
            if step >= section.start_iter
        }
        for adversary in self._adversaries:
            terms |= adversary.terms(output, truth, step)
        return terms


def enlarged(
    network: Callable[..., Tensor],
    batch: Batch,
    options: TrainingOptions,
    seed: int,
    precision: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "b t 3 _ _"]:
    """The network's output for a batch, with stochastic depth.

    Args:
        network: IART, itself or wrapped.
        batch: on any device.
        options: of the run.
        seed: of the run, which stochastic depth follows.
        precision: that features are computed in.
        device: of the network.
    """
    indices = [origin.index for origin in batch.origins]
    draws = depth_draws(options.network_g.config(), seed, indices, frames=batch.lq.shape[1])
    section = options.datasets.train
    with autocast(device, precision):
        return network(
            batch.lq.to(device),
            None if draws is None else draws.to(device),
            recompute=options.network_g.use_checkpoint,
            mirrored=isinstance(section, PairedOptions) and section.flip_sequence,
        )


def depth_draws(
    config: IARTConfig, seed: int, indices: Sequence[int], frames: int
) -> Float[Tensor, "b branches t blocks 2"] | None:
    """Random numbers in [0, 1) for stochastic depth, `draws` of `IART.forward`.

    Args:
        config: of the network.
        seed: of the run.
        indices: of the samples in the run.
        frames: of a clip.

    Returns:
        Numbers of every sample's own, whoever computes it; None if nothing is ever dropped.
    """
    if config.drop_path == 0:
        return None
    shape = (config.branches, frames, sum(config.depths), 2)
    numbers = [depth_generator(seed, index).random(shape, dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(numbers))
