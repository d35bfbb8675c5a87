"""MATLAB's bicubic resize, Lanczos, and the narrow matrices that all work along an axis is.

Every output of a resize or a blur looks at a few neighbouring inputs. Written as a full matrix that
is mostly zeros; written as gathers it does not use the matrix units. `Band` cuts the matrix
into blocks of rows and keeps of each only the columns that are not zero, so that the work grows
with the image's area and still is done by matrix products.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from iart.device import without_autocast
from iart.errors import OptionsError

BLOCK_INPUTS = 32  # inputs from one block's first row to the next's; 16 to 64 are as fast on a CPU


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of the matrix that read inputs [start, stop)."""

    start: int
    stop: int
    matrix: Float[Tensor, "rows inputs"]


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A matrix of `outputs` rows, cut into blocks; made by `Band.from_taps`, float64 on the CPU."""

    blocks: tuple[_Block, ...]

    @classmethod
    def from_taps(
        cls, indices: Int[Tensor, "outputs taps"], weights: Float[Tensor, "outputs taps"]
    ) -> "Band":
        """Output i = Σ over j of weights[i, j] · input[indices[i, j]]; indices may repeat."""
        outputs = indices.shape[0]
        inputs = int(indices.max()) + 1
        rows = max(8, BLOCK_INPUTS * outputs // inputs)
        blocks = []
        for first in range(0, outputs, rows):
            near, weight = indices[first : first + rows], weights[first : first + rows]
            start, stop = int(near.min()), int(near.max()) + 1
            # Bands are cached: one made under inference_mode must serve a later training step.
            with torch.inference_mode(False):
                matrix = torch.zeros(near.shape[0], stop - start, dtype=torch.float64)
                matrix.scatter_add_(1, near - start, weight.double())
            blocks.append(_Block(start, stop, matrix))
        return cls(tuple(blocks))

    def rows(self, image: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h2 w"]:
        """Apply along the height, in the image's own precision, autocast or not."""
        with without_autocast(image.device):
            parts = [matrix @ image[..., b.start : b.stop, :] for b, matrix in self._like(image)]
        return torch.cat(parts, dim=-2)

    def columns(self, image: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w2"]:
        """Apply along the width, in the image's own precision, autocast or not."""
        with without_autocast(image.device):
            parts = [image[..., b.start : b.stop] @ matrix.mT for b, matrix in self._like(image)]
        return torch.cat(parts, dim=-1)

    def dense(self) -> Float[Tensor, "outputs inputs"]:
        """The whole matrix, zeros and all."""
        width = max(block.stop for block in self.blocks)
        rows = [F.pad(b.matrix, (b.start, width - b.stop)) for b in self.blocks]
        return torch.cat(rows)

    def _like(self, image: Tensor) -> Iterator[tuple[_Block, Tensor]]:
        return zip(self.blocks, _matrices(self, image.device, image.dtype), strict=True)


@lru_cache(maxsize=64)
def _matrices(band: Band, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Of the blocks, where and in the type in which they are multiplied; brought there once."""
    with torch.inference_mode(False):
        return tuple(block.matrix.to(device, dtype) for block in band.blocks)


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
    rows, columns = (
        resampling(side, math.ceil(scale * side), "cubic", scale=float(scale))
        for side in (height, width)
    )
    return columns.columns(rows.rows(wide))


@lru_cache(maxsize=64)
def imresize_matrix(size: int, scale: float) -> Float[Tensor, "outputs size"]:
    """One axis of `imresize` as a matrix: what many images of several sizes are multiplied by.

    Args:
        size: of the axis.
        scale: any finite number above 0.
    """
    with torch.inference_mode(False):
        band = resampling(size, math.ceil(scale * size), "cubic", scale=scale)
        return band.dense().float()


def bicubic(
    image: Float[Tensor, "*b h w"], height: int, width: int
) -> Float[Tensor, "*b height width"]:
    """Resize to any size with the kernel and borders of `imresize`; the axes may differ in scale.

    The result may leave the range of the input at edges. Axes that keep their size are not touched.

    Args:
        image: floating point; computed in its own precision.
        height: at least 1.
        width: at least 1.
    """
    return _resized(image, height, width, "cubic")


def _cubic(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic kernel with a = −0.5: support [−2, 2], 1 at 0, 0 at other integers."""
    x = x.abs()
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, inner, torch.where(x <= 2, outer, torch.zeros_like(x)))


def lanczos(
    image: Float[Tensor, "*b h w"], height: int, width: int
) -> Float[Tensor, "*b height width"]:
    """Resize to any size with a Lanczos kernel of three lobes; edges of the picture stay edges.

    The kernel is stretched when reducing (antialiasing), and borders are symmetric. The result may
    leave the range of the input at edges. Axes that keep their size are not touched.

    Args:
        image: floating point; computed in its own precision.
        height: at least 1.
        width: at least 1.
    """
    return _resized(image, height, width, "lanczos")


def _resized(image: Tensor, height: int, width: int, kernel: str) -> Tensor:
    h, w = image.shape[-2:]
    if height != h:
        image = resampling(h, height, kernel).rows(image)
    return resampling(w, width, kernel).columns(image) if width != w else image


def lanczos_at(
    image: Float[Tensor, "*b h w"],
    height: int,
    width: int,
    *,
    y: tuple[float, float],
    x: tuple[float, float],
) -> Float[Tensor, "*b height width"]:
    """Resample with the kernel of `lanczos` at places of one's own.

    Output i of an axis lies at `start + step · i`, in pixels of the input from the centre of its
    first one. Borders are symmetric.

    Args:
        image: floating point; computed in its own precision.
        height: at least 1.
        width: at least 1.
        y: (start, step) of rows; a step above 1 reduces.
        x: of columns.
    """
    rows, columns = (
        _framing(size, outputs, start, step)
        for size, outputs, (start, step) in zip(
            image.shape[-2:], (height, width), (y, x), strict=True
        )
    )
    return columns.columns(rows.rows(image))


# Each framing is asked for a few times in a row: it takes no place of sizes that come back.
@lru_cache(maxsize=16)
def _framing(size: int, outputs: int, start: float, step: float) -> Band:
    shift = start + 0.5 - step / 2
    return resampling.__wrapped__(size, outputs, "lanczos", scale=1 / step, shift=shift)


def _lanczos_kernel(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sinc(x) · sinc(x / 3) within [−3, 3]."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "area": (lambda x: (x.abs() <= 0.5).to(x), 0.5),
    "triangle": (lambda x: (1 - x.abs()).clamp(min=0), 1.0),
    "cubic": (_cubic, 2.0),
    "lanczos": (_lanczos_kernel, 3.0),
    "gauss": (lambda x: torch.exp(-0.5 * x * x), 3.0),
}
"""Kernels of `resampling`, in samples of the output, and where each ends."""


@lru_cache(maxsize=512)
def resampling(
    size: int,
    outputs: int,
    kernel: str,
    width: float = 1.0,
    *,
    scale: float | None = None,
    shift: float = 0.0,
) -> Band:
    """One axis resized, or filtered where `size` equals `outputs`; borders are symmetric.

    Output i is centred at (i + ½)/scale − ½ + shift, counted from 0.

    Args:
        size: inputs.
        outputs: at least 1.
        kernel: one of `KERNELS`; "gauss" has a standard deviation of 1.
        width: factor by which the kernel is wider than it need be: above 1 blurs.
        scale: outputs for each input, if these do not span the whole axis.
        shift: in inputs.
    """
    function, support = KERNELS[kernel]
    scale = outputs / size if scale is None else scale
    stretch = min(scale, 1.0) / width
    radius = support / stretch
    centre = (torch.arange(outputs, dtype=torch.float64) + 0.5) / scale - 0.5 + shift
    first = (centre - radius).floor().long()
    indices = first[:, None] + torch.arange(math.ceil(2 * radius) + 2)
    weights = function(stretch * (centre[:, None] - indices))
    weights /= weights.sum(dim=1, keepdim=True)
    # Symmetric: … 1 0 | 0 1 … n−1 | n−1 n−2 …, repeated as often as a small image needs.
    indices = indices % (2 * size)
    return Band.from_taps(torch.minimum(indices, 2 * size - 1 - indices), weights)
