"""Colour descriptions: names, what is assumed where a file says nothing, other primaries.

Unspecified entries are derived from the specified ones first, then from the picture's size, as
players do: pictures larger than SD are BT.709, SD ones are of 625 or of 525 lines. A picture four
times as large would be taken for another kind, so the result is written explicitly.

To other primaries, numbers become light by the curve of a display, are mixed by a 3×3 matrix, and
go back by the same curve, so that greys keep their numbers. What the new primaries cannot make is
clipped.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.color import MATRIX_OF_PRIMARIES, RGB, UNSPECIFIED, Color, layout_of

PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
MATRICES = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
    15: "ipt-c2",
    16: "ycgco-re",
    17: "ycgco-ro",
}

SRGB = Color(primaries=1, transfer=13, matrix=RGB, full_range=True)
"""What images are, and RGB video without a description."""

_FULL = 2  # AVCOL_RANGE_JPEG
_LIMITED = 1  # AVCOL_RANGE_MPEG
_SD_MAX_HEIGHT, _SD_MAX_WIDTH = 576, 1279
_PRIMARIES_OF_MATRIX = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9, 10: 9}
_TRANSFER_OF_PRIMARIES = {1: 1, 4: 4, 5: 6, 6: 6, 7: 7, 9: 14}


@dataclass(frozen=True)
class ColorTags:
    """The four entries as found in a file, in FFmpeg's numbers; `range` 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

    @classmethod
    def of(cls, source) -> "ColorTags":
        """The entries of a frame or of a codec context."""
        return cls(
            source.color_primaries or 0,
            source.color_trc or 0,
            source.colorspace if source.colorspace is not None else 2,
            source.color_range or 0,
        )

    def over(self, other: "ColorTags") -> "ColorTags":
        """These tags, with the other's where these say nothing."""
        return ColorTags(
            self.primaries if self.primaries in PRIMARIES else other.primaries,
            self.transfer if self.transfer in TRANSFERS else other.transfer,
            self.matrix if self.matrix in MATRICES else other.matrix,
            self.range if self.range in (_LIMITED, _FULL) else other.range,
        )


def is_hd(width: int, height: int) -> bool:
    """Whether players take a picture of this size without a description for BT.709."""
    return height > _SD_MAX_HEIGHT or width > _SD_MAX_WIDTH


def _kind_by_size(width: int, height: int, rate: Fraction) -> int:
    """1 for BT.709, 5 for 625-line SD, 6 for 525-line SD (numbers of primaries and matrix)."""
    if is_hd(width, height):
        return 1
    if height in (576, 288):
        return 5
    if height in (480, 486, 240):
        return 6
    return 5 if rate in (25, 50) else 6


def resolve_color(
    tags: ColorTags, pixel_format: str, size: tuple[int, int], rate: Fraction
) -> Color:
    """A full colour description of a source.

    Args:
        tags: as found; reserved and unknown numbers count as unspecified.
        pixel_format: RGB formats are RGB whatever the tags say; grey and "yuvj" without a stated
            range are full-range, other YUV limited.
        size: (width, height) as coded, before rotation.
        rate: 25 and 50 per second tell 625 lines where the height does not.
    """
    layout = layout_of(pixel_format)
    primaries = tags.primaries if tags.primaries in PRIMARIES else None
    transfer = tags.transfer if tags.transfer in TRANSFERS else None
    if layout.kind == "rgb":
        return Color(primaries or SRGB.primaries, transfer or SRGB.transfer, RGB, full_range=True)
    # "gbr" on a YUV picture is a mistake of the file
    matrix = tags.matrix if tags.matrix in MATRICES and tags.matrix != RGB else None
    guess = _kind_by_size(*size, rate)
    if primaries is None:
        primaries = _PRIMARIES_OF_MATRIX.get(matrix or guess, guess)
    if matrix is None:
        matrix = MATRIX_OF_PRIMARIES.get(primaries, guess)
    if transfer is None:
        transfer = _TRANSFER_OF_PRIMARIES.get(primaries, 1)
    full = tags.range == _FULL or layout.jpeg
    if tags.range not in (_LIMITED, _FULL):
        full = full or layout.kind == "grey" or layout.floating
    return Color(primaries, transfer, matrix, full_range=full)


def color_name(color: Color) -> str:
    """For people: "bt709, limited range" or "bt2020 (smpte2084, bt2020nc), limited range"."""
    level = "full range" if color.full_range else "limited range"
    primaries = PRIMARIES.get(color.primaries, str(color.primaries))
    transfer = TRANSFERS.get(color.transfer, str(color.transfer))
    matrix = MATRICES.get(color.matrix, str(color.matrix))
    if primaries == transfer == matrix:
        return f"{primaries}, {level}"
    return f"{primaries} (transfer {transfer}, matrix {matrix}), {level}"


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
