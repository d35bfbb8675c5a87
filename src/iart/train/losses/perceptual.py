"""Distance between what VGG-19 sees in two pictures (Johnson et al., ECCV 2016).

Σ over layers of weight × (distance of features + distance of their Gram matrices); either distance
has a weight of its own. The Gram matrix of features f (channels × places) is f fᵀ / (channels ·
places); it tells style (Gatys et al., CVPR 2016). Beside it LPIPS as a loss.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import OptionsError
from iart.evaluate.metrics.features import VGG_BLOCKS, FeatureNetwork, ImageNetColors
from iart.evaluate.metrics.perceptual import LPIPS
from iart.train.losses.pixel import reduced
from iart.train.options.losses import LPIPSOptions, PerceptualOptions, VGGOptions


def layer_names() -> list[str]:
    """Layers in order, conv1_1, relu1_1 … pool5; the place is the number in torchvision's names."""
    names = []
    for block, (_, depth) in enumerate(VGG_BLOCKS["vgg19"], start=1):
        for i in range(1, depth + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names


class VGG19(nn.Module):
    """Features of frames at some layers, their colours taken to the range that VGG-19 knows."""

    def __init__(self, options: VGGOptions, section: str, places: Iterable[int]) -> None:
        """Read the weights of `section`; see `PerceptualLoss`."""
        super().__init__()
        self.options, self.colors = options, ImageNetColors()
        self.vgg = FeatureNetwork("vgg19", places)
        options.files(section)[0].load(self.vgg)

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Outputs of the layers, in their order."""
        if self.options.range_norm:  # frames in [−1, 1]
            frames = (frames + 1) / 2
        return self.vgg(self.colors(frames) if self.options.use_input_norm else frames)


class PerceptualLoss(nn.Module):
    """The loss of a section `perceptual_opt`."""

    def __init__(self, options: PerceptualOptions) -> None:
        """Read the weights.

        Raises:
            OptionsError: there is no usable file of weights, or a layer that VGG-19 does not have.
        """
        super().__init__()
        self.options, names = options, layer_names()
        if strange := [name for name in options.layer_weights if name not in names]:
            raise OptionsError(
                f"train.perceptual_opt.layer_weights: there is no layer '{strange[0]}'"
                f" (of {', '.join(names)})"
            )
        places = map(names.index, options.layer_weights)
        self.vgg = VGG19(options, "train.perceptual_opt", places)

    def forward(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss of a batch in its parts, "perceptual" and "style", with their weights."""
        options = self.options
        seen = self.vgg(output.flatten(0, 1))
        with torch.no_grad():
            expected = self.vgg(truth.flatten(0, 1))
        layers = list(zip(options.layer_weights.values(), seen, expected, strict=True))
        parts = {}
        if options.perceptual_weight:
            distances = [w * _distance(a, b, options.criterion) for w, a, b in layers]
            parts["perceptual"] = options.perceptual_weight * torch.stack(distances).sum()
        if options.style_weight:
            distances = [w * _distance(gram(a), gram(b), options.criterion) for w, a, b in layers]
            parts["style"] = options.style_weight * torch.stack(distances).sum()
        return parts


def gram(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """How strongly channels occur together."""
    _, c, h, w = features.shape
    flat = features.flatten(2)
    return flat @ flat.mT / (c * h * w)


def _distance(a: Tensor, b: Tensor, criterion: str) -> Float[Tensor, ""]:
    if criterion == "fro":
        return torch.linalg.vector_norm(a - b)
    return F.l1_loss(a, b) if criterion == "l1" else F.mse_loss(a, b)


class LPIPSLoss(nn.Module):
    """The loss of a section `lpips_opt`."""

    def __init__(self, options: LPIPSOptions) -> None:
        """Read the weights; see `LPIPS`."""
        super().__init__()
        files = options.files("train.lpips_opt")
        self.options = options
        self.distance = LPIPS(options.net_type, *files, normalize=options.normalize)

    def forward(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        distances = self.distance(output.flatten(0, 1), truth.flatten(0, 1))
        return reduced(distances, self.options.reduction)
