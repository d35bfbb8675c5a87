"""Distances of pixels, of their changes over time, and of their spectra.

Charbonnier's (Charbonnier et al., ICIP 1994; Lai et al., CVPR 2017) is √(d² + ε): L1 with a round
tip.
"""

from collections.abc import Callable
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from iart.model.flow import SpyNet, warp
from iart.train.options.losses import (
    FFTLossOptions,
    FocalFrequencyOptions,
    PixelLossOptions,
    TemporalOptions,
)


def reduced(
    values: Float[Tensor, "*shape"], reduction: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Mean or sum of all values."""
    return values.mean() if reduction == "mean" else values.sum()


def pixel_loss(options: PixelLossOptions) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a section's `type` names."""
    distance: Callable[[Tensor], Tensor] = {
        "CharbonnierLoss": lambda d: (d**2 + options.eps).sqrt(),
        "L1Loss": torch.abs,
        "MSELoss": torch.square,
    }[options.type]
    return lambda output, truth: reduced(distance(output - truth), options.reduction)


class TemporalLoss:
    """The loss of a section `temporal_opt`; 0 for clips of one frame.

    It is that of pixels' changes, mean |(x_t − W x_{t−1}) − (y_t − W y_{t−1})|, which is flicker
    (ours): x is the output, y the ground truth; W brings a frame to the next along the ground
    truth's motion, so that what the ground truth itself changes, and what it uncovers, costs
    nothing. After Lai et al., ECCV 2018, who compare an output's neighbours only with each other.
    """

    def __init__(self, options: TemporalOptions, flow: SpyNet) -> None:
        """Motion is what `flow`, the run's own network, sees in the ground truth."""
        self._options, self._flow = options, flow

    def __call__(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        if output.shape[1] == 1:
            return output.new_zeros(())
        with torch.no_grad():
            flow = self._flow(truth[:, 1:].flatten(0, 1), truth[:, :-1].flatten(0, 1))
        error = output - truth
        moved = warp(error[:, :-1].flatten(0, 1), flow, "border")
        return reduced((error[:, 1:].flatten(0, 1) - moved).abs(), self._options.reduction)


# ---- spectra


def spectral(
    d: Float[Tensor, "*b h w"], *, highpass: float = 0.0, lowpass: float = 0.0
) -> Float[Tensor, "*b h w 2"]:
    """|Re m F(d)| and |Im m F(d)| at every frequency; a cutoff of 0 is no filter."""
    spectrum = torch.fft.fft2(d)
    if highpass or lowpass:
        y, x = (2 * torch.fft.fftfreq(n, device=d.device) for n in d.shape[-2:])
        squared_radius = y[:, None] ** 2 + x**2
        if highpass:
            spectrum = spectrum * (1 - torch.exp(-squared_radius / (2 * highpass**2)))
        if lowpass:
            spectrum = spectrum * torch.exp(-squared_radius / (2 * lowpass**2))
    return torch.view_as_real(spectrum).abs()


class FFTLoss:
    """The loss of a section `fft_opt`, `fft_high_opt` or `fft_low_opt`.

    Mean of |Re m F(d)| and |Im m F(d)|, d = output − truth (after Cho et al., ICCV 2021). F is the
    Fourier transform of a frame, m a filter on its spectrum: exp(−r²/2c²) lets low frequencies
    pass, 1 − exp(−r²/2c²) high ones. r is the distance from frequency 0 in units of Nyquist's, so
    that r = 1 is the finest stripe along an axis; c is the cutoff.
    """

    def __init__(self, options: FFTLossOptions) -> None:
        """See `FFTLossOptions`."""
        self._options = options

    def __call__(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        options = self._options
        parts = spectral(
            output - truth, highpass=options.highpass_cutoff, lowpass=options.lowpass_cutoff
        )
        return reduced(parts, options.reduction)


class FocalFrequencyLoss:
    """The loss of a section `focal_freq_opt`; the frames of clips count as pictures.

    Mean of w |F(d)|², F the orthonormal transform of a patch (Jiang et al., ICCV 2021). The weights
    w = |F(d)|^α, or log(1 + |F(d)|^α), are divided by their maximum, which makes them 1 at the
    frequency that is furthest off; they have no gradient of their own.
    """

    def __init__(self, options: FocalFrequencyOptions) -> None:
        """See `FocalFrequencyOptions`."""
        self._options = options

    def __call__(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch; pixels beyond a whole number of patches are left out."""
        options, n = self._options, self._options.patch_factor
        difference = (output - truth).flatten(0, 1)
        height, width = (side // n * n for side in difference.shape[-2:])
        patches = rearrange(
            difference[..., :height, :width], "b c (i h) (j w) -> b (i j) c h w", i=n, j=n
        )
        spectrum = torch.view_as_real(torch.fft.fft2(patches, norm="ortho"))
        if options.ave_spectrum:
            spectrum = spectrum.mean(dim=0, keepdim=True)
        squared = (spectrum**2).sum(dim=-1)
        with torch.no_grad():
            weights = squared.sqrt() ** options.alpha
            if options.log_matrix:
                weights = weights.log1p()
            greatest = weights.max() if options.batch_matrix else weights.amax((-2, -1), True)
            weights = (weights / greatest).nan_to_num(nan=0.0).clamp(0, 1)
        return (weights * squared).mean()
