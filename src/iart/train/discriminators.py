"""Discriminators: networks that tell results from ground truth, and what they learn and teach.

All have spectral norm (Miyato et al., ICLR 2018). UNetDiscriminatorSN is Real-ESRGAN's (Wang et
al., ICCVW 2021), with a judgement of every pixel; CIPLABUnetD judges the whole picture as well
(Schönfeld et al., CVPR 2020); PatchDiscriminatorSN judges overlapping patches (Isola et al., CVPR
2017).

Losses, with real r, fake f and s the sigmoid's cross entropy: vanilla (Goodfellow et al., NeurIPS
2014) s(r, 1) + s(f, 0); hinge (Lim & Ye, 2017) max(0, 1 − r) + max(0, 1 + f); least squares (Mao et
al., ICCV 2017) (r − 1)² + f²; relativistic average (Jolicoeur-Martineau, ICLR 2019) cross entropies
of r − mean f and f − mean r, halved. Means of the last go over the batch of all processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.data.augment import cutmix_generator
from iart.train.options.losses import ConsistencyOptions, GANOptions
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


# ---- losses


class _MeanOverProcesses(torch.autograd.Function):
    """Mean of a tensor over all processes, with its gradient."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return mean_over_processes(value)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return mean_over_processes(gradients[0])


def mean_over_processes(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Mean over all processes, without a gradient of its own; each has to call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()


def global_mean(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean over the batches of all processes, which are equally large."""
    return _MeanOverProcesses.apply(logits.mean())  # pyright: ignore[reportReturnType]


def discriminator_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."], options: GANOptions
) -> Float[Tensor, ""]:
    """What a discriminator minimises: ground truth and results get their labels."""
    if options.gan_type == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    share = 1.0
    if options.gan_type == "relativistic":
        real, fake, share = real - global_mean(fake), fake - global_mean(real), 0.5
    yes, no = options.real_label_val, options.fake_label_val
    return share * (_labelled(real, yes, options) + _labelled(fake, no, options))


def generator_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."], options: GANOptions
) -> Float[Tensor, ""]:
    """What the enlarging network minimises: its results get the label of ground truth.

    Args:
        real: judgements of ground truth, without gradient; only the relativistic loss needs them.
        fake: judgements of results.
        options: the loss.
    """
    if options.gan_type == "hinge":
        return -fake.mean()
    if options.gan_type != "relativistic":
        return _labelled(fake, options.real_label_val, options)
    real, fake = real - global_mean(fake), fake - global_mean(real)
    yes, no = options.real_label_val, options.fake_label_val
    return (_labelled(fake, yes, options) + _labelled(real, no, options)) / 2


def _labelled(logits: Tensor, label: float, options: GANOptions) -> Float[Tensor, ""]:
    labels = torch.full_like(logits, label)
    if options.gan_type == "lsgan":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def feature_matching(
    output: Sequence[Tensor], truth: Sequence[Tensor], layers: int | None = None
) -> Float[Tensor, ""]:
    """Mean over layers of mean |f(output) − f(truth)|, f a discriminator's features.

    Salimans et al., NeurIPS 2016; Wang et al., CVPR 2018.

    Args:
        output: features of results.
        truth: features of ground truth.
        layers: how many to compare, from the input on; None: all.
    """
    pairs = list(zip(output, truth, strict=True))[:layers]
    return torch.stack([F.l1_loss(a.float(), b.detach().float()) for a, b in pairs]).mean()


def cutmix_share(options: ConsistencyOptions, step: int) -> float:
    """P = min(max, (step − start) / scale): the share of samples that are cut together."""
    begun = max(step - options.start_iter, 0)
    return min(options.cutmix_prob_max, begun / options.cutmix_prob_scale)


def cutmix_masks(
    indices: Sequence[int], height: int, width: int, share: float, seed: int
) -> dict[int, Float[Tensor, "h w"]]:
    """Masks of the samples that are cut together, by their places in the batch.

    CutMix consistency (Schönfeld et al., CVPR 2020) is mean (D(m r + (1 − m) f) − m D(r) −
    (1 − m) D(f))² of the judgements D of every pixel, m a mask that is 1 in a box, r ground truth
    and f a result. Draws are each sample's own, whichever process has it. The box has a uniform
    share of the area.

    Args:
        indices: of the samples in the run.
        height: of the pictures.
        width: of the pictures.
        share: of samples that are cut together.
        seed: of the run.
    """
    masks = {}
    for place, index in enumerate(indices):
        rng = cutmix_generator(seed, index)
        chosen, area, y, x = rng.random(4)
        if chosen >= share:
            continue
        rows, columns = (max(round(side * area**0.5), 1) for side in (height, width))
        top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
        mask = torch.zeros(height, width)
        mask[top : top + rows, left : left + columns] = 1
        masks[place] = mask
    return masks
