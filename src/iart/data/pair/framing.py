"""Where the picture of one disc lies on that of the other, and how far off it is.

Convention: positions are (x, y) shares of the active picture: 0 at its left or upper edge, 1 at the
other. A framing maps positions on the DVD to positions on the Blu-ray, each axis by itself:

    x' = scale_x · x + shift_x        y' = scale_y · y + shift_y

It is found by Gauss and Newton's method on the squared difference of band-passed pictures, with a
gain of the Blu-ray's contrast, which has the same optimum as the correlation (ECC) of the two.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_STEPS = 12
_CONVERGED = 1e-3  # pixels
_BLOCK = 24  # outputs of a Gaussian that are computed together
_REACH = 4  # standard deviations of a Gaussian; what is farther off has no weight
_COARSER = 0.625  # standard deviations between the few pixels that a low-pass goes through
_SECOND = 0.5  # of a low-pass's standard deviation: that of its second Gaussian
_MARGIN = 0.04  # of the picture at either edge that has no say


class Framing(NamedTuple):
    """See above; without arguments both show the same."""

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0

    def distance(self, other: "Framing", width: int, height: int) -> float:
        """The mean over the picture of how far two framings lie apart, in pixels of a size."""
        x, y = np.linspace(0, 1, 9)[None], np.linspace(0, 1, 9)[:, None]
        dx = (self.scale_x - other.scale_x) * x + self.shift_x - other.shift_x
        dy = (self.scale_y - other.scale_y) * y + self.shift_y - other.shift_y
        return float(np.hypot(dx * width / self.scale_x, dy * height / self.scale_y).mean())

    def limits(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom on the DVD of what both discs show."""
        left, top = -self.shift_x / self.scale_x, -self.shift_y / self.scale_y
        right, bottom = (1 - self.shift_x) / self.scale_x, (1 - self.shift_y) / self.scale_y
        return max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)


def framings(dvd_aspect: float, bluray_aspect: float) -> list[Framing]:
    """What may be at first sight, by the shapes of the active pictures.

    Where they differ, one disc shows more at the sides, or the other at top and bottom.
    """
    ratio = dvd_aspect / bluray_aspect
    if abs(math.log(ratio)) < 0.08:
        return [Framing()]
    sides = Framing(scale_x=ratio, shift_x=(1 - ratio) / 2)
    return [sides, Framing(scale_y=1 / ratio, shift_y=(1 - 1 / ratio) / 2), Framing()]


def median(found: list[Framing]) -> Framing:
    """Of each number."""
    return Framing(*np.median(np.array(found), axis=0).tolist())


@lru_cache(maxsize=32)
def _axis(
    outputs: int, inputs: int, scale: float, shift: float, sigma: float
) -> list[tuple[slice, slice, np.ndarray]]:
    """A Gaussian of `sigma` inputs around the place of each output; weights of one sum to 1.

    Successive outputs share a block: [(outputs, inputs that have weight, weights)].
    """
    centre = (scale * (np.arange(outputs) + 0.5) / outputs + shift) * inputs - 0.5
    centre = np.clip(centre, -0.5, inputs - 0.5)
    blocks = []
    for first in range(0, outputs, _BLOCK):
        near = centre[first : first + _BLOCK, None]
        low = max(0, math.floor(near.min() - _REACH * sigma))
        high = min(inputs, math.ceil(near.max() + _REACH * sigma) + 1)
        weights = np.exp(-0.5 * ((np.arange(low, high) - near) / sigma) ** 2)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        blocks.append((slice(first, first + len(near)), slice(low, high), weights))
    return blocks


def seen(
    pictures: Float[np.ndarray, "n h w"],
    framing: Framing,
    size: tuple[int, int],
    sigma: float = 0.7,
) -> Float[np.ndarray, "n h2 w2"]:
    """Pictures of the Blu-ray as the DVD frames them, at a size, smoothed by `sigma` pixels."""
    count, height, width = pictures.shape
    rows = _axis(size[0], height, framing.scale_y, framing.shift_y, sigma * height / size[0])
    columns = _axis(size[1], width, framing.scale_x, framing.shift_x, sigma * width / size[1])
    lines = np.empty((count, size[0], width), np.float32)
    for outputs, inputs, weights in rows:
        np.matmul(weights, pictures[:, inputs], out=lines[:, outputs])
    result = np.empty((count, *size), np.float32)
    for outputs, inputs, weights in columns:
        np.matmul(lines[:, :, inputs], weights.T, out=result[:, :, outputs])
    return result


