"""Turning and mirroring of pictures as the file asks for (display matrix or EXIF)."""

import math
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from jaxtyping import Float
from torch import Tensor

_MAX_SKEW_DEGREES = 1.0
"""A display matrix further than this from a quarter turn is not applied."""


@dataclass(frozen=True)
class Orientation:
    """How a decoded picture becomes upright: first swap the axes, then mirror them.

    Attributes:
        transpose: rows become columns.
        mirror_x: left and right are exchanged.
        mirror_y: top and bottom are exchanged.
        rotation: degrees clockwise, as the file says it: 0, 90, 180 or 270.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    rotation: int = 0

    def upright(self, image: Float[Tensor, "c h w"]) -> Tensor:
        """The picture as it is to be seen; its sides are swapped by a quarter turn."""
        if self.transpose:
            image = image.mT
        axes = [axis for axis, mirror in ((-1, self.mirror_x), (-2, self.mirror_y)) if mirror]
        return image.flip(axes) if axes else image.contiguous()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (height, width) if self.transpose else (width, height)


EXIF_ORIENTATIONS = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True, rotation=180),
    4: Orientation(mirror_y=True),
    5: Orientation(True),
    6: Orientation(True, mirror_x=True, rotation=90),
    7: Orientation(True, mirror_x=True, mirror_y=True),
    8: Orientation(True, mirror_y=True, rotation=270),
}
"""By the numbers in headers of images; others stand for pictures that are upright."""


def orientation_of_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """From the linear part of a display matrix: a point (x, y) is shown at (ax + cy, bx + dy)."""
    degrees = math.degrees(math.atan2(b, a))
    quarters = round(degrees / 90)
    if abs(degrees - 90 * quarters) > _MAX_SKEW_DEGREES or not (a or b):
        return Orientation()
    if quarters % 2:
        return Orientation(True, mirror_x=c < 0, mirror_y=b < 0, rotation=quarters * 90 % 360)
    return Orientation(False, mirror_x=a < 0, mirror_y=d < 0, rotation=quarters * 90 % 360)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """What a decoded frame says about its display."""
    try:
        items: Any = frame.side_data
        found = items.get(SideDataType.DISPLAYMATRIX)
    except ValueError:
        # some other side data of the frame is unknown to PyAV, which then lists none
        angle = math.radians(-frame.rotation)
        return orientation_of_matrix(
            math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
        )
    if found is None:
        return Orientation()
    matrix = np.frombuffer(bytes(found), dtype="=i4")[:9].reshape(3, 3) / 2**16
    return orientation_of_matrix(*(float(entry) for entry in matrix[:2, :2].flat))
