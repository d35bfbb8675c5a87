"""Distances of Fourier coefficients, of all, of those behind a filter, and of those furthest off.

`FFTLoss`: mean of |Re m F(d)| and |Im m F(d)|, d = output − truth (after Cho et al., ICCV 2021). F
is the Fourier transform of a frame, m a filter on its spectrum: exp(−r²/2c²) lets low frequencies
pass, 1 − exp(−r²/2c²) high ones. r is the distance from frequency 0 in units of Nyquist's, so that
r = 1 is the finest stripe along an axis; c is the cutoff.

`FocalFrequencyLoss` (Jiang et al., ICCV 2021): mean of w |F(d)|², F the orthonormal transform of a
patch. The weights w = |F(d)|^α, or log(1 + |F(d)|^α), are divided by their maximum, which makes
them 1 at the frequency that is furthest off; they have no gradient of their own.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from iart.train.losses.pixel import reduced
from iart.train.options.losses import FFTLossOptions, FocalFrequencyOptions


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
    """The loss of a section `fft_opt`, `fft_high_opt` or `fft_low_opt`."""

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
    """The loss of a section `focal_freq_opt`; the frames of clips count as pictures."""

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
