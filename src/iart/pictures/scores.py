"""PSNR and SSIM of one frame against another, as the literature computes them (BasicSR, MATLAB).

Convention: a frame is a tensor `3 h w`, RGB, either uint8 or floating point in [0, 1]. Floating
frames are first clamped and rounded to 8 bits (`to_uint8`), since published scores are of images
on disk; all arithmetic after that is float64 on the 0 … 255 scale, on the frames' own device.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from iart.errors import DataError, OptionsError
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import Band

SSIM_TAPS = 11
SSIM_SIGMA = 1.5  # pixels
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2
LUMA = (65.481, 128.553, 24.966)  # BT.601, RGB in [0, 1] → Y without its offset of 16


def rgb_to_y(frame: Shaped[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b h w"]:
    """BT.601 luma in [16, 235], not rounded to integers (MATLAB's `rgb2ycbcr` on floating point).

    Published scores were computed on Y held as float32 in [0, 1]. The result (float64) carries that
    rounding, worth 5e-7 dB, so that scores can be compared to the last digit.

    Args:
        frame: RGB, uint8 or floating point in [0, 1]; floating values are taken as they are.
    """
    rgb = frame.float() if frame.is_floating_point() else frame.float() / 255
    red, green, blue = rgb.double().unbind(dim=-3)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 16
    return ((luma / 255).float() * 255).double()


def psnr(
    a: Shaped[Tensor, "3 h w"],
    b: Shaped[Tensor, "3 h2 w2"],
    *,
    crop: int = 0,
    luma: bool = False,
) -> float:
    """Peak signal-to-noise ratio in dB over all values of a frame; inf if the frames are equal.

    Args:
        a: one frame (see the module's convention).
        b: the other frame, of the same size.
        crop: pixels cut from each side first.
        luma: compare BT.601 Y instead of RGB.

    Raises:
        DataError: the frames differ in size, or are not uint8 or floating `3 h w`.
        OptionsError: crop is negative or leaves nothing; a floating frame holds NaN.
    """
    first, second = _planes(a, b, crop=crop, luma=luma)
    error = (first - second).square().mean().item()
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def ssim(
    a: Shaped[Tensor, "3 h w"],
    b: Shaped[Tensor, "3 h2 w2"],
    *,
    crop: int = 0,
    luma: bool = False,
) -> float:
    """Structural similarity (Wang et al. 2004), 1 for equal frames; mean over pixels and channels.

    11×11 Gaussian window of σ 1.5, only where it fits in the frame. Arguments and errors as `psnr`;
    a frame that is smaller than 11×11 after cropping is an OptionsError.
    """
    first, second = _planes(a, b, crop=crop, luma=luma)
    height, width = first.shape[-2:]
    if min(height, width) < SSIM_TAPS:
        raise OptionsError(f"ssim takes frames of at least 11×11 after crop, got {height}×{width}")
    maps = torch.stack([first, second, first * first, second * second, first * second])
    # The five local means in one batch; "valid" borders come from the bands' own height.
    mean_a, mean_b, square_a, square_b, product = _window(width).columns(_window(height).rows(maps))
    both, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    structure = (2 * (product - both) + SSIM_C2) / (square_a + square_b - squares + SSIM_C2)
    return ((2 * both + SSIM_C1) / (squares + SSIM_C1) * structure).mean().item()


def _planes(
    a: Tensor, b: Tensor, *, crop: int, luma: bool
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Both frames checked, rounded to 8 bits and cropped: float64 RGB or Y, 0 … 255."""
    if a.shape != b.shape:
        raise DataError(f"frames differ in size: {_size(a)} and {_size(b)}")
    if a.ndim != 3 or a.shape[0] != 3:
        raise DataError(f"a frame has shape (3, h, w), got {tuple(a.shape)}")
    height, width = a.shape[-2:]
    if crop < 0 or min(height, width) <= 2 * crop:
        raise OptionsError(f"crop must be 0 or more and leave pixels of {_size(a)}, got {crop}")
    planes = []
    for frame in (a, b):
        if not (frame.dtype == torch.uint8 or frame.is_floating_point()):
            raise DataError(f"a frame is uint8 or floating point in [0, 1], got {frame.dtype}")
        inner = frame[:, crop : height - crop, crop : width - crop]
        rounded = to_uint8(inner) if inner.is_floating_point() else inner
        planes.append(rgb_to_y(rounded)[None] if luma else rounded.double())
    return planes[0], planes[1]


def _size(frame: Tensor) -> str:
    """`720×576` (width × height) of a frame, its whole shape if it is not one."""
    if frame.ndim != 3 or frame.shape[0] != 3:
        return str(tuple(frame.shape))
    return f"{frame.shape[-1]}×{frame.shape[-2]}"


@lru_cache(maxsize=16)
def _window(size: int) -> Band:
    """One axis of SSIM's Gaussian window: size − 10 outputs."""
    offsets = torch.arange(SSIM_TAPS)
    taps = torch.exp(-0.5 * ((offsets - SSIM_TAPS // 2).double() / SSIM_SIGMA) ** 2)
    indices = torch.arange(size - SSIM_TAPS + 1)[:, None] + offsets
    return Band.from_taps(indices, (taps / taps.sum()).expand(indices.shape))
