"""Sections of an option file that say what is minimised, one class a loss."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from iart.evaluate.metrics.perceptual import NETWORKS, WeightsFile
from iart.train.options.section import FDL, LPIPS, FilePath, Section, Share


def _whatever_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class LossOptions(Section):
    """What most losses have in common."""

    loss_weight: NonNegativeFloat = 1.0
    """Factor of this loss in the sum."""
    start_iter: NonNegativeInt = 0
    """Steps before this loss is switched on."""


class VGGOptions(Section):
    """The network of losses that compare what VGG-19 sees."""

    use_input_norm: bool = True
    """Normalise colours by ImageNet's mean and deviation."""
    range_norm: bool = False
    """Take colours from the range -1 to 1 to the range 0 to 1 first."""
    weights: FilePath | None = None
    """File of VGG-19's weights in torchvision's layout (ours: nothing is downloaded)."""

    def files(self, place: str) -> tuple[WeightsFile, ...]:
        """See `Section`."""
        return (WeightsFile(f"{place}.weights", self.weights, "VGG-19"),)


class LPIPSNetworkOptions(Section):
    """The network of LPIPS, as a loss and as a score."""

    net_type: Literal["alex", "vgg", "squeeze"] = "alex"
    """The network of LPIPS: AlexNet, VGG-16 or SqueezeNet 1.1."""
    weights: FilePath | None = None
    """File of the network's weights in torchvision's layout (ours: nothing is downloaded)."""
    linear_weights: FilePath | None = None
    """File of LPIPS's own weights, lin0.model.1.weight and so on, of version 0.1 (ours)."""

    def files(self, place: str) -> tuple[WeightsFile, ...]:
        """See `Section`: of the network, and LPIPS's own."""
        what = NETWORKS[self.net_type][1]
        return (
            WeightsFile(f"{place}.weights", self.weights, what),
            WeightsFile(
                f"{place}.linear_weights",
                self.linear_weights,
                f"LPIPS 0.1 with {what}",
                layout="LPIPS's",
            ),
        )


class PixelLossOptions(Section):
    """Distance of the result's pixels to those of the ground truth; on from the first step."""

    start_iter: ClassVar[int] = 0

    type: Literal["CharbonnierLoss", "L1Loss", "MSELoss"]
    """Charbonnier: sqrt(d² + eps); L1: |d|; MSE: d²."""
    loss_weight: NonNegativeFloat = 1.0
    """Factor of this loss in the sum."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over pixels."""
    eps: PositiveFloat = 1e-12
    """Rounds Charbonnier's tip; in squared units of the range 0 to 1."""


class FFTLossOptions(LossOptions):
    """Mean distance of the Fourier coefficients, all of them or behind a Gaussian filter."""

    type: Literal["FFTLoss"] = "FFTLoss"
    """The loss's kind."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over coefficients."""
    highpass_cutoff: NonNegativeFloat = 0.0
    """Width of a high pass as a share of the Nyquist frequency; 0: none."""
    highpass_type: Literal["gaussian"] = "gaussian"
    """Shape of the high pass."""
    lowpass_cutoff: NonNegativeFloat = 0.0
    """Width of a low pass as a share of the Nyquist frequency; 0: none."""
    filter_type: Literal["gaussian"] = "gaussian"
    """Shape of the low pass."""


class FocalFrequencyOptions(LossOptions):
    """Squared distance of Fourier coefficients, most of it where they are far apart."""

    type: Literal["FocalFrequencyLoss"] = "FocalFrequencyLoss"
    """The loss's kind."""
    alpha: NonNegativeFloat = 1.0
    """Exponent of the weights."""
    patch_factor: PositiveInt = 1
    """Patches in each direction that a frame is cut into."""
    ave_spectrum: bool = False
    """Compare spectra averaged over all frames of the batch."""
    log_matrix: bool = False
    """Take the weights' logarithm: log(1 + w)."""
    batch_matrix: bool = False
    """Divide weights by the greatest of the batch instead of each patch's."""


class FrequencyDistributionOptions(VGGOptions, LossOptions):
    """Sliced Wasserstein distance between spectra of VGG's features."""

    known: ClassVar = FDL

    type: Literal["FDLLoss"] = "FDLLoss"
    """The loss's kind."""
    model: Annotated[Literal["vgg"], BeforeValidator(_whatever_case)] = "vgg"
    """The network: VGG-19."""
    patch_size: PositiveInt = 5
    """Side of the patches of the spectra that are projected; smaller maps are left out."""
    stride: PositiveInt = 1
    """Distance between patches."""
    num_proj: PositiveInt = 256
    """Random directions to project on."""
    phase_weight: NonNegativeFloat = 1.0
    """Factor of phases beside amplitudes."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over frames."""
    chunk_size: PositiveInt | None = None
    """Directions computed at once, which saves memory; null: all."""
    scale_factor: NonNegativeFloat = 1.0
    """Another factor of this loss."""


