"""Spatial tiles: a large picture enlarged piece by piece, with feathered seams.

Convention: pixels are low-resolution ones unless a name says `large`; ranges are half-open.

All tiles have the same size, so that the last one of a row or column is shifted back. The others
start on multiples of twice the attention window: there a tile is cut into the same windows as the
whole picture. Where two tiles overlap, the later one fades in over the earlier one, linearly from
the border of the one to the border of the other. That is an interpolation, so equal tiles give
exactly what they agree on.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError
from iart.model.upsample import SCALE

TILE_OVERLAP = 16
"""Pixels by which neighbouring tiles overlap at least."""

Enlarge = Callable[[Float[Tensor, "t 3 h w"]], Float[Tensor, "kept 3 4*h 4*w"]]


def plan_tiles(size: int, tile: int, multiple: int = 1, overlap: int = TILE_OVERLAP) -> list[int]:
    """Where the tiles of one axis start: [start, start + tile) for each, start < size.

    Starts are multiples of `multiple`, but for the last, which is shifted back to end at `size`.
    Neighbours overlap by at least `overlap`. A picture no larger than a tile is one tile.

    Raises:
        OptionsError: the tile is too small to get on by `multiple` with this overlap.
    """
    if size <= tile:
        return [0]
    step = (tile - overlap) // multiple * multiple
    if step < 1:
        raise OptionsError(f"tile must be at least {overlap + multiple} pixels, got {tile}")
    return [*range(0, size - tile, step), size - tile]


def enlarge_in_tiles(
    clip: Float[Tensor, "t 3 h w"],
    enlarge: Enlarge,
    tile: int,
    *,
    multiple: int = 1,
    overlap: int = TILE_OVERLAP,
) -> Float[Tensor, "kept 3 4*h 4*w"]:
    """Apply `enlarge` to tiles of `tile`×`tile` pixels (less only where the picture is smaller).

    Args:
        clip: on any device.
        enlarge: gives a tile at ×4, all of its frames or some, the same ones for every tile.
        tile: side in pixels.
        multiple: of what the starts of tiles should be a multiple.
        overlap: pixels that neighbours share at least.

    Raises:
        OptionsError: the tile is too small for the overlap.
    """
    h, w = clip.shape[-2:]
    starts_x = plan_tiles(w, tile, multiple, overlap)

    def strips() -> Iterator[Tensor]:
        for y in plan_tiles(h, tile, multiple, overlap):
            strip = clip[..., y : y + tile, :]
            yield _join((enlarge(strip[..., x : x + tile]) for x in starts_x), starts_x, w, axis=-1)

    return _join(strips(), plan_tiles(h, tile, multiple, overlap), h, axis=-2)


def _join(pieces: Iterator[Tensor], starts: list[int], size: int, axis: int) -> Tensor:
    """Put enlarged pieces together along one axis, each fading in over those before."""
    first = next(pieces)
    if len(starts) == 1:
        return first
    shape = list(first.shape)
    shape[axis] = SCALE * size
    whole = first.new_empty(shape)
    whole.narrow(axis, 0, first.shape[axis]).copy_(first)
    done = first.shape[axis]
    for start, piece in zip(starts[1:], pieces, strict=True):
        place, length = SCALE * start, piece.shape[axis]
        shared = done - place
        seam = whole.narrow(axis, place, shared)
        seam.lerp_(piece.narrow(axis, 0, shared), _ramp(shared, piece, axis))
        whole.narrow(axis, done, place + length - done).copy_(
            piece.narrow(axis, shared, length - shared)
        )
        done = place + length
    return whole


def _ramp(length: int, like: Tensor, axis: int) -> Tensor:
    """From 0 to 1 over a seam, sampled at pixel centres, shaped to broadcast along `axis`."""
    ramp = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) / length
    return ramp if axis == -1 else ramp[:, None]