def band_passed(pictures: Float[np.ndarray, "n h w"], sigma: float) -> Float[np.ndarray, "n h w"]:
    """Pictures less what is coarser than `sigma` pixels, without mean."""
    height, width = pictures.shape[1:]
    # two Gaussians in a row are one: the first gives few pixels, the second all of them again
    step = max(1.0, _COARSER * sigma)
    few = math.ceil(height / step), math.ceil(width / step)
    first, second = sigma / step * math.sqrt(1 - _SECOND**2), sigma * _SECOND
    coarse = seen(pictures, Framing(), few, first)
    detail = pictures - seen(coarse, Framing(), (height, width), second)
    return detail - detail.mean(axis=(1, 2), keepdims=True)


def similarity(
    a: Float[np.ndarray, "*n h w"], b: Float[np.ndarray, "*n h w"]
) -> Float[np.ndarray, "*n"]:
    """Correlation of pictures without mean: 1 if equal but for contrast; 0 if one is flat."""
    product, squares_a, squares_b = (
        np.einsum("...ij,...ij->...", first, second) for first, second in ((a, b), (a, a), (b, b))
    )
    norm = np.sqrt(squares_a * squares_b)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 1e-6)


def register(
    dvd: Float[np.ndarray, "h w"], bluray: Float[np.ndarray, "h2 w2"], start: Framing
) -> Framing | None:
    """The framing of two pictures of one moment, near a first one; None if it is not found.

    Args:
        dvd: luma.
        bluray: luma, about as large.
        start: off by a few pixels at most.
    """
    height, width = dvd.shape
    sigma = max(height, width) / 16
    target = band_passed(seen(dvd[None], Framing(), dvd.shape), sigma)[0]
    inner = _inner(height, width)
    y, x = ((np.indices(dvd.shape, np.float32)[:, *inner] + 0.5).reshape(2, -1).T / dvd.shape).T
    now = start
    for _ in range(_STEPS):
        moved = band_passed(seen(bluray[None], now, dvd.shape), sigma)[0]
        moved *= max(0.1, (moved * target).sum() / max((moved * moved).sum(), 1e-6))
        slope_y, slope_x = (slope[inner].ravel() for slope in np.gradient(moved))
        slope_x, slope_y = slope_x * width, slope_y * height
        # slopes are along the DVD's axes: of the change of the framing, over its scale
        columns = np.stack((x * slope_x, slope_x, y * slope_y, slope_y, moved[inner].ravel()))
        left = target[inner].ravel() - moved[inner].ravel()
        normal = (columns @ columns.T).astype(np.float64)
        if np.linalg.cond(normal / np.sqrt(np.outer(*2 * [normal.diagonal() + 1e-12]))) > 1e6:
            return None
        step: np.ndarray = np.linalg.solve(normal, columns @ left)
        scale_x, shift_x, scale_y, shift_y = step[:4] * np.repeat((now.scale_x, now.scale_y), 2)
        before, now = (
            now,
            Framing(
                now.scale_x + scale_x,
                now.shift_x + shift_x,
                now.scale_y + scale_y,
                now.shift_y + shift_y,
            ),
        )
        if not (0.3 < now.scale_x < 3 and 0.3 < now.scale_y < 3):
            return None
        if now.distance(before, width, height) < _CONVERGED:
            return now
    return None


def offsets(
    dvd: Float[np.ndarray, "n h w"], moved: Float[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n 2"]:
    """By how many pixels (x, y) each band-passed picture is still off, by one linear step."""
    inner = _inner(*dvd.shape[1:])
    found = np.empty((len(dvd), 2))
    for n, (a, b) in enumerate(zip(dvd, moved, strict=True)):
        slope_y, slope_x = np.gradient((a + b) / 2)
        slopes = np.stack([part[inner].ravel() for part in (slope_x, slope_y, b, a - b)])
        products = (slopes @ slopes.T).astype(np.float64)
        normal = products[:3, :3] + 1e-6 * np.eye(3)
        found[n] = np.linalg.solve(normal, products[:3, 3])[:2]
    return found


def _inner(height: int, width: int) -> tuple[slice, slice]:
    y, x = math.ceil(_MARGIN * height), math.ceil(_MARGIN * width)
    return slice(y, height - y), slice(x, width - x)