class LPIPSOptions(LPIPSNetworkOptions, LossOptions):
    """Distance of normalised features, weighted as people judged."""

    known: ClassVar = LPIPS

    type: Literal["LPIPSLoss"] = "LPIPSLoss"
    """The loss's kind."""
    normalize: bool = True
    """Frames are in the range 0 to 1, as here; false: -1 to 1."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over frames."""


class ConvNeXtOptions(LossOptions):
    """Distance of the features of a ConvNeXt network."""

    type: Literal["ConvNextLoss"] = "ConvNextLoss"
    """The loss's kind."""
    model_type: Literal["tiny", "small", "base"] = "tiny"
    """Size of the network."""
    feature_layers: Annotated[
        tuple[Annotated[int, Field(ge=0, le=7)], ...], Field(min_length=1)
    ] = (0, 2, 4, 6)
    """Places in torchvision's `features` whose output is compared."""
    layer_weight_decay: Share = 0.9
    """Factor of each layer's weight to that of the one before; the first has 1."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over features."""
    input_range: tuple[float, float] = (0.0, 1.0)
    """Range of the frames' colours."""
    use_gram: bool = False
    """Compare how features occur together (style) instead of themselves."""
    weights: FilePath | None = None
    """File of the network's weights in torchvision's layout (ours: nothing is downloaded)."""

    def files(self, place: str) -> tuple[WeightsFile, ...]:
        """See `Section`."""
        return (WeightsFile(f"{place}.weights", self.weights, f"ConvNeXt ({self.model_type})"),)

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if self.input_range[0] >= self.input_range[1]:
            yield f"input_range must be two ascending numbers, got {self.input_range}"


class TemporalOptions(LossOptions):
    """Distance of changes from frame to frame along the ground truth's motion (ours)."""

    type: Literal["TemporalLoss"] = "TemporalLoss"
    """The loss's kind."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over pixels."""


class PerceptualOptions(VGGOptions):
    """Distance of features of a VGG network, and of their correlations (style)."""

    type: Literal["PerceptualLoss"] = "PerceptualLoss"
    """The loss's kind."""
    layer_weights: Annotated[dict[str, NonNegativeFloat], Field(min_length=1)] = Field(
        default_factory=lambda: {"conv5_4": 1.0}
    )
    """Weight of each layer's features, such as {conv5_4: 1}: before the layer's ReLU."""
    vgg_type: Literal["vgg19"] = "vgg19"
    """The network."""
    perceptual_weight: NonNegativeFloat = 1.0
    """Factor of the distance of features; 0: leave it out."""
    style_weight: NonNegativeFloat = 0.0
    """Factor of the distance of style; 0: leave it out."""
    criterion: Literal["l1", "l2", "fro"] = "l1"
    """Mean absolute, mean squared or Frobenius distance."""
    start_iter: NonNegativeInt = 0
    """Steps before this loss is switched on."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if not self.perceptual_weight + self.style_weight:
            yield "give perceptual_weight or style_weight a value above 0"


# ---- adversarial training


class GANOptions(LossOptions):
    """Adversarial loss: results are to be taken for ground truth."""

    type: Literal["GANLoss"] = "GANLoss"
    """The loss's kind."""
    gan_type: Literal["vanilla", "hinge", "lsgan", "relativistic"] = "vanilla"
    """Cross entropy, hinge, least squares, or cross entropy of differences to the mean."""
    real_label_val: float = 1.0
    """Label of ground truth."""
    fake_label_val: float = 0.0
    """Label of results."""


class FeatureMatchingOptions(LossOptions):
    """Distance of the features of a discriminator."""

    type: Literal["L1Loss", "CIPLABFeatureMatchingLoss"] = "L1Loss"
    """L1 of network_d; or of the first CIPLABUnetD."""
    reduction: Literal["mean"] = "mean"
    """Mean over features."""
    num_layers: PositiveInt | None = None
    """Layers compared, from the input on; null: all."""


class ConsistencyOptions(LossOptions):
    """Judgements of a picture cut together are those of its parts (CutMix)."""

    type: Literal["MSELoss"] = "MSELoss"
    """The loss's kind."""
    reduction: Literal["mean"] = "mean"
    """Mean over pixels."""
    cutmix_prob_max: Share = 0.5
    """Highest share of samples that are cut together."""
    cutmix_prob_scale: PositiveInt = 100_000
    """Steps in which the share would grow to 1."""
