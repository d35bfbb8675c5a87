"""Matrices with a narrow band (resizing, blurring), applied along one axis in dense blocks.

Every output of a resize or a blur looks at a few neighbouring inputs. Written as a full matrix that
is mostly zeros; written as gathers it does not use the matrix units. `Band` cuts the matrix
into blocks of rows and keeps of each only the columns that are not zero, so that the work grows
with the image's area and still is done by matrix products.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_INPUTS = 32  # inputs from one block's first row to the next's; 16 to 64 are as fast on a CPU


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of the matrix that read inputs [start, stop)."""

    start: int
    stop: int
    matrix: Float[Tensor, "rows inputs"]


@dataclass(frozen=True, slots=True)
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
        with torch.autocast(image.device.type, enabled=False):
            parts = [b.matrix.to(image) @ image[..., b.start : b.stop, :] for b in self.blocks]
        return torch.cat(parts, dim=-2)

    def columns(self, image: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w2"]:
        """Apply along the width, in the image's own precision, autocast or not."""
        with torch.autocast(image.device.type, enabled=False):
            parts = [image[..., b.start : b.stop] @ b.matrix.to(image).mT for b in self.blocks]
        return torch.cat(parts, dim=-1)
