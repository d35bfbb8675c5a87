"""How a network is trained: losses, optimiser, learning rate.

Learning rates are pure functions of the step, with BasicSR's names and values. Steps count from 0:
`rate(step, …)` is that of the update that takes the weights from `step` to `step` + 1. Where
BasicSR says iteration (it counts from 1) that is `step` + 1.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from iart.train.options.losses import (
    ConsistencyOptions,
    ConvNeXtOptions,
    FeatureMatchingOptions,
    FFTLossOptions,
    FocalFrequencyOptions,
    FrequencyDistributionOptions,
    GANOptions,
    LPIPSOptions,
    PerceptualOptions,
    PixelLossOptions,
    TemporalOptions,
)
from iart.train.options.section import OPTIM, TRAIN, Section, Share, key_error, null_is

LOSSES = (
    *("pixel_opt", "fft_opt", "fft_high_opt", "fft_low_opt", "focal_freq_opt", "fdl_opt"),
    *("perceptual_opt", "lpips_opt", "convnext_opt", "temporal_opt"),
)
"""Keys of losses that compare with the ground truth."""

Steps = Annotated[int, Field(ge=-1), null_is(-1, int)]


class FlowOptions(Section):
    """The flow network is taught first, on synthetic motion whose flow is known (ours)."""

    total_iter: NonNegativeInt
    """Steps of these lessons, before those of train.total_iter."""
    lr: PositiveFloat
    """Highest learning rate of the lessons."""
    size: PositiveInt = 48
    """Side of the pictures, in pixels; the pyramid must divide it."""
    batch_size_per_gpu: PositiveInt = 8
    """Pairs of frames in a step."""
    max_shift: NonNegativeFloat = 8.0
    """Fastest shift of a layer, pixels per frame."""
    reduced_share: Share = 0.2
    """Share of the pairs that move at full size and are reduced afterwards."""


class OptimOptions(Section):
    """The optimiser."""

    known: ClassVar = OPTIM

    type: Literal["Adam", "AdamW"] = "Adam"
    """AdamW takes weight decay out of the gradient's averages."""
    lr: PositiveFloat
    """Highest learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Pull of the weights towards 0."""
    betas: tuple[Share, Share] = (0.9, 0.99)
    """Memory of the averages of the gradient and of its square."""

    def optimizer(self, parameters: list[Any]) -> torch.optim.Optimizer:
        """It, for parameters or groups of them."""
        kind = torch.optim.Adam if self.type == "Adam" else torch.optim.AdamW
        return kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


class CosineOptions(Section):
    """Half a cosine from the learning rate down to eta_min, once per period."""

    type: Literal["CosineAnnealingRestartLR"]
    """The schedule's kind."""
    periods: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Lengths of the cosines, in steps."""
    restart_weights: tuple[NonNegativeFloat, ...] = (1.0,)
    """Factor of the learning rate in each period."""
    eta_min: NonNegativeFloat = 0.0
    """Learning rate at the end of a period."""

    def rate(self, step: int, base: float) -> float:
        """η + w/2 (base − η)(1 + cos π s/p), s steps into a period of length p and weight w.

        A period includes its last step; after the last period the rate stays.
        """
        ends = list(accumulate(self.periods))
        step = min(step, ends[-1])
        i = bisect_left(ends, step)
        done = (step - ends[i] + self.periods[i]) / self.periods[i]
        height = self.restart_weights[i] * (base - self.eta_min)
        return self.eta_min + height * (1 + math.cos(math.pi * done)) / 2

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if len(self.periods) != len(self.restart_weights):
            yield (
                f"restart_weights {list(self.restart_weights)} must be one for each of periods "
                f"{list(self.periods)}"
            )


class MultiStepOptions(Section):
    """The learning rate is multiplied by gamma at every milestone."""

    type: Literal["MultiStepRestartLR", "MultiStepLR"]
    """The schedule's kind; the two are the same, as in BasicSR."""
    milestones: tuple[NonNegativeInt, ...]
    """Steps at which the rate drops; one that is named twice counts twice."""
    gamma: PositiveFloat = 0.1
    """Factor of the rate at a milestone."""
    restarts: tuple[NonNegativeInt, ...] = (0,)
    """Steps at which the rate is the optimiser's again."""
    restart_weights: tuple[NonNegativeFloat, ...] = (1.0,)
    """Factor of the rate after each restart."""

    def rate(self, step: int, base: float) -> float:
        """Base · γᵐ · w, m milestones after the last restart, whose weight is w.

        Before the first restart w = 1. A milestone at a restart does not count.
        """
        i = bisect_right(self.restarts, step) - 1
        last, weight = (self.restarts[i], self.restart_weights[i]) if i >= 0 else (-1, 1.0)
        passed = sum(last < milestone <= step for milestone in self.milestones)
        return weight * base * self.gamma**passed

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if len(self.restarts) != len(self.restart_weights):
            yield (
                f"restart_weights {list(self.restart_weights)} must be one for each of restarts "
                f"{list(self.restarts)}"
            )
        if list(self.restarts) != sorted(self.restarts):
            yield f"restarts {list(self.restarts)} must ascend"


