"""Networks that tell results from ground truth, all with spectral norm (Miyato et al., ICLR 2018).

UNetDiscriminatorSN is Real-ESRGAN's (Wang et al., ICCVW 2021), with a judgement of every pixel;
CIPLABUnetD judges the whole picture as well (Schönfeld et al., CVPR 2020); PatchDiscriminatorSN
judges overlapping patches (Isola et al., CVPR 2017).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.train.options.run import DiscriminatorOptions


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of a batch of n pictures.

    Attributes:
        logits: high for ground truth; every output of its own.
        features: of its layers, from the input on.
        pixels: the output that has the size of the pictures, n×1×h×w, if there is one.
    """

    logits: list[Tensor]
    features: list[Tensor]
    pixels: Tensor | None = None


class SpectralConv(nn.Conv2d):
    """Convolution whose weight is divided by its greatest singular value σ = uᵀ W v.

    The vectors move by `advance` alone, so that looking at pictures changes nothing.
    """

    u: Float[Tensor, " o"]
    v: Float[Tensor, " i"]

    def __init__(self, channels: int, width: int, size: int, stride: int = 1) -> None:
        super().__init__(channels, width, size, stride, padding=1, bias=False)
        self.register_buffer("u", F.normalize(torch.randn(width), dim=0))
        self.register_buffer("v", F.normalize(self.weight.detach().flatten(1).T @ self.u, dim=0))
        for _ in range(10):
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """One step of power iteration."""
        matrix = self.weight.flatten(1)
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))

    def forward(self, input: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        """See `torch.nn.Conv2d`."""
        # Clones, since `advance` may come before the gradient; sums stay float32 in autocast.
        u, v = self.u.clone(), self.v.clone()
        sigma = (u * (self.weight.flatten(1) * v).sum(dim=1)).sum()
        return self._conv_forward(input, self.weight / sigma, None)


def advance(discriminator: nn.Module) -> None:
    """One step of power iteration in every layer."""
    for layer in discriminator.modules():
        if isinstance(layer, SpectralConv):
            layer.advance()


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class UNetDiscriminator(nn.Module):
    """Three halvings and back, after Real-ESRGAN; pictures of any size."""

    def __init__(self, options: DiscriminatorOptions) -> None:
        super().__init__()
        f = options.num_feat
        self.skip = options.skip_connection
        self.first = nn.Conv2d(3 * options.frames, f, 3, padding=1)
        self.down = nn.ModuleList(SpectralConv(f << i, f << (i + 1), 4, 2) for i in range(3))
        self.up = nn.ModuleList(SpectralConv(f << (i + 1), f << i, 3) for i in (2, 1, 0))
        self.last = nn.ModuleList((SpectralConv(f, f, 3), SpectralConv(f, f, 3)))
        self.head = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, pictures: Float[Tensor, "n c h w"]) -> Judgement:
        """Judgements of every pixel."""
        features = [_leaky(self.first(pictures))]
        for layer in self.down:
            features.append(_leaky(layer(features[-1])))
        x = features[-1]
        for layer, same in zip(self.up, features[2::-1], strict=True):
            x = _leaky(layer(_resized(x, same)))
            x = x + same if self.skip else x
            features.append(x)
        for layer in self.last:
            x = _leaky(layer(x))
            features.append(x)
        logits = self.head(x)
        return Judgement([logits], features, logits)


class GlobalUNetDiscriminator(nn.Module):
    """Halvings to a few pixels, which judge the whole picture, and back to every pixel."""

    def __init__(self, options: DiscriminatorOptions) -> None:
        super().__init__()
        widths = [options.num_feat << min(i, 3) for i in range(options.levels + 1)]
        self.skip, pairs = options.skip_connection, list(pairwise(widths))
        self.first = nn.Conv2d(3 * options.frames, widths[0], 3, padding=1)
        self.down = nn.ModuleList(SpectralConv(low, high, 3, 2) for low, high in pairs)
        more = 2 if self.skip else 1
        self.up = nn.ModuleList(
            SpectralConv(high + (more - 1) * low, low, 3) for low, high in reversed(pairs)
        )
        self.whole = nn.Linear(widths[-1], 1)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, pictures: Float[Tensor, "n c h w"]) -> Judgement:
        """A judgement of each picture, and one of every pixel."""
        features = [_leaky(self.first(pictures))]
        for layer in self.down:
            features.append(_leaky(layer(features[-1])))
        x, sizes = features[-1], features[-2::-1]
        whole = self.whole(x.mean(dim=(-2, -1)))
        for layer, same in zip(self.up, sizes, strict=True):
            x = _resized(x, same)
            x = _leaky(layer(torch.cat((x, same), dim=1) if self.skip else x))
            features.append(x)
        pixels = self.head(x)
        return Judgement([whole, pixels], features, pixels)


class PatchDiscriminator(nn.Module):
    """Three halvings, then a judgement of every place: of 70×70 pixels around it."""

    def __init__(self, options: DiscriminatorOptions) -> None:
        super().__init__()
        f = options.num_feat
        self.first = nn.Conv2d(3 * options.frames, f, 4, 2, padding=1)
        sizes = ((f, 2 * f, 2), (2 * f, 4 * f, 2), (4 * f, 8 * f, 1))
        self.layers = nn.ModuleList(SpectralConv(a, b, 4, stride) for a, b, stride in sizes)
        self.head = nn.Conv2d(8 * f, 1, 4, padding=1)

    def forward(self, pictures: Float[Tensor, "n c h w"]) -> Judgement:
        """Judgements of patches; h and w at least 32."""
        features = [_leaky(self.first(pictures))]
        for layer in self.layers:
            features.append(_leaky(layer(features[-1])))
        return Judgement([self.head(features[-1])], features)


def new_discriminator(options: DiscriminatorOptions, seed: int) -> nn.Module:
    """A discriminator with random weights, which follow from the seed."""
    kinds = {
        "UNetDiscriminatorSN": UNetDiscriminator,
        "CIPLABUnetD": GlobalUNetDiscriminator,
        "PatchDiscriminatorSN": PatchDiscriminator,
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return kinds[options.type](options)
