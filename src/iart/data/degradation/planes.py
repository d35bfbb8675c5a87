"""RGB to planes of 8-bit YUV 4:2:0 and back, for all pictures of a clip at once.

As `iart.pictures.color` converts single pictures of BT.601 in limited range, chroma at the left;
of pictures made of two fields, the chroma of each field is made of its own lines.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.pictures.chroma import downsample_chroma, upsample_chroma
from iart.pictures.color import BT601, luma_and_chroma

_STEP = (2, 2)

Packed = UInt8[np.ndarray, "_ _ _"]
"""Pictures `p 3·h/2 w`, as FFmpeg packs them: luma, then Cb, then Cr, each row by row."""


def to_ycc(clip: Float[Tensor, "m 3 h w"]) -> tuple[Tensor, Tensor]:
    """Luma `m h w` in [0, 1] and chroma `m 2 h w` in ±0.5."""
    ycc = torch.einsum("ij,mjhw->mihw", luma_and_chroma(BT601).float(), clip)
    return ycc[:, 0], ycc[:, 1:]


def pack(
    luma: Float[Tensor, "m h w"],
    chroma: Float[Tensor, "m 2 h w"],
    fields: Sequence[tuple[int, int]],
) -> Packed:
    """Pictures of which each takes its even rows from one moment and its odd rows from another."""
    small = _subsampled(chroma, fields)
    tops, bottoms = ([pair[i] for pair in fields] for i in (0, 1))
    woven = luma[tops]
    woven[:, 1::2] = luma[bottoms][:, 1::2]
    return packed_planes(woven * 219 + 16, small * 224 + 128)


def packed_planes(luma: Float[Tensor, "p h w"], chroma: Float[Tensor, "p 2 h2 w2"]) -> Packed:
    """Planes of numbers from 0 to 255, rounded."""
    flat = torch.cat((luma.flatten(1), chroma.flatten(1)), dim=1)
    rounded = flat.round_().clamp_(0, 255).to(torch.uint8)
    return rounded.view(len(luma), -1, luma.shape[-1]).numpy()


def _subsampled(
    chroma: Float[Tensor, "m 2 h w"], fields: Sequence[tuple[int, int]]
) -> Float[Tensor, "p 2 h2 w2"]:
    if all(top == bottom for top, bottom in fields):
        return _halved(chroma)[[top for top, _ in fields]]
    halves = [_halved(chroma[..., parity::2, :]) for parity in (0, 1)]
    rows = [half[[pair[i] for pair in fields]] for i, half in enumerate(halves)]
    return torch.stack(rows, dim=3).flatten(2, 3)


def _halved(chroma: Float[Tensor, "m 2 h w"]) -> Float[Tensor, "m 2 h2 w2"]:
    return downsample_chroma(chroma.flatten(0, 1), _STEP, "left").unflatten(0, (-1, 2))


def planes(pictures: Packed) -> tuple[Tensor, Tensor]:
    """Numbers of luma `p h w` and of chroma `p 2 h/2 w/2`, float32."""
    count, rows, width = pictures.shape
    height = rows * 2 // 3
    flat = torch.from_numpy(pictures.reshape(count, -1)).float()
    luma = flat[:, : height * width].view(count, height, width)
    return luma, flat[:, height * width :].reshape(count, 2, height // 2, width // 2)


def unpack(pictures: Packed) -> Float[Tensor, "p 3 h w"]:
    """RGB in [0, 1], as the pictures of a decoded file are read."""
    luma, chroma = planes(pictures)
    size = (luma.shape[1], luma.shape[2])
    small = (chroma.flatten(0, 1) - 128) / 224
    full = upsample_chroma(small, size, _STEP, "left").unflatten(0, (-1, 2))
    ycc = torch.cat((((luma - 16) / 219)[:, None], full), dim=1)
    inverse = torch.linalg.inv(luma_and_chroma(BT601)).float()
    return torch.einsum("ij,pjhw->pihw", inverse, ycc).clamp_(0, 1)


def split(pictures: Packed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three planes, `p h w` and twice `p h/2 w/2`."""
    count, rows, width = pictures.shape
    height = rows * 2 // 3
    flat = pictures.reshape(count, -1)
    luma, blue, red = np.split(flat, [height * width, height * width * 5 // 4], axis=1)
    small = (count, height // 2, width // 2)
    return luma.reshape(count, height, width), blue.reshape(small), red.reshape(small)


def join(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> Packed:
    """The inverse of `split`."""
    count, _, width = luma.shape
    flat = [plane.reshape(count, -1) for plane in (luma, blue, red)]
    return np.concatenate(flat, axis=1).reshape(count, -1, width)
