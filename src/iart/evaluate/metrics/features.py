"""Networks that measure: the convolutions of torchvision's classifiers, with weights from files.

Layers stand where torchvision has them, so that names in files fit: `features.0.weight` …
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import OptionsError, WeightsError
from iart.weights.tensorfile import fill, read_tensors

Kind = Literal["vgg16", "vgg19", "alexnet", "squeezenet1_1"]

# Channels and number of the convolutions before each of the five poolings.
VGG_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg16": ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    "vgg19": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}


class Fire(nn.Module):
    """A block of SqueezeNet: 1×1 to few channels, then 1×1 and 3×3 side by side to many."""

    def __init__(self, channels: int, few: int, many: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, few, 1)
        self.expand1x1 = nn.Conv2d(few, many, 1)
        self.expand3x3 = nn.Conv2d(few, many, 3, padding=1)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
        """Features of twice `many` channels."""
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1).relu()


def _layers(kind: Kind) -> Iterable[nn.Module]:
    if kind in VGG_BLOCKS:
        channels = 3
        for width, depth in VGG_BLOCKS[kind]:
            for _ in range(depth):
                yield nn.Conv2d(channels, width, 3, padding=1)
                yield nn.ReLU()
                channels = width
            yield nn.MaxPool2d(2)
    elif kind == "alexnet":
        yield from (nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        yield from (nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        for channels, width in ((192, 384), (384, 256), (256, 256)):
            yield from (nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
    else:
        yield from (nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256))


class FeatureNetwork(nn.Module):
    """The `features` of a torchvision classifier, up to the last layer asked for."""

    def __init__(self, kind: Kind, wanted: Iterable[int]) -> None:
        """Weights are random until `WeightsFile.load`.

        Args:
            kind: torchvision's name of the network.
            wanted: places of layers in `features`.
        """
        super().__init__()
        self.wanted = tuple(wanted)
        self.features = nn.Sequential(*list(_layers(kind))[: max(self.wanted) + 1])

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Outputs of the wanted layers, in their order."""
        seen = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            seen[place] = x
        return [seen[place] for place in self.wanted]


class ImageNetColors(nn.Module):
    """Colours as networks that learnt ImageNet take them: minus mean, over deviation."""

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """RGB in [0, 1], normalised."""
        return (frames - self.mean) / self.std


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights of a network that measures.

    Attributes:
        option: that names it, such as "train.lpips_opt.weights".
        path: of the file; None if the option names none.
        what: it should hold, such as "VGG-19".
        advice: what to do if it cannot be used; None: that of option files.
        layout: whose names its tensors have.
    """

    option: str
    path: Path | None
    what: str
    advice: str | None = None
    layout: str = "torchvision's"

    @property
    def without(self) -> str:
        """How to do without it."""
        return f"{self.option.rpartition('.')[0]}=null"

    def fill(self, own: Mapping[str, Tensor]) -> None:
        """Take over the tensors of these names and shapes; the file may hold more.

        Raises:
            OptionsError: no file is named, or it is missing, damaged or of another network.
        """
        words = f"Name a file in {self.layout} layout, or train without: {self.without}"
        instead = self.advice or words
        if self.path is None:
            raise OptionsError(f"{self.option} names no file of {self.what}. {instead}")
        try:
            tensors, _ = read_tensors(self.path)
            fill(own, {name: tensor for name, tensor in tensors.items() if name in own})
        except (WeightsError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OptionsError(
                f"{self.option}: cannot use '{self.path}' as {self.what}: {reason}. {instead}"
            ) from error

    def load(self, network: nn.Module) -> None:
        """Take over all parameters of a network, which then measures and no longer learns."""
        self.fill(dict(network.named_parameters()))
        network.requires_grad_(False).eval()
