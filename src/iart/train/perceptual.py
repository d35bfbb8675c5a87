"""Distance between what VGG-19 sees in two pictures (Johnson et al., ECCV 2016).

The layers are those of torchvision's `vgg19`, and so are the names in the file of weights:
`features.0.weight`, `features.0.bias`, `features.2.weight` …
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import OptionsError, WeightsError
from iart.train.recipe_options import PerceptualOptions
from iart.weights.tensorfile import choose_weights, is_safetensors, read_pickle, read_safetensors

# Channels and number of the convolutions before each of the five poolings.
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def layer_names() -> list[str]:
    """Layers in order, conv1_1, relu1_1 … pool5; the place is the number in torchvision's names."""
    names = []
    for block, (_, depth) in enumerate(BLOCKS, start=1):
        for i in range(1, depth + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names


class VGG19(nn.Module):
    """The convolutions of VGG-19 up to the last layer asked for."""

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self, wanted: tuple[str, ...]) -> None:
        super().__init__()
        names = layer_names()
        self.wanted = wanted
        self.names = names[: 1 + max(names.index(name) for name in wanted)]
        layers: list[nn.Module] = []
        channels = 3
        for name in self.names:
            if name.startswith("conv"):
                width, _ = BLOCKS[int(name[4]) - 1]
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            else:
                layers.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def forward(
        self, frames: Float[Tensor, "b 3 h w"], *, normalise: bool
    ) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """What the wanted layers give, by name, for RGB in [0, 1]."""
        x = (frames - self.mean) / self.std if normalise else frames
        seen = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in self.wanted:
                seen[name] = x
        return seen


class PerceptualLoss(nn.Module):
    """Σ over layers of weight × (distance of features + distance of their Gram matrices).

    Either distance has a weight of its own. The Gram matrix of features f (channels × places) is
    f fᵀ / (channels · places); it tells style (Gatys et al., CVPR 2016).
    """

    def __init__(self, options: PerceptualOptions) -> None:
        """Read the weights.

        Raises:
            OptionsError: there is no usable file of weights, or a layer that VGG-19 does not have.
        """
        super().__init__()
        self.options = options
        wanted = tuple(options.layer_weights)
        if strange := [name for name in wanted if name not in layer_names()]:
            raise OptionsError(
                f"train.perceptual_opt.layer_weights: there is no layer '{strange[0]}'"
                f" (of {', '.join(layer_names())})"
            )
        self.vgg = VGG19(wanted)
        load_vgg(self.vgg, options.weights)
        self.requires_grad_(False).eval()

    def forward(
        self, output: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch of frames."""
        options = self.options
        if options.range_norm:  # frames in [−1, 1]
            output, truth = (output + 1) / 2, (truth + 1) / 2
        seen = self.vgg(output, normalise=options.use_input_norm)
        with torch.no_grad():
            expected = self.vgg(truth, normalise=options.use_input_norm)
        loss = output.new_zeros(())
        for name, weight in options.layer_weights.items():
            a, b = seen[name], expected[name]
            if options.perceptual_weight:
                distance = _distance(a, b, options.criterion)
                loss = loss + options.perceptual_weight * weight * distance
            if options.style_weight:
                distance = _distance(gram(a), gram(b), options.criterion)
                loss = loss + options.style_weight * weight * distance
        return loss


def gram(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """How strongly channels occur together."""
    _, c, h, w = features.shape
    flat = features.flatten(2)
    return flat @ flat.mT / (c * h * w)


def _distance(a: Tensor, b: Tensor, criterion: str) -> Float[Tensor, ""]:
    if criterion == "fro":
        return torch.linalg.vector_norm(a - b)
    return F.l1_loss(a, b) if criterion == "l1" else F.mse_loss(a, b)


def load_vgg(vgg: VGG19, path: Path | None) -> None:
    """Take over weights from a file in torchvision's layout.

    Raises:
        OptionsError: no file is named, or it is missing, damaged or of another network.
    """
    instead = "Name a file in torchvision's layout, or train without: train.perceptual_opt=null"
    if path is None:
        raise OptionsError(f"train.perceptual_opt.weights names no file of VGG-19. {instead}")
    try:
        tensors = _read(path)
        for name, parameter in vgg.named_parameters():
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != parameter.shape:
                found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
                raise WeightsError(f"{name} {found}, expected shape {list(parameter.shape)}")
            with torch.no_grad():
                parameter.copy_(tensor)
    except (WeightsError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionsError(
            f"train.perceptual_opt.weights: cannot use '{path}' as VGG-19: {reason}. {instead}"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if is_safetensors(path):
        return read_safetensors(path)[1]
    return choose_weights(read_pickle(path), None, ("state_dict",))
