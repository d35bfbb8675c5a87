"""What the video shows of pictures of one moment: side by side, or one wiped over another."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from iart.errors import OptionsError
from iart.reports.details import fitted, font_of

VIEWS = ("side", "wipe")
SWING_SECONDS = 6
"""A divider that moves is back where it was after this time."""

_LABEL_SHARE = 24  # a label's letters are a picture's height over this
_SMALLEST_LABEL = 11  # pixels

FrameView = Callable[[Sequence[Float[Tensor, "3 h w"]], Fraction], Float[Tensor, "3 h w2"]]
"""Pictures of one size, and their time in seconds, to one picture; inputs are left as they are."""


def side_by_side(labels: Sequence[str], height: int, width: int) -> FrameView:
    """All pictures in a row, each under its label."""
    stamps = [_stamp(label, height, width) for label in labels]

    def view(pictures: Sequence[Tensor], time: Fraction) -> Tensor:
        del time
        row = torch.cat(list(pictures), dim=-1)
        for index, stamp in enumerate(stamps):
            _put(stamp, row[..., index * width : (index + 1) * width], right=False)
        return row

    return view


def wipe(
    labels: Sequence[str], height: int, width: int, *, divider: float | None = None
) -> FrameView:
    """The first picture to the left of a line, the second to its right.

    Args:
        labels: of the two.
        height: of a picture.
        width: of a picture.
        divider: where the line stands, as a share of the width; None for one that swings.

    Raises:
        OptionsError: the divider is outside of [0, 1].
    """
    if divider is not None and not 0 <= divider <= 1:
        raise OptionsError(f"divider must be from 0 (left edge) to 1 (right edge), got {divider:g}")
    stamps = [_stamp(label, height, width) for label in labels]
    line = max(2, width // 480)

    def view(pictures: Sequence[Tensor], time: Fraction) -> Tensor:
        first, second = (picture.clone() for picture in pictures[:2])
        _put(stamps[0], first, right=False)
        _put(stamps[1], second, right=True)
        turn = 2 * math.pi * float(time % SWING_SECONDS) / SWING_SECONDS
        share = 0.5 + 0.45 * math.sin(turn) if divider is None else divider
        x = round(share * width)
        second[..., :x] = first[..., :x]
        if 0 < x < width:
            second[..., max(0, x - line // 2) : x - line // 2 + line] = 1
        return second

    return view


def _stamp(label: str, height: int, width: int) -> Float[Tensor, "4 y x"]:
    """White letters on a dark ground: RGB and how much it covers."""
    font = font_of(max(_SMALLEST_LABEL, height // _LABEL_SHARE))
    text = fitted(label, font, width * 4 // 5)
    left, top, right, bottom = font.getbbox(text)
    pad = round((bottom - top) * 0.4)
    size = (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad)
    box = Image.new("RGBA", size, (0, 0, 0, 150))
    ImageDraw.Draw(box).text((pad - left, pad - top), text, fill="white", font=font)
    return torch.from_numpy(np.array(box)).permute(2, 0, 1).float() / 255


def _put(stamp: Float[Tensor, "4 y x"], picture: Float[Tensor, "3 h w"], *, right: bool) -> None:
    """Lay a stamp into the upper corner of a picture, cut to what has room."""
    _, height, width = picture.shape
    stamp = stamp[:, :height, :width]
    _, rows, columns = stamp.shape
    x = width - columns if right else 0
    picture[:, :rows, x : x + columns].lerp_(stamp[:3], stamp[3:])