class RecipeOptions(Section):
    """Losses, optimiser and learning rate; steps are steps of the optimiser."""

    known: ClassVar = TRAIN

    total_iter: NonNegativeInt
    """Steps of the whole run, without those of train.flow."""
    warmup_iter: Steps = -1
    """Steps in which the learning rate grows from 0; -1: none."""
    ema_decay: Share = 0.0
    """Memory of the running average of the weights; 0: no average."""
    optim_g: OptimOptions
    """The optimiser."""
    scheduler: Annotated[CosineOptions | MultiStepOptions, Field(discriminator="type")]
    """The learning rate."""
    fix_flow: Steps = -1
    """Steps in which the flow network does not move; -1: none."""
    flow_lr_mul: NonNegativeFloat = 1.0
    """Factor of the flow network's learning rate."""
    pixel_opt: PixelLossOptions | None = None
    """Loss on pixels; null: none."""
    fft_opt: FFTLossOptions | None = None
    """Loss on Fourier coefficients; null: none."""
    fft_high_opt: FFTLossOptions | None = None
    """Another, meant for high frequencies; null: none."""
    fft_low_opt: FFTLossOptions | None = None
    """Another, meant for low frequencies; null: none."""
    focal_freq_opt: FocalFrequencyOptions | None = None
    """Loss on the Fourier coefficients that are furthest off; null: none."""
    fdl_opt: FrequencyDistributionOptions | None = None
    """Loss on distributions of features' spectra, for pairs out of line; null: none."""
    perceptual_opt: PerceptualOptions | None = None
    """Loss on features of VGG; null: none."""
    lpips_opt: LPIPSOptions | None = None
    """Loss on LPIPS; null: none."""
    convnext_opt: ConvNeXtOptions | None = None
    """Loss on features of ConvNeXt; null: none."""
    temporal_opt: TemporalOptions | None = None
    """Loss on flicker (ours); null: none."""
    gan_opt: GANOptions | None = None
    """Adversarial loss with network_d; null: none."""
    gan2_opt: GANOptions | None = None
    """Adversarial loss with network_d2; null: none."""
    feature_matching_opt: FeatureMatchingOptions | None = None
    """Loss on features of a discriminator; null: none."""
    consistency_opt: ConsistencyOptions | None = None
    """Loss of the discriminators with a judgement of every pixel; null: none."""
    optim_d: OptimOptions | None = None
    """The optimiser of network_d."""
    optim_d2: OptimOptions | None = None
    """The optimiser of network_d2; null: as optim_d."""
    net_d_iters: PositiveInt = 1
    """The network moves in every so many-th step only, discriminators in all."""
    net_d_init_iters: NonNegativeInt = 0
    """Steps at the start in which discriminators move alone."""
    d_gradient_accumulation_steps: PositiveInt | None = None
    """Micro-batches of a step of a discriminator; null: gradient_accumulation_steps."""
    perceptual_start_iter: NonNegativeInt | None = None
    """The fork's place of perceptual_opt.start_iter; null: as that says."""
    high_loss_threshold: PositiveFloat | None = None
    """Loss of a micro-batch from which on its pictures are saved; null: never (the fork's key)."""
    save_high_loss_images: bool = False
    """Save those pictures."""
    accumulation_steps: PositiveInt | None = None
    """The fork's other name of gradient_accumulation_steps; null: as that says."""
    use_grad_clip: bool = False
    """Limit the length of the gradient."""
    grad_clip_norm: PositiveFloat = 0.5
    """Longest gradient, if limited."""
    half_precision: bool = False
    """Compute in 16 bits on GPUs: bfloat16 where the GPU has it, else float16 (the fork's key)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Compute in this precision on any device, without half_precision (ours)."""
    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches whose gradients are averaged in a step."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do if a loss is not finite: stop, or count and leave out the step (ours)."""
    nonfinite_limit: NonNegativeInt = 100
    """Steps that may be left out before the run stops all the same (ours)."""
    flow: FlowOptions | None = None
    """Lessons for the flow network; null: none (ours)."""

    @model_validator(mode="before")
    @classmethod
    def _other_places(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        tree, count = dict(tree), tree.get("accumulation_steps")
        if count is not None and tree.setdefault("gradient_accumulation_steps", count) != count:
            raise key_error("accumulation_steps", "differs from gradient_accumulation_steps")
        start, section = tree.get("perceptual_start_iter"), tree.get("perceptual_opt")
        if start is not None and isinstance(section, Mapping):
            tree["perceptual_opt"] = {"start_iter": start, **section}
        return tree

    def learning_rate(self, step: int, base: float) -> float:
        """Rate of a group of parameters whose full rate is `base`, `step` steps into the run."""
        if step + 1 < self.warmup_iter:
            return base * (step + 1) / self.warmup_iter
        return self.scheduler.rate(step, base)

    def network_moves(self, step: int) -> bool:
        """Whether the network moves in a step, `step` steps into the run."""
        return step >= self.net_d_init_iters and (step + 1) % self.net_d_iters == 0

    def is_high(self, loss: Callable[[], float]) -> bool:
        """Whether pictures of a loss are saved; it is not asked for if none are."""
        wanted, limit = self.save_high_loss_images, self.high_loss_threshold
        return wanted and limit is not None and loss() >= limit

    def losses(self) -> Iterator[tuple[str, Section]]:
        """Sections of the losses that compare with the ground truth, by their keys."""
        for key in LOSSES:
            if (section := getattr(self, key)) is not None:
                yield key, section

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        starts = [getattr(section, "start_iter", 0) for _, section in self.losses()]
        if not starts:
            yield "there is no loss: give pixel_opt, fft_opt or perceptual_opt"
        elif min(starts):
            yield "no loss is on at the first step: set the start_iter of one to 0"
        if self.half_precision and self.precision != "float32":
            yield f"half_precision is true and precision {self.precision}: set one of them"
        periods: Any = getattr(self.scheduler, "periods", None)
        # After restarts, the rate stays where it ended: the fork's files rely on it.
        if periods and len(periods) == 1 and sum(periods) < self.total_iter:
            yield (
                f"scheduler.periods {list(periods)} end at step {sum(periods)}, before "
                f"total_iter ({self.total_iter}); make a period longer"
            )
