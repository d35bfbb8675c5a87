"""Distances between what networks see in two pictures: VGG-19, LPIPS, ConvNeXt."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iart.errors import OptionsError
from iart.evaluate.metrics.perceptual import LPIPS, VGG_BLOCKS, FeatureNetwork, ImageNetColors
from iart.train.losses.pixel import reduced
from iart.train.options.losses import (
    ConvNeXtOptions,
    FrequencyDistributionOptions,
    LPIPSOptions,
    PerceptualOptions,
    VGGOptions,
)


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
    """The loss of a section `perceptual_opt` (Johnson et al., ECCV 2016).

    Σ over layers of weight × (distance of features + distance of their Gram matrices); either
    distance has a weight of its own.
    """

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
    """Style: f fᵀ / (channels · places) of features f, c × places (Gatys et al., CVPR 2016)."""
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


# ---- frequency distribution loss


# relu1_2, relu2_2, relu3_4, relu4_4, relu5_4 of VGG-19, and their channels.
LAYERS = (3, 8, 17, 26, 35)
CHANNELS = (64, 128, 256, 512, 512)
SEED = 0


def directions(count: int, channels: int, side: int, seed: int) -> Float[Tensor, "k c s s"]:
    """Random directions of length 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, channels, side, side, generator=generator)
    return drawn / torch.linalg.vector_norm(drawn, dim=(1, 2, 3), keepdim=True)


def sliced_distance(
    a: Float[Tensor, "n c h w"],
    b: Float[Tensor, "n c h w"],
    projections: Float[Tensor, "k c s s"],
    *,
    stride: int = 1,
    chunk: int | None = None,
) -> Float[Tensor, " n"]:
    """Mean distance of sorted projections of patches; `chunk` directions at once."""
    total = a.new_zeros(len(a))
    for some in projections.split(chunk or len(projections)):
        x, y = (F.conv2d(m, some, stride=stride).flatten(2).sort(dim=-1).values for m in (a, b))
        total = total + (x - y).abs().mean(dim=-1).sum(dim=-1)
    return total / len(projections)


def phases(spectrum: Complex[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Angles in (−π, π]; of numbers that are real but for rounding 0 or π, never −π."""
    rounding = 1e-6 * spectrum.abs().amax(dim=(-2, -1), keepdim=True)
    imaginary = torch.where(spectrum.imag.abs() > rounding, spectrum.imag, 0.0)
    return torch.complex(spectrum.real + 0.0, imaginary).angle()  # −0 + 0 = 0


class FrequencyDistributionLoss(nn.Module):
    """The loss of a section `fdl_opt` (Ni et al., CVPR 2024), for pairs that are not quite aligned.

    Features of VGG-19 at five depths are taken to their spectra. Amplitudes and phases are compared
    as sets, by the sliced Wasserstein distance: patches of a map are projected on random
    directions, the numbers of each direction are sorted, and mean |a − b| is taken: scale · Σ over
    layers of SWD(amplitudes) + phase_weight · SWD(phases). Maps smaller than a patch are left out.

    The directions are fixed by a seed, patch_size × patch_size × channels with length 1. Frames are
    compared one by one, so that neither the batch nor its share on a process changes a value.
    """

    def __init__(self, options: FrequencyDistributionOptions) -> None:
        """Read the weights.

        Raises:
            OptionsError: the file of weights is missing or cannot be used.
        """
        super().__init__()
        self.options, self.vgg = options, VGG19(options, "train.fdl_opt", LAYERS)
        for i, channels in enumerate(CHANNELS):
            drawn = directions(options.num_proj, channels, options.patch_size, SEED + i)
            self.register_buffer(f"projections{i}", drawn, persistent=False)

    def forward(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        pairs = zip(output.flatten(0, 1).split(1), truth.flatten(0, 1).split(1), strict=True)
        # What a frame needs for its gradient is computed again: memory is that of one frame.
        parts = [
            checkpoint(self._distances, *pair, use_reentrant=False, preserve_rng_state=False)
            for pair in pairs
        ]
        return self.options.scale_factor * reduced(torch.cat(parts), self.options.reduction)

    def _distances(
        self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        options, total = self.options, a.new_zeros(len(a))
        for i, maps in enumerate(zip(self.vgg(a), self.vgg(b), strict=True)):
            if min(maps[0].shape[-2:]) < options.patch_size:
                continue
            projections = self.get_buffer(f"projections{i}")
            x, y = (torch.fft.fft2(m) for m in maps)
            for part, weight in ((torch.abs, 1.0), (phases, options.phase_weight)):
                distance = sliced_distance(
                    part(x), part(y), projections, stride=options.stride, chunk=options.chunk_size
                )
                total = total + weight * distance
        return total


# ---- ConvNeXt


# Of ConvNeXt: blocks and channels of the four stages.
SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """See `torch.nn.LayerNorm`."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """x + scale · f(x): 7×7 per channel, normalisation, two layers per pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Rearrange("b c h w -> b h w c"),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Rearrange("b h w c -> b c h w"),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Features of the same shape."""
        return x + self.layer_scale * self.block(x)


class ConvNeXt(nn.Module):
    """The `features` of ConvNeXt (Liu et al., CVPR 2022), up to the last layer asked for.

    Layers are outputs of torchvision's `features[i]`: 0 the stem, 1, 3, 5, 7 the four stages, 2, 4,
    6 the reductions between them.
    """

    def __init__(self, size: str, wanted: tuple[int, ...]) -> None:
        super().__init__()
        depths, widths = SIZES[size]
        layers: list[nn.Module] = []
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i == 0:
                layers.append(nn.Sequential(nn.Conv2d(3, width, 4, 4), ChannelNorm(width)))
            else:
                before = widths[i - 1]
                layers.append(nn.Sequential(ChannelNorm(before), nn.Conv2d(before, width, 2, 2)))
            layers.append(nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth))))
        self.wanted, self.features = wanted, nn.Sequential(*layers[: max(wanted) + 1])

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Outputs of the wanted layers; h and w at least 32."""
        seen = []
        for layer in self.features:
            x = layer(x)
            seen.append(x)
        return [seen[place] for place in self.wanted]


class ConvNeXtLoss(nn.Module):
    """The loss of a section `convnext_opt`: Σ_i γⁱ · mean |a_i − b_i|, of features or style."""

    def __init__(self, options: ConvNeXtOptions) -> None:
        """Read the weights.

        Raises:
            OptionsError: the file of weights is missing or cannot be used.
        """
        super().__init__()
        self.options, self.colors = options, ImageNetColors()
        self.network = ConvNeXt(options.model_type, options.feature_layers)
        options.files("train.convnext_opt")[0].load(self.network)

    def forward(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        loss, seen = output.new_zeros(()), self._seen(output)
        with torch.no_grad():
            expected = self._seen(truth)
        for i, (a, b) in enumerate(zip(seen, expected, strict=True)):
            distance = reduced((a - b).abs(), self.options.reduction)
            loss = loss + self.options.layer_weight_decay**i * distance
        return loss

    def _seen(self, clips: Float[Tensor, "b t 3 h w"]) -> list[Float[Tensor, "n ..."]]:
        low, high = self.options.input_range
        frames = self.colors((clips.flatten(0, 1) - low) / (high - low))
        short = [max(32 - side, 0) for side in frames.shape[-2:]]
        if any(short):
            frames = F.pad(frames, (0, short[1], 0, short[0]), mode="replicate")
        features = self.network(frames)
        return [gram(f) for f in features] if self.options.use_gram else features
