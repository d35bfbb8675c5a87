"""Dense optical flow by polynomial expansion, the yardstick of temporal measures.

Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003. Around each pixel
a frame is a polynomial p(u) = uᵀAu + bᵀu + c. A shift by d changes only b: b₂ = b₁ − 2Ad. So d
solves, in least squares over a window, A d = Δb with Δb = (b₁ − b₂)/2, where b₂ and A₂ are
read at the flow so far (which Δb takes back: Δb += A d̃) and A is the mean of both frames'.

Published temporal measures were computed with OpenCV, whose constants these are: 4 scales, each
half the one before, a window of 15×15, 3 rounds each, polynomials over 11×11 with σ 1.2. On video
frames of Vid4 the flow differs from OpenCV 5.0 by 4e-6 pixel on average, 4e-3 at most.

Convention: frames are `b h w` grey on the 0 … 255 scale; flow is `b 2 h w` in pixels, channel 0 = x
(right), 1 = y (down), from the first frame to where its pixels lie in the second.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from iart.resize import Band

SCALES = 4
LEAST_SIDE = 32  # pixels: scales at which a side is less are left out
ROUNDS = 3
WINDOW = 15  # pixels
RADIUS, SIGMA = 5, 1.2  # of the polynomials
BORDER = (0.14, 0.14, 0.4472, 0.4472, 0.4472)  # trust in the pixels next to an edge

# Coefficients of one scale, `b 5 h w`: b in y and x, A in yy and xx, the factor of xy.
Expansion = Float[Tensor, "b 5 _ _"]


def expand(frames: Float[Tensor, "b h w"]) -> list[Expansion]:
    """The polynomials of frames at every scale, finest first."""
    height, width = frames.shape[-2:]
    expansions: list[Expansion] = []
    for scale in (2.0**-level for level in range(SCALES)):
        if expansions and min(height, width) * scale < LEAST_SIDE:
            break
        size = round(height * scale), round(width * scale)
        smooth = _smoothing(width, scale).columns(_smoothing(height, scale).rows(frames))
        expansions.append(_polynomials(_resize(smooth[:, None], size)[:, 0]))
    return expansions


def flow(first: list[Expansion], second: list[Expansion]) -> Float[Tensor, "b 2 h w"]:
    """The flow between frames from what `expand` made of them."""
    found = first[0].new_zeros(first[0].shape[0], 2, 1, 1)
    for a, b in zip(reversed(first), reversed(second), strict=True):
        found = 2 * _resize(found, (a.shape[-2], a.shape[-1]))
        for _ in range(ROUNDS):
            found = _solve(a, b, found)
    return found


def _solve(a: Expansion, b: Expansion, flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h w"]:
    """One round: the displacement that least squares over the window gives."""
    height, width = flow.shape[-2:]
    x, y = (displacement[:, None] for displacement in flow.unbind(dim=1))
    column = x + torch.arange(width, device=flow.device)
    row = y + torch.arange(height, device=flow.device)[:, None]
    grid = torch.cat([2 * column / max(width - 1, 1) - 1, 2 * row / max(height - 1, 1) - 1], dim=1)
    moved = F.grid_sample(b, grid.movedim(1, -1), padding_mode="border", align_corners=True)
    inside = (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    # What lies outside has the shape of the pixel itself and no slope.
    moved = torch.where(inside, moved, torch.cat([torch.zeros_like(a[:, :2]), a[:, 2:]], dim=1))
    slope_y, slope_x = ((a - moved) / 2)[:, :2].split(1, dim=1)
    yy, xx, xy = ((a + moved) / 2)[:, 2:].split(1, dim=1)
    xy = xy / 2
    delta_y = slope_y + yy * y + xy * x
    delta_x = slope_x + xy * y + xx * x
    # AᵀA and AᵀΔb of each pixel, then their means over the window.
    trust = (_trust(height)[:, None] * _trust(width)).square().to(flow)
    products = [
        yy * yy + xy * xy,
        (yy + xx) * xy,
        xx * xx + xy * xy,
        yy * delta_y + xy * delta_x,
        xy * delta_y + xx * delta_x,
    ]
    sums = torch.cat(products, dim=1) * trust
    sums = _mean(width).columns(_mean(height).rows(sums))
    g_yy, g_xy, g_xx, h_y, h_x = sums.split(1, dim=1)
    determinant = g_yy * g_xx - g_xy * g_xy + 1e-3
    return torch.cat([g_yy * h_x - g_xy * h_y, g_xx * h_y - g_xy * h_x], dim=1) / determinant


def _polynomials(frames: Float[Tensor, "b h w"]) -> Expansion:
    """Least-squares polynomials under a Gaussian weight g; separable: 1, x and x² times g."""
    height, width = frames.shape[-2:]
    one, along, square = (_moment(height, power).rows(frames) for power in range(3))
    across = [_moment(width, power) for power in range(3)]
    # The six products of moments that the polynomial needs, and the dual basis that makes them
    # coefficients: 1 and u² are not orthogonal under g, the others are.
    constant, x, xx = (band.columns(one) for band in across)
    y, xy = (band.columns(along) for band in across[:2])
    yy = across[0].columns(square)
    m2, m4 = _gaussian_moment(2), _gaussian_moment(4)
    dual_square = 1 / (m4 - m2 * m2)
    return torch.stack(
        [
            y / m2,
            x / m2,
            (yy - m2 * constant) * dual_square,
            (xx - m2 * constant) * dual_square,
            xy / (m2 * m2),
        ],
        dim=1,
    )


def _gaussian() -> Float[Tensor, " taps"]:
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    return weights / weights.sum()


def _gaussian_moment(power: int) -> float:
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    return float((_gaussian() * offsets**power).sum())


@lru_cache(maxsize=64)
def _moment(size: int, power: int) -> Band:
    """Σ g(k) k^power · input[i + k], the edge's value beyond the edge."""
    offsets = torch.arange(-RADIUS, RADIUS + 1)
    return _filter(size, offsets, _gaussian() * offsets.double() ** power)


@lru_cache(maxsize=16)
def _mean(size: int) -> Band:
    offsets = torch.arange(WINDOW) - WINDOW // 2
    return _filter(size, offsets, torch.full((WINDOW,), 1 / WINDOW, dtype=torch.float64))


def _filter(size: int, offsets: Int[Tensor, " taps"], weights: Float[Tensor, " taps"]) -> Band:
    indices = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return Band.from_taps(indices, weights.expand(indices.shape))


@lru_cache(maxsize=32)
def _smoothing(size: int, scale: float) -> Band:
    """The Gaussian before a reduction to `scale`; mirrored at the edges, their pixel once."""
    sigma = (1 / scale - 1) / 2
    taps = max(3, round(5 * sigma) | 1)
    offsets = torch.arange(taps) - taps // 2
    if sigma == 0:
        weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    else:
        weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    indices = torch.arange(size)[:, None] + offsets
    period = max(2 * (size - 1), 1)
    indices = torch.minimum(indices % period, -indices % period)
    return Band.from_taps(indices, (weights / weights.sum()).expand(indices.shape))


@lru_cache(maxsize=32)
def _trust(size: int) -> Float[Tensor, " size"]:
    """Weight of each pixel along one axis, less next to the edges."""
    trust = torch.ones(size)
    for distance, weight in list(enumerate(BORDER))[: math.ceil(size / 2)]:
        trust[distance] *= weight
        trust[size - 1 - distance] *= weight
    return trust


def _resize(maps: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
