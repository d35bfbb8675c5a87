"""What happens to a picture before it is digital: edge enhancement, grain, and a video recorder.

Convention: luma `m h w` and chroma `m 2 h w` in units of [0, 1] and ±0.5, of `m` moments.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.degradation.parameters import Grain, Sharpening, Tape
from iart.pictures.resize import resampling

Luma = Float[Tensor, "m h w"]
Chroma = Float[Tensor, "m 2 h w"]

# A line of 720 samples is 4/3 of the picture's height; two samples hold one period.
_CYCLES_PER_LINE = 4 / 3 / 2 / 720
# NTSC's colour carrier, 3.58 MHz at 13.5 MHz; half a period later in every line and picture.
_CARRIER = 3.579545 / 13.5


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Noise of standard deviation 1."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def blurred_rows(image: Float[Tensor, "*b h w"], sigma: float) -> Float[Tensor, "*b h w"]:
    """Along the width, by a Gaussian."""
    size = image.shape[-1]
    return resampling(size, size, "gauss", max(round(sigma, 2), 0.05)).columns(image)


def blurred_columns(image: Float[Tensor, "*b h w"], sigma: float) -> Float[Tensor, "*b h w"]:
    """Along the height, by a Gaussian."""
    size = image.shape[-2]
    return resampling(size, size, "gauss", max(round(sigma, 2), 0.05)).rows(image)


def sharpen(luma: Luma, how: Sharpening) -> Luma:
    """Edge enhancement, which leaves halos."""
    across, down = torch.zeros(()), torch.zeros(())
    if how.amount_x:
        across = how.amount_x * (luma - blurred_rows(luma, how.radius))
    if how.amount_y:
        down = how.amount_y * (luma - blurred_columns(luma, how.radius))
    return luma + across + down


def add_grain(luma: Luma, how: Grain, rng: np.random.Generator) -> Luma:
    """Noise of film: none in black, least in white."""
    noise = normal(rng, *luma.shape)
    if how.size:
        noise = blurred_columns(blurred_rows(noise, how.size), how.size)
        noise = noise / noise.std().clamp(min=1e-3)
    middle = (4 * luma * (1 - luma)).clamp(0, 1).sqrt()
    return luma + how.strength / 255 * noise * (0.3 + 0.7 * middle)


def low_pass(image: Float[Tensor, "*b h w"], lines: float) -> Float[Tensor, "*b h w"]:
    """Along the width, so that a period of `lines` per picture height has half its height left."""
    cutoff = lines * _CYCLES_PER_LINE
    return blurred_rows(image, math.sqrt(math.log(2) / 2) / (math.pi * cutoff))


def shifted_rows(
    image: Float[Tensor, "*b h w"], shift: Float[Tensor, "*b h"]
) -> Float[Tensor, "*b h w"]:
    """Every line moved to the right by its own number of pixels, linearly interpolated."""
    width = image.shape[-1]
    place = torch.arange(width) - shift[..., None]
    whole = place.floor()
    left = whole.long().clamp(0, width - 1)
    right = (whole.long() + 1).clamp(0, width - 1)
    return torch.lerp(image.gather(-1, left), image.gather(-1, right), place - whole)


def dots(chroma: Chroma) -> Luma:
    """What a decoder leaves of the colour carrier in luma, where colours change.

    Composite video adds colours to luma on a carrier. A comb filter takes the mean of two lines,
    in which it is opposite, a notch takes its frequency out: neither takes all where colours end.
    """
    m, _, h, w = chroma.shape
    y, x = torch.arange(h)[:, None], torch.arange(w)
    phase = 2 * math.pi * _CARRIER * x + math.pi * (y + torch.arange(m)[:, None, None])
    carried = chroma[:, 0] * phase.sin() + chroma[:, 1] * phase.cos()
    comb = (carried + carried.roll(1, -2)) / 2
    comb[:, 0] = 0
    change = (chroma[..., 1:] - chroma[..., :-1]).abs().sum(dim=1)
    edge = blurred_rows(torch.cat((change, change[..., -1:]), dim=-1), 2.0)
    return comb + phase.sin() * edge


def play_tape(
    luma: Luma, chroma: Chroma, how: Tape, rng: np.random.Generator
) -> tuple[Luma, Chroma]:
    """Record and play: bandwidth, delay, noise, jitter, dot crawl, and torn rows at the bottom."""
    m, h, w = luma.shape
    crawl = how.dot_crawl * dots(chroma) if how.dot_crawl else torch.zeros(())
    luma, chroma = low_pass(luma, how.luma_lines), low_pass(chroma, how.chroma_lines)
    if how.luma_noise:
        noise = blurred_rows(normal(rng, m, h, w), 0.8)
        luma = luma + how.luma_noise / 255 * noise / noise.std()
    if how.chroma_noise:
        noise = blurred_rows(normal(rng, m, 2, h, w), 5.0)
        chroma = chroma + how.chroma_noise / 255 * noise / noise.std()
    luma = luma + crawl
    jitter = how.jitter * normal(rng, m, h)
    if how.head_switching:
        rows = min(how.head_switching, h)
        tear = torch.linspace(0, 1, rows) ** 2 * (8 + 24 * abs(float(normal(rng, 1))))
        jitter[:, h - rows :] += tear
    luma = shifted_rows(luma, jitter)
    delay = (jitter + how.chroma_delay_x)[:, None].expand(m, 2, h)
    chroma = shifted_rows(chroma, delay)
    if how.chroma_delay_y:
        down = torch.full((m, 2, w), how.chroma_delay_y)
        chroma = shifted_rows(chroma.mT, down).mT
    return luma, chroma
