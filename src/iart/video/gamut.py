"""The same light by other red, green and blue: from one set of primaries to another.

Numbers become light by the curve of a display, are mixed by a 3×3 matrix, and go back by the same
curve, so that greys keep their numbers. What the new primaries cannot make is clipped.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError

# x, y of red, green and blue, by FFmpeg's number (ITU-T H.273); all with white D65
_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
_WHITE = (0.3127, 0.3290)

TELEVISION = frozenset({1, 4, 5, 6, 7, 14, 15})
"""Transfers that all televisions show alike (ITU-R BT.1886), whatever camera curve they name."""

_EXPONENTS = dict.fromkeys(TELEVISION, 2.4) | {13: 2.2}


def can_convert(source: int, target: int, transfer: int) -> bool:
    """Whether `convert_primaries` takes these numbers."""
    known = source in _CHROMATICITIES and target in _CHROMATICITIES and transfer in _EXPONENTS
    return source == target or known


def convert_primaries(
    image: Float[Tensor, "*b 3 h w"], source: int, target: int, transfer: int
) -> Float[Tensor, "*b 3 h w"]:
    """A picture in RGB of other primaries, clipped to [0, 1].

    Args:
        image: non-linear RGB in [0, 1].
        source: `AVCOL_PRI_*` that it is in.
        target: `AVCOL_PRI_*` that it is wanted in.
        transfer: `AVCOL_TRC_*` of both.

    Raises:
        OptionsError: these are not supported, see `can_convert`.
    """
    if not can_convert(source, target, transfer):
        raise OptionsError(
            f"cannot convert colours of primaries {source} and transfer {transfer} to primaries"
            f" {target}; pass --color keep"
        )
    if source == target or _CHROMATICITIES[source] == _CHROMATICITIES[target]:
        return image
    exponent = _EXPONENTS[transfer]
    matrix = (torch.linalg.inv(_to_xyz(target)) @ _to_xyz(source)).to(image)
    light = image.pow(exponent)
    mixed = torch.einsum("ij,...jhw->...ihw", matrix, light)
    return mixed.clamp_(0, 1).pow_(1 / exponent)


@cache
def _to_xyz(primaries: int) -> Tensor:
    """The 3×3 matrix from linear RGB to CIE XYZ of the same light, float64."""

    def column(x: float, y: float) -> list[float]:
        return [x / y, 1.0, (1 - x - y) / y]

    points = [column(x, y) for x, y in _CHROMATICITIES[primaries]]
    matrix = torch.tensor(points, dtype=torch.float64).T
    white = torch.tensor(column(*_WHITE), dtype=torch.float64)
    return matrix * torch.linalg.solve(matrix, white)
