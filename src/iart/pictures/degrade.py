"""How low-resolution frames are made: MATLAB's bicubic (BI) and blur + decimation (BD).

Convention: images are `*b h w`, any number of leading axes (channels, frames, batch); floating
point in [0, 1] or uint8 in [0, 255]. Nothing is rounded unless the name or the type says so.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.resize import Band, imresize

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
    return nearest_uint8(image)


def nearest_uint8(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """`to_uint8` of an image without NaN, which nobody looks for: that would wait for a GPU."""
    # 16-bit floats cannot hold 255.5 or 254.5 + 0.5 exactly enough.
    wide = image if image.dtype == torch.float64 else image.float()
    return (wide.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)


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


@lru_cache(maxsize=64)
def _gaussian(size: int) -> Band:
    """One axis of `degrade_bd`, at the kept positions only."""
    offsets = torch.arange(BD_KERNEL)
    taps = torch.exp(-0.5 * ((offsets - (BD_KERNEL - 1) / 2).double() / BD_SIGMA) ** 2)
    kept = BD_FIRST + BD_STEP * torch.arange(size // BD_STEP)
    indices = kept[:, None] + offsets - (BD_KERNEL // 2 - 1)
    weights = (taps / taps.sum()).expand(indices.shape)
    return Band.from_taps(indices.clamp(0, size - 1), weights)
