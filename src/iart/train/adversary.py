"""Adversaries of a run: discriminators, what they teach, and their own step.

terms   in the network's step: adversarial loss and feature matching
learn   afterwards: a discriminator learns of the same micro-batch
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from iart.device import autocast
from iart.model.flow import SpyNet, warp
from iart.train.discriminators import (
    Judgement,
    advance,
    cutmix_masks,
    cutmix_share,
    discriminator_loss,
    feature_matching,
    generator_loss,
    mean_over_processes,
    new_discriminator,
)
from iart.train.options.losses import ConsistencyOptions, FeatureMatchingOptions, GANOptions
from iart.train.options.recipe import OptimOptions
from iart.train.options.run import DiscriminatorOptions, TrainingOptions

_log = logging.getLogger(__name__)


@dataclass
class Adversary:
    """A discriminator, its optimiser and its losses."""

    name: str
    """Under which losses are logged: "gan" or "gan2"."""
    network: DiscriminatorOptions
    loss: GANOptions
    optim: OptimOptions
    matching: FeatureMatchingOptions | None
    consistency: ConsistencyOptions | None
    accumulate: int
    """Micro-batches of a step of its optimiser."""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    flow: SpyNet
    """Aligns the frames that are seen at once."""
    precision: torch.dtype
    seed: int
    done: int = field(default=0)
    """Micro-batches whose gradients wait for a step."""

    # ---- in the network's step

    def terms(
        self,
        output: Float[Tensor, "b t 3 h w"],
        truth: Float[Tensor, "b t 3 h w"],
        step: int | float,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted losses of results by their names, of those that are on.

        Args:
            output: results; gradients reach them.
            truth: ground truth.
            step: steps done before.
        """
        matching = self.matching
        if matching is not None and step < matching.start_iter:
            matching = None
        fooling = step >= self.loss.start_iter
        if not fooling and matching is None:
            return {}
        self.model.requires_grad_(False)
        fake = self._judged(output, truth)
        with torch.no_grad():
            real = self._judged(truth, truth)
        terms = {}
        if fooling:
            losses = [
                generator_loss(r, f, self.loss)
                for r, f in zip(real.logits, fake.logits, strict=True)
            ]
            terms[self.name] = self.loss.loss_weight * torch.stack(losses).sum()
        if matching is not None:
            distance = feature_matching(fake.features, real.features, matching.num_layers)
            terms["feature_matching"] = matching.loss_weight * distance
        return terms

    # ---- the discriminator's own step

    def learn(
        self,
        output: Float[Tensor, "b t 3 h w"],
        truth: Float[Tensor, "b t 3 h w"],
        indices: Sequence[int],
        step: int,
        rate: float,
    ) -> dict[str, Float[Tensor, ""]]:
        """Learn of a micro-batch; every `accumulate` of them the weights move.

        Args:
            output: results; no gradient reaches them.
            truth: ground truth.
            indices: of the samples in the run.
            step: steps done before.
            rate: learning rate.

        Returns:
            The discriminator's own losses by their names; none before it is on.
        """
        if step < self.loss.start_iter:
            return {}
        if self.done == 0:
            advance(self.model)
        self.model.requires_grad_(True)
        output = output.detach().float()
        real, fake = self._judged(truth, truth), self._judged(output, truth)
        losses = [
            discriminator_loss(r, f, self.loss)
            for r, f in zip(real.logits, fake.logits, strict=True)
        ]
        terms = {f"{self.name}_discriminator": torch.stack(losses).sum()}
        if self.consistency is not None and step >= self.consistency.start_iter:
            terms[f"{self.name}_consistency"] = self.consistency.loss_weight * self._inconsistency(
                output, truth, (real, fake), indices, step, self.consistency
            )
        loss = torch.stack(list(terms.values())).sum()
        self.scaler.scale(loss / self.accumulate).backward()
        self.done += 1
        if self.done >= self.accumulate:
            self._move(rate)
        return {name: term.detach() for name, term in terms.items()}

    def share(self) -> bool:
        """Bring waiting gradients to their mean over processes, which each has to ask for.

        Then the state of one process is that of all.

        Returns:
            Whether they are finite.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not gradients:
            return True
        mean = mean_over_processes(parameters_to_vector(gradients))
        vector_to_parameters(mean, gradients)
        return bool(mean.isfinite().all())

    def _move(self, rate: float) -> None:
        """Take the gradients' mean over processes, and move the weights, if it is finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        finite = self.share()
        # A scaler looks for itself; without one, a step that is not finite is left out.
        if finite or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
        else:
            _log.warning("a gradient of discriminator %s is not finite: step left out", self.name)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done = 0

    def _inconsistency(
        self,
        output: Float[Tensor, "b t 3 h w"],
        truth: Float[Tensor, "b t 3 h w"],
        judgements: tuple[Judgement, Judgement],
        indices: Sequence[int],
        step: int,
        options: ConsistencyOptions,
    ) -> Float[Tensor, ""]:
        """See `cutmix_masks`; samples that are not cut together count as 0."""
        share = cutmix_share(options, step)
        total = output.new_zeros(())
        real, fake = (
            judgement.pixels.unflatten(0, output.shape[:2])
            for judgement in judgements
            if judgement.pixels is not None
        )
        height, width = output.shape[-2:]
        for i, mask in cutmix_masks(indices, height, width, share, self.seed).items():
            mask = mask.to(output.device)
            mixed = torch.where(mask > 0, truth[i : i + 1], output[i : i + 1])
            judged = self._judged(mixed, truth[i : i + 1]).pixels
            assert judged is not None  # see `TrainingOptions`
            parts = torch.where(mask > 0, real[i], fake[i])
            total = total + ((judged.float() - parts.float()) ** 2).mean()
        return total / len(output)

    # ---- pictures

    def _judged(
        self, clips: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Judgement:
        """Judge frames, or aligned neighbours; logits in float32."""
        pictures = (
            clips.float().flatten(0, 1)
            if self.network.frames == 1
            else self._aligned(clips.float(), truth)
        )
        with autocast(clips.device, self.precision):
            judged = self.model(pictures)
        pixels = None if judged.pixels is None else judged.pixels.float()
        return Judgement([x.float() for x in judged.logits], judged.features, pixels)

    def _aligned(
        self, clips: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, "n 9 h w"]:
        """Every frame between its neighbours, which are brought to it by the truth's motion."""
        count = clips.shape[1]
        parts = []
        for shift in (-1, 0, 1):
            others = [min(max(i + shift, 0), count - 1) for i in range(count)]
            frames = clips[:, others].flatten(0, 1)
            if shift:
                with torch.no_grad():
                    flow = self.flow(truth.flatten(0, 1), truth[:, others].flatten(0, 1))
                frames = warp(frames, flow, "border")
            parts.append(frames)
        return torch.cat(parts, dim=1)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        gradients = [p.grad for p in self.model.parameters()] if self.done else []
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": self.done,
            "gradients": gradients,
        }

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; raises what torch raises."""
        self.model.load_state_dict(tree["model"])
        load_averages(self.optimizer, tree["optimizer"])
        if tree["scaler"]:
            self.scaler.load_state_dict(tree["scaler"])
        self.done = tree["done"]
        for parameter, gradient in zip(self.model.parameters(), tree["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def new_adversaries(
    options: TrainingOptions, flow: SpyNet, precision: torch.dtype
) -> list[Adversary]:
    """The discriminators of an option file, on the device of the flow network."""
    recipe, device = options.train, flow.mean.device
    found = []
    kinds = (
        ("gan", options.network_d, recipe.gan_opt, recipe.optim_d),
        ("gan2", options.network_d2, recipe.gan2_opt, recipe.optim_d2 or recipe.optim_d),
    )
    matched = options.matched_discriminator
    for number, (name, network, loss, optim) in enumerate(kinds):
        if network is None or loss is None or optim is None:
            continue
        model = new_discriminator(network, options.manual_seed + 1 + number).to(device)
        found.append(
            Adversary(
                name=name,
                network=network,
                loss=loss,
                optim=optim,
                matching=recipe.feature_matching_opt if name == matched else None,
                consistency=recipe.consistency_opt if network.per_pixel else None,
                accumulate=recipe.d_gradient_accumulation_steps
                or recipe.gradient_accumulation_steps,
                model=model,
                optimizer=optim.optimizer(list(model.parameters())),
                scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
                flow=flow,
                precision=precision,
                seed=options.manual_seed,
            )
        )
    return found


def learn(
    adversaries: Iterable[Adversary],
    output: Float[Tensor, "b t 3 h w"],
    truth: Float[Tensor, "b t 3 h w"],
    indices: Sequence[int],
    step: int,
    options: TrainingOptions,
) -> dict[str, Float[Tensor, ""]]:
    """The discriminators' step: all learn of a micro-batch; returns their losses."""
    terms: dict[str, Tensor] = {}
    for adversary in adversaries:
        rate = options.train.learning_rate(step, adversary.optim.lr)
        terms |= adversary.learn(output, truth, indices, step, rate)
    return terms


def load_averages(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over an optimiser's averages; all else about it stays as it is.

    That is its kind, betas, weight decay and learning rate, and where it counts steps.
    """
    groups = [
        {**theirs, **{k: v for k, v in own.items() if k != "params"}}
        for theirs, own in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})
