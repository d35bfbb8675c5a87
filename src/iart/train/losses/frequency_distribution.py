"""Frequency distribution loss, FDL (Ni et al., CVPR 2024), for pairs that are not quite aligned.

Features of VGG-19 at five depths are taken to their spectra. Amplitudes and phases are compared as
sets, by the sliced Wasserstein distance: patches of a map are projected on random directions, the
numbers of each direction are sorted, and mean |a − b| is taken: scale · Σ over layers of
SWD(amplitudes) + phase_weight · SWD(phases).

The directions are fixed by a seed, patch_size × patch_size × channels with length 1. Frames are
compared one by one, so that neither the batch nor its share on a process changes a value.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iart.train.losses.perceptual import VGG19
from iart.train.losses.pixel import reduced
from iart.train.options.losses import FrequencyDistributionOptions

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
    """The loss of a section `fdl_opt`; maps smaller than a patch are left out."""

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
