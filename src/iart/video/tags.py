"""What colour descriptions say, by name, and what is assumed where a file says nothing.

Unspecified entries are derived from the specified ones first, then from the picture's size, as
players do: pictures larger than SD are BT.709, SD ones are of 625 or of 525 lines. A picture four
times as large would be taken for another kind, so the result is written explicitly.
"""

from dataclasses import dataclass
from fractions import Fraction

from iart.video.color import RGB
from iart.video.frame import UNSPECIFIED, Color
from iart.video.layout import layout_of

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
_MATRIX_OF_PRIMARIES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9}
_TRANSFER_OF_PRIMARIES = {1: 1, 4: 4, 5: 6, 6: 6, 7: 7, 9: 14}


@dataclass(frozen=True)
class ColorTags:
    """The four entries as found in a file, in FFmpeg's numbers; `range` 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

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
        matrix = _MATRIX_OF_PRIMARIES.get(primaries, guess)
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
