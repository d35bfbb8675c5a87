"""One update of the network: enlarged batches, compared by all losses; then the weights move."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from iart.data.augment import depth_generator
from iart.data.loader import Batch
from iart.device import autocast
from iart.errors import OptionsError
from iart.model import IARTConfig
from iart.model.flow import SpyNet
from iart.train.adversary import Adversary
from iart.train.losses.perceptual import (
    ConvNeXtLoss,
    FrequencyDistributionLoss,
    LPIPSLoss,
    PerceptualLoss,
)
from iart.train.losses.pixel import FFTLoss, FocalFrequencyLoss, TemporalLoss, pixel_loss
from iart.train.options.data import PairedOptions
from iart.train.options.recipe import RecipeOptions
from iart.train.options.run import TrainingOptions
from iart.train.state import TrainState

_Loss = Callable[[Tensor, Tensor], Tensor | dict[str, Tensor]]
"""Of outputs and ground truth: the loss, or its parts by their names."""

_KINDS: dict[str, Callable[[Any], _Loss]] = {
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
        self._losses: list[tuple[str, Any, _Loss]] = []
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

    def active(self, step: int | float) -> tuple[str, ...]:
        """Names of the losses that compare with the ground truth `step` steps into the run."""
        return tuple(name for name, section, _ in self._losses if step >= section.start_iter)

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
        active, terms = self.active(step), dict[str, Tensor]()
        for name, section, loss in self._losses:
            if name in active:
                found = loss(output, truth)
                terms |= found if isinstance(found, dict) else {name: section.loss_weight * found}
        for adversary in self._adversaries:
            terms |= adversary.terms(output, truth, step)
        return terms


@dataclass(frozen=True)
class Inputs:
    """What an update sees of a batch, on the device of the network."""

    lq: Float[Tensor, "b t 3 h w"]
    gt: Float[Tensor, "b t 3 4*h 4*w"]
    draws: Float[Tensor, "b branches t blocks 2"] | None
    """For stochastic depth, see `IART.forward`."""

    def tensors(self) -> list[Tensor]:
        """Those that are there."""
        return [x for x in (self.lq, self.gt, self.draws) if x is not None]


def inputs_of(batch: Batch, config: IARTConfig, seed: int, device: torch.device) -> Inputs:
    """A batch on the device, with what stochastic depth draws for its samples.

    Args:
        batch: on any device.
        config: of the network.
        seed: of the run.
        device: of the network.
    """
    indices = [origin.index for origin in batch.origins]
    draws = depth_draws(config, seed, indices, frames=batch.lq.shape[1])
    draws = None if draws is None else draws.to(device)
    return Inputs(batch.lq.to(device), batch.gt.to(device), draws)


@dataclass(frozen=True)
class Learnt:
    """What an update found in a batch."""

    output: Float[Tensor, "b t 3 _ _"]
    loss: Float[Tensor, ""]
    """Sum of the weighted losses."""
    terms: dict[str, Float[Tensor, ""]]
    """These by their names."""
    norm: Float[Tensor, ""]
    """Length of the gradient so far."""


class Update:
    """One update of the network's weights, in two halves; between them the loop looks at the loss.

    Nothing in the halves waits for the device, and which operations they are depends on `kind`
    alone, not on numbers: so `iart.train.captured` can replay them.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        objective: Objective,
        state: TrainState,
        options: TrainingOptions,
        precision: torch.dtype,
        backward: Callable[[Tensor], Any] = Tensor.backward,
    ) -> None:
        """What an update needs.

        Args:
            network: the model of the state, itself or wrapped.
            objective: all losses.
            state: of the run; tells the step.
            options: of the run.
            precision: that features are computed in.
            backward: computes gradients of a loss.
        """
        self._network, self._objective, self._state = network, objective, state
        self._options, self._precision, self._backward = options, precision, backward
        self._parameters: list[nn.Parameter] = []
        self._norm = torch.zeros(())

    @property
    def moves(self) -> bool:
        """Whether the network moves in this step."""
        return self._options.train.network_moves(self._state.step)

    def kind(self, inputs: Inputs) -> tuple[Any, ...]:
        """What tells the operations of two updates apart."""
        shapes = tuple((x.shape, x.dtype) for x in inputs.tensors())
        step, fixed = self._state.step, self._options.train.fix_flow
        return (*shapes, *self._objective.active(step), self.moves, step < fixed)

    def gradients(self, inputs: Inputs, *, first: bool = True, last: bool = True) -> Learnt:
        """The first half: gradients of one micro-batch.

        Args:
            inputs: the micro-batch.
            first: of the step; otherwise its gradients are added to those that are there.
            last: of the step; only then there is a length of the gradient, otherwise it is 0.
        """
        state, recipe, moves = self._state, self._options.train, self.moves
        if first:
            state.optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(moves):
            output = self._enlarged(inputs)
            terms = self._objective.terms(output, inputs.gt, state.step)  # in float32
            loss = torch.stack(list(terms.values())).sum()
            if moves:
                count = recipe.gradient_accumulation_steps
                self._backward(state.scaler.scale(loss / count))
        norm = loss.new_zeros(())
        if last:
            # The flow network is in the graph from the start, since processes agree on it once;
            # before `fix_flow` its gradient is dropped, so that Adam passes it by.
            if state.step < recipe.fix_flow:
                state.model.flow.zero_grad(set_to_none=True)
            if moves:
                state.scaler.unscale_(state.optimizer)
            self._parameters = [p for p in state.model.parameters() if p.grad is not None]
            if self._parameters:
                norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
            self._norm = norm
        detached = {name: term.detach() for name, term in terms.items()}
        return Learnt(output.detach(), loss.detach(), detached, norm)

    def move(self) -> None:
        """The second half: limit the gradient, move the weights, and their average after them."""
        state, recipe = self._state, self._options.train
        if recipe.use_grad_clip:
            clip_grads_with_norm_(self._parameters, recipe.grad_clip_norm, self._norm)
        if self.moves:
            state.scaler.step(state.optimizer)
        self.leave_out()

    def leave_out(self) -> None:
        """Instead of it, where the loss is not finite: the weights stay, the average goes on."""
        if self.moves:
            self._state.scaler.update()
            self._state.update_average(self._options.train.ema_decay)

    def _enlarged(self, inputs: Inputs) -> Float[Tensor, "b t 3 _ _"]:
        section = self._options.datasets.train
        with autocast(inputs.lq.device, self._precision):
            return self._network(
                inputs.lq,
                inputs.draws,
                recompute=self._options.network_g.use_checkpoint,
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
