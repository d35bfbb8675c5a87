"""How low-resolution frames are made: MATLAB's bicubic (BI) and blur + decimation (BD).

Convention: images are `*b h w`, any number of leading axes (channels, frames, batch); floating
point in [0, 1] or uint8 in [0, 255]. Nothing is rounded unless the name or the type says so.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.band import Band
from iart.errors import OptionsError

BD_SIGMA = 1.6  # pixels
BD_KERNEL = 12  # taps; MATLAB's rule ceil(3σ)·2 + 2
BD_STEP = 4  # every fourth row and column is kept
BD_FIRST = 1  # counted from 0


def to_uint8(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[0, 1] → [0, 255], clamped and rounded half up, as MATLAB does (torch rounds half to even).

    Raises:
        OptionsError: the image is not floating point, or holds NaN.
    """
    if not image.is_floating_point():
        raise OptionsError(f"to_uint8 takes a floating-point image in [0, 1], got {image.dtype}")
    if image.isnan().any():
        raise OptionsError("to_uint8 got an image with NaN, which no 8-bit value stands for")
    # 16-bit floats cannot hold 255.5 or 254.5 + 0.5 exactly enough.
    wide = image if image.dtype == torch.float64 else image.float()
    return (wide.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)


def imresize(image: Float[Tensor, "*b h w"], scale: int | float) -> Float[Tensor, "*b h2 w2"]:
    """Resize as MATLAB's `imresize(image, scale, "bicubic")`, without its final rounding.

    Cubic kernel with a = −0.5, stretched by 1/scale when reducing (antialiasing), symmetric
    borders, pixel centres at half-integers; output sides are ceil(scale · side). The result may
    leave [0, 1] by a little at edges. Differentiable.

    Args:
        image: floating point. float64 is computed in float64, all else in float32 (on a GPU at
            the precision that torch is set to for matrix products, TF32 included). float32 is
            good to 1e-6, which rounds about 8 values in a million the other way to 8 bits:
            `degrade_bi` is exact.
        scale: any finite number above 0; 0.25 makes training inputs, 4 is the baseline to beat.

    Raises:
        OptionsError: scale is not a finite number above 0, or the image is empty or not floating.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise OptionsError(f"scale must be a finite number above 0, got {scale}")
    if not image.is_floating_point():
        raise OptionsError(f"imresize takes a floating-point image, got {image.dtype}")
    height, width = image.shape[-2:]
    if height < 1 or width < 1:
        raise OptionsError(f"imresize takes an image of at least 1×1, got {height}×{width}")
    wide = image if image.dtype == torch.float64 else image.float()
    rows, columns = _bicubic(height, float(scale)), _bicubic(width, float(scale))
    return columns.columns(rows.rows(wide))


def degrade_bi(image: UInt8[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h2 w2"]:
    """MATLAB's bicubic ×1/4, rounded to 8 bits: the published LR frames, on every pixel.

    The weights of ×1/4 are multiples of a power of two, so that float64 sums are exact on whole
    numbers and the result does not depend on the order of summation, or on the machine.

    Raises:
        OptionsError: the image is empty or not uint8.
    """
    if image.dtype != torch.uint8:
        raise OptionsError(f"degrade_bi takes a uint8 image, got {image.dtype}")
    return (imresize(image.double(), 0.25) + 0.5).floor().clamp(0, 255).to(torch.uint8)


def degrade_bd(image: UInt8[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h//4 w//4"]:
    """Blur (Gaussian, σ 1.6, 12×12), round to 8 bits, keep every fourth row and column.

    Borders are replicated. The even kernel has its origin left of its middle (6th of 12 taps) and
    rows and columns 1, 5, 9 … are kept (counted from 0), so that an output lies in the middle of
    its 4×4 input pixels. Up to 3 rows and columns that fill no 4×4 block are left over.

    Raises:
        OptionsError: a side is shorter than 4 pixels, or the image is not uint8.
    """
    if image.dtype != torch.uint8:
        raise OptionsError(f"degrade_bd takes a uint8 image, got {image.dtype}")
    height, width = image.shape[-2:]
    if min(height, width) < BD_STEP:
        raise OptionsError(f"degrade_bd takes an image of at least 4×4, got {height}×{width}")
    # Blurred only where kept; float64, since a sum just below a half must not round up.
    blurred = _gaussian(width).columns(_gaussian(height).rows(image.double()))
    return (blurred + 0.5).floor().to(torch.uint8)


def _cubic(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic kernel with a = −0.5: support [−2, 2], 1 at 0, 0 at other integers."""
    x = x.abs()
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, inner, torch.where(x <= 2, outer, torch.zeros_like(x)))


@lru_cache(maxsize=64)
def _bicubic(size: int, scale: float) -> Band:
    """One axis of `imresize`: output i is centred at (i + ½)/scale − ½, counted from 0."""
    stretch = min(scale, 1.0)
    radius = 2 / stretch
    centre = (torch.arange(math.ceil(scale * size), dtype=torch.float64) + 0.5) / scale - 0.5
    first = (centre - radius).floor().long()
    indices = first[:, None] + torch.arange(math.ceil(2 * radius) + 2)
    weights = _cubic(stretch * (centre[:, None] - indices))
    weights /= weights.sum(dim=1, keepdim=True)
    # Symmetric: … 1 0 | 0 1 … n−1 | n−1 n−2 …, repeated as often as a small image needs.
    indices = indices % (2 * size)
    return Band.from_taps(torch.minimum(indices, 2 * size - 1 - indices), weights)


@lru_cache(maxsize=64)
def _gaussian(size: int) -> Band:
    """One axis of `degrade_bd`, at the kept positions only."""
    offsets = torch.arange(BD_KERNEL)
    taps = torch.exp(-0.5 * ((offsets - (BD_KERNEL - 1) / 2).double() / BD_SIGMA) ** 2)
    kept = BD_FIRST + BD_STEP * torch.arange(size // BD_STEP)
    indices = kept[:, None] + offsets - (BD_KERNEL // 2 - 1)
    weights = (taps / taps.sum()).expand(indices.shape)
    return Band.from_taps(indices.clamp(0, size - 1), weights)
