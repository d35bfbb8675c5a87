"""Chroma planes to picture size and back, with the place of their samples respected.

Convention: with a step of `s`, chroma sample `i` lies at picture position `s·i + offset` (positions
of pixel centres, from 0). `offset` is 0 where samples share the first pixel's place ("left", MPEG-2
and all later codecs, horizontally) and `(s − 1)/2` where they lie between pixels ("centre": JPEG
and MPEG-1, and every codec vertically).

swscale is not used for this: through PyAV it takes every source as centred, which moves the colours
of most videos by half a pixel, two pixels after ×4.
"""

import math
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Siting = Literal["left", "centre"]

CHROMA_REACH = 2
"""Samples beyond a picture's border, or a strip's, that those within depend on, at most."""


def cubic(distance: float) -> float:
    """The Catmull-Rom kernel: 1 at 0, zero at other integers and beyond 2."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    if d < 2:
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return 0.0


def _stretch(x: Float[Tensor, "p h w"], axis: int, size: int, step: int, offset: float) -> Tensor:
    """An axis from samples, `step` apart, to `size` pixels."""
    count = x.shape[axis]
    extended = _extend(x, axis, CHROMA_REACH, CHROMA_REACH)
    phases = []
    for phase in range(step):
        # pixel step·j + phase lies at j + whole + fraction in samples
        whole = math.floor((phase - offset) / step)
        fraction = (phase - offset) / step - whole
        terms = (
            extended.narrow(axis, CHROMA_REACH + whole + tap, count) * weight
            for tap in range(-1, 3)
            if (weight := cubic(tap - fraction)) != 0
        )
        phases.append(reduce(Tensor.add_, terms))
    return torch.stack(phases, axis).flatten(axis - 1, axis).narrow(axis, 0, size)


def _extend(x: Float[Tensor, "p h n"], axis: int, before: int, after: int) -> Tensor:
    """Repeat the first and the last sample of an axis (many times faster than `pad` on columns)."""
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([*[first] * before, x, *[last] * after], axis)


def _shrink(x: Float[Tensor, "p h w"], axis: int, step: int, offset: float) -> Tensor:
    """An axis from pixels to samples `step` apart; the kernel is widened to span them."""
    count = -(-x.shape[axis] // step)
    reach = CHROMA_REACH * step
    extended = _extend(x, axis, reach, reach + step * count - x.shape[axis])
    # every `step`-th pixel, beside each other: each is read several times, and vectors have no gaps
    phases = [phase.contiguous() for phase in extended.unflatten(axis, (-1, step)).unbind(axis)]
    places = range(math.ceil(offset) - reach, math.floor(offset) + reach + 1)
    weights = {place: cubic((place - offset) / step) for place in places}
    whole = sum(weights.values())
    terms = (
        phases[(reach + place) % step].narrow(axis, (reach + place) // step, count)
        * (weight / whole)
        for place, weight in weights.items()
        if weight != 0
    )
    return reduce(Tensor.add_, terms)


def _offsets(step: tuple[int, int], siting: Siting) -> tuple[float, float]:
    down, right = step
    return (down - 1) / 2, 0.0 if siting == "left" else (right - 1) / 2


def upsample_chroma(
    chroma: Float[Tensor, "p ch cw"], size: tuple[int, int], step: tuple[int, int], siting: Siting
) -> Float[Tensor, "p h w"]:
    """Chroma planes at every pixel of a picture of `size` (h, w), by Catmull-Rom interpolation.

    Args:
        chroma: planes whose samples lie `step` (down, right) pixels apart.
        size: of the picture; at most `step` times the planes' size.
        step: (2, 2) for 4:2:0, (1, 2) for 4:2:2, (1, 1) for 4:4:4.
        siting: where samples lie horizontally; vertically they are centred.
    """
    (down, right), (top, left) = step, _offsets(step, siting)
    if down > 1:
        chroma = _stretch(chroma, -2, size[0], down, top)
    if right > 1:
        chroma = _stretch(chroma, -1, size[1], right, left)
    return chroma


def downsample_chroma(
    planes: Float[Tensor, "p h w"], step: tuple[int, int], siting: Siting
) -> Float[Tensor, "p ch cw"]:
    """The inverse of `upsample_chroma`, without aliasing; sizes are rounded up."""
    (down, right), (top, left) = step, _offsets(step, siting)
    if right > 1:
        planes = _shrink(planes, -1, right, left)
    if down > 1:
        planes = _shrink(planes, -2, down, top)
    return planes
