"""Alignment: features brought to the current frame along flow (IART §3.2)."""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from iart.device import computed_in
from iart.model.conv import Linear
from iart.model.flow import warp
from iart.model.kernels import SNAP, gpu_operators
from iart.model.kernels.dispatch import BACKENDS, resample, suits_triton
from iart.model.kernels.plain import CELLS

INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
ALIGNMENTS = ("implicit", *INTERPOLATIONS)
"""What `IARTConfig.alignment` may be; all but the first are the ablations of IART §4.3."""

# Base of the encoding's wavelengths; below 1, so later channels turn faster.
TEMPERATURE = 0.01
FRACTIONS = 2.0  # extent of the encoding of places inside the 2×2 cells
# On the CPU, so many pixels are resampled together: what that takes fits into the cache.
PIXELS_AT_ONCE = 2**15


def frequencies(
    channels: int,
    extent: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, " {channels}/4"]:
    """By which `sine_encoding` multiplies a coordinate: for each pair of sine and cosine."""
    half = channels // 2
    j = torch.arange(0, half, 2, device=device, dtype=dtype)
    return 2 * math.pi / (extent + 1e-6) / TEMPERATURE ** (j / half)


def sine_encoding(
    position: Float[Tensor, "*b 2"], channels: int, extent: float
) -> Float[Tensor, "*b {channels}"]:
    """Sine encoding of (y, x): the first half of the channels from y, the last from x.

    angle_j = coordinate / (extent + 1e-6) · 2π / T^(2⌊j/2⌋ / (C/2)), sine for even j and cosine
    for odd j, j = 0 … C/2 − 1.
    """
    frequency = frequencies(channels, extent, dtype=position.dtype, device=position.device)
    angle = position[..., None] * frequency  # *b 2 half/2
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)


class ImplicitAlign(nn.Module):
    """Resample features at p + flow by attention instead of interpolation.

    out(p) = Σ_i softmax_i( Q(current(p) + E(fraction)) · K(source[cell_i] + P_i) / √(C/n) )
             V(source[cell_i] + P_i)

    with cell_i = ⌊p + flow⌋ + CELLS[i], clamped to the map, `fraction` = p + flow − ⌊p + flow⌋, and
    P, E the sine encodings of a cell's and the position's place inside the 2×2 cells.

    Q, K and V are affine, so K(source[cell] + P) = K(source)[cell] + W_K·P: each pixel is projected
    once and gathered after, not four times. The fraction is taken from the flow alone, which is
    exact and independent of where in the picture a tile lies; the release takes it from p + flow.
    """

    position_bias: Float[Tensor, "1 4 c"]
    frequency: Float[Tensor, " _"]

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads or channels % 4:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads}) and by 4")
        self.heads = heads
        self.backend = BACKENDS[0]
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels)
        self.value = Linear(channels, channels)
        cells = sine_encoding(torch.tensor(CELLS, dtype=torch.float32), channels, extent=1.0)
        self.register_buffer("position_bias", cells[None], persistent=False)
        self.register_buffer("frequency", frequencies(channels, FRACTIONS), persistent=False)

    def forward(
        self,
        source: Float[Tensor, "f h w c"],
        current: Float[Tensor, "b h w c"],
        flow: Float[Tensor, "f 2 h w"],
    ) -> Float[Tensor, "f h w c"]:
        """Bring `source` to the place of `current`; flow in pixels, channel 0 = x.

        There may be several sources for each current map: f is a multiple of b.
        """
        if self.is_launched(source, current, flow):
            return self._launched(source, current, flow)
        if len(current) < len(source):
            current = current.repeat(len(source) // len(current), 1, 1, 1)
        b, h, w, c = source.shape
        key, value = self.key(source).view(b * h * w, c), self.value(source).view(b * h * w, c)
        flow = rearrange(flow, "b d h w -> (b h w) d").flip(-1)  # (y, x)
        at_once = len(flow)
        if flow.device.type == "cpu" and not torch.is_grad_enabled():
            at_once = PIXELS_AT_ONCE
        pieces = zip(
            current.reshape(b * h * w, c).split(at_once),
            flow.split(at_once),
            torch.arange(len(flow), device=flow.device).split(at_once),
            strict=True,
        )
        moved = [self._resample(key, value, (h, w), *piece) for piece in pieces]
        return (moved[0] if len(moved) == 1 else torch.cat(moved)).view(b, h, w, c)

    def is_launched(self, *inputs: Tensor) -> bool:
        """Whether Triton's kernels align these: then several sources at once cost least."""
        weights = (x.weight for x in (self.query, self.key, self.value))
        return suits_triton(self.backend, *inputs, *weights)

    def _launched(
        self,
        source: Float[Tensor, "f h w c"],
        current: Float[Tensor, "b h w c"],
        flow: Float[Tensor, "f 2 h w"],
    ) -> Float[Tensor, "f h w c"]:
        """On a GPU, where all that is not a matrix product is two launches."""
        dtype = computed_in(current)
        query = self.query(gpu_operators.encode(current, flow, self.frequency, dtype))
        key, value = self.key(source).flatten(0, 2), self.value(source).flatten(0, 2)
        biases = (self.position_bias[0] @ x.weight.T for x in (self.key, self.value))
        moved = gpu_operators.align(query, key, value, *biases, flow, self.heads)
        return moved.view(source.shape)

    def _resample(
        self,
        key: Float[Tensor, "r c"],
        value: Float[Tensor, "r c"],
        size: tuple[int, int],
        current: Float[Tensor, "p c"],
        flow: Float[Tensor, "p 2"],
        places: Int[Tensor, " p"],
    ) -> Float[Tensor, "p c"]:
        """Some of the pixels; flow is (y, x)."""
        p, c = current.shape
        n = self.heads
        floor = (flow + SNAP).floor()
        fraction = sine_encoding(flow - floor, c, extent=FRACTIONS)
        query = self.query(current + fraction.to(current.dtype)) * (c // n) ** -0.5
        query = query.view(p, n, c // n)
        # What the encoding P adds to keys and values is the same for every pixel.
        key_bias = (self.position_bias[0] @ self.key.weight.T).to(query.dtype)
        value_bias = (self.position_bias[0] @ self.value.weight.T).to(query.dtype)
        biases = key_bias, value_bias
        return resample(query, key, value, biases, floor, places, size, self.backend)


class InterpolatedAlign(nn.Module):
    """Resample features at p + flow by interpolation, which has nothing to learn (an ablation).

    Positions outside the map take its border, as `ImplicitAlign` does. Without flow the source
    comes back as it is.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(
        self,
        source: Float[Tensor, "b h w c"],
        current: Float[Tensor, "b h w c"],
        flow: Float[Tensor, "b 2 h w"],
    ) -> Float[Tensor, "b h w c"]:
        """Bring `source` along the flow (pixels, channel 0 = x); `current` is not looked at."""
        moved = warp(rearrange(source, "b h w c -> b c h w").to(flow), flow, "border", self.mode)
        return rearrange(moved, "b c h w -> b h w c").to(current.dtype)


Align = ImplicitAlign | InterpolatedAlign
