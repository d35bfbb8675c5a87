"""How a network is trained: losses, optimiser, learning rate."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from iart.train.section import FilePath, Section, Share, null_is
from iart.train.vocabulary import OPTIM, TRAIN

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

    @model_validator(mode="after")
    def _a_weight_for_each(self) -> "CosineOptions":
        if len(self.periods) != len(self.restart_weights):
            raise ValueError(
                f"restart_weights {list(self.restart_weights)} must be one for each of periods "
                f"{list(self.periods)}"
            )
        return self


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

    @model_validator(mode="after")
    def _a_weight_for_each(self) -> "MultiStepOptions":
        if len(self.restarts) != len(self.restart_weights):
            raise ValueError(
                f"restart_weights {list(self.restart_weights)} must be one for each of restarts "
                f"{list(self.restarts)}"
            )
        if list(self.restarts) != sorted(self.restarts):
            raise ValueError(f"restarts {list(self.restarts)} must ascend")
        return self


class PixelLossOptions(Section):
    """Distance of the result's pixels to those of the ground truth."""

    type: Literal["CharbonnierLoss", "L1Loss", "MSELoss"]
    """Charbonnier: sqrt(d² + eps); L1: |d|; MSE: d²."""
    loss_weight: NonNegativeFloat = 1.0
    """Factor of this loss in the sum."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over pixels."""
    eps: PositiveFloat = 1e-12
    """Rounds Charbonnier's tip; in squared units of the range 0 to 1."""


class FFTLossOptions(Section):
    """Mean distance of the Fourier coefficients."""

    type: Literal["FFTLoss"] = "FFTLoss"
    """The loss's kind."""
    loss_weight: NonNegativeFloat = 1.0
    """Factor of this loss in the sum."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over coefficients."""


class PerceptualOptions(Section):
    """Distance of features of a VGG network, and of their correlations (style)."""

    type: Literal["PerceptualLoss"] = "PerceptualLoss"
    """The loss's kind."""
    layer_weights: Annotated[dict[str, NonNegativeFloat], Field(min_length=1)]
    """Weight of each layer's features, such as {conv5_4: 1}: before the layer's ReLU."""
    vgg_type: Literal["vgg19"] = "vgg19"
    """The network."""
    use_input_norm: bool = True
    """Normalise colours by ImageNet's mean and deviation."""
    range_norm: bool = False
    """Take colours from the range -1 to 1 to the range 0 to 1 first."""
    perceptual_weight: NonNegativeFloat = 1.0
    """Factor of the distance of features; 0: leave it out."""
    style_weight: NonNegativeFloat = 0.0
    """Factor of the distance of style; 0: leave it out."""
    criterion: Literal["l1", "l2", "fro"] = "l1"
    """Mean absolute, mean squared or Frobenius distance."""
    weights: FilePath | None = None
    """File of VGG-19's weights in torchvision's layout (ours: nothing is downloaded)."""


class TrainOptions(Section):
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
    perceptual_opt: PerceptualOptions | None = None
    """Loss on features; null: none."""
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

    @model_validator(mode="after")
    def _something_to_learn(self) -> "TrainOptions":
        if self.pixel_opt is None and self.fft_opt is None and self.perceptual_opt is None:
            raise ValueError("there is no loss: give pixel_opt, fft_opt or perceptual_opt")
        return self

    @model_validator(mode="after")
    def _one_precision(self) -> "TrainOptions":
        if self.half_precision and self.precision != "float32":
            raise ValueError(
                f"half_precision is true and precision {self.precision}: set one of them"
            )
        return self

    @model_validator(mode="after")
    def _periods_last(self) -> "TrainOptions":
        periods: Any = getattr(self.scheduler, "periods", None)
        if periods and sum(periods) < self.total_iter:
            raise ValueError(
                f"scheduler.periods {list(periods)} end at step {sum(periods)}, before "
                f"total_iter ({self.total_iter}); make a period longer"
            )
        return self
