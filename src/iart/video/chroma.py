"""Chroma planes to picture size and back, with the place of their samples respected.

Convention: with a step of `s`, chroma sample `i` lies at picture position `s·i + offset` (positions
of pixel centres, from 0). `offset` is 0 where samples share the first pixel's place ("left", MPEG-2
and all later codecs, horizontally) and `(s − 1)/2` where they lie between pixels ("centre": JPEG
and MPEG-1, and every codec vertically).

swscale is not used for this: through PyAV it takes every source as centred, which moves the colours
of most videos by half a pixel, two pixels after ×4.
"""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, empty
from torch.nn.functional import pad

Siting = Literal["left", "centre"]


def cubic(distance: float) -> float:
    """The Catmull-Rom kernel: 1 at 0, zero at other integers and beyond 2."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    if d < 2:
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return 0.0


def _stretch(x: Float[Tensor, "p h n"], size: int, step: int, offset: float) -> Tensor:
    """Last axis from `n` samples, `step` apart, to `size` pixels."""
    count = x.shape[-1]
    padded = pad(x, (2, 2), mode="replicate")
    out = empty(*x.shape[:-1], count * step, dtype=x.dtype, device=x.device)
    for phase in range(step):
        # pixel step·j + phase lies at j + whole + fraction in samples
        whole = math.floor((phase - offset) / step)
        fraction = (phase - offset) / step - whole
        terms = [
            weight * padded[..., 2 + whole + tap :][..., :count]
            for tap in range(-1, 3)
            if (weight := cubic(tap - fraction)) != 0
        ]
        out[..., phase::step] = sum(terms[1:], terms[0])
    return out[..., :size]


def _shrink(x: Float[Tensor, "p h n"], step: int, offset: float) -> Tensor:
    """Last axis from pixels to samples `step` apart; the kernel is widened to span them."""
    count = -(-x.shape[-1] // step)
    reach = 2 * step
    padded = pad(x, (reach, reach + step), mode="replicate")
    places = range(math.ceil(offset) - reach, math.floor(offset) + reach + 1)
    weights = {place: cubic((place - offset) / step) for place in places}
    total = sum(weights.values())
    terms = [
        weight / total * padded[..., reach + place :: step][..., :count]
        for place, weight in weights.items()
        if weight != 0
    ]
    return sum(terms[1:], terms[0])


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
        chroma = _stretch(chroma.mT, size[0], down, top).mT
    if right > 1:
        chroma = _stretch(chroma, size[1], right, left)
    return chroma


def downsample_chroma(
    planes: Float[Tensor, "p h w"], step: tuple[int, int], siting: Siting
) -> Float[Tensor, "p ch cw"]:
    """The inverse of `upsample_chroma`, without aliasing; sizes are rounded up."""
    (down, right), (top, left) = step, _offsets(step, siting)
    if right > 1:
        planes = _shrink(planes, right, left)
    if down > 1:
        planes = _shrink(planes.mT, down, top).mT
    return planes
