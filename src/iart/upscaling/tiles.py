"""Spatial tiles: a large picture made piece by piece, with feathered seams.

Convention: pixels are low-resolution ones unless a name says `large`; ranges are half-open.

Tiles start on multiples of twice the attention window: there a tile is cut into the same windows as
the whole picture. Neighbours share `overlap` pixels. What a tile shows near its border it made
without knowing what lies beyond, so the outer parts of the overlap are context only: the later tile
fades in over the earlier one, linearly, in the middle of it. That is an interpolation, so equal
tiles give exactly what they agree on.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from iart.errors import OptionsError

TILE_OVERLAP = 24
"""Pixels that neighbouring tiles share."""
FEATHER_SHARE = 0.25
"""Of the overlap: where one tile fades into the other."""

MakeTile = Callable[[slice, slice], Tensor]
"""From the rows and columns of a tile to what becomes of it: any number of times larger."""


def plan_tiles(size: int, tile: int, multiple: int = 1, overlap: int = TILE_OVERLAP) -> list[slice]:
    """The tiles of one axis: as few as can be, and nearly equal.

    Starts are multiples of `multiple`, neighbours share `overlap` pixels, and none is longer than
    `tile`. A picture no larger than a tile is one tile.

    Raises:
        OptionsError: the tile is too small to get on by `multiple` with this overlap.
    """
    if size <= tile:
        return [slice(0, size)]
    longest_step = (tile - overlap) // multiple * multiple
    if longest_step < 1:
        raise OptionsError(f"tile must be at least {overlap + multiple} pixels, got {tile}")
    count = -(-(size - overlap) // longest_step)
    step = -(-(size - overlap) // (count * multiple)) * multiple
    return [slice(y, min(y + step + overlap, size)) for y in range(0, size - overlap, step)]


def make_in_tiles(
    height: int,
    width: int,
    make: MakeTile,
    tile: int,
    *,
    multiple: int = 1,
    overlap: int = TILE_OVERLAP,
    axes: tuple[int, int] = (-2, -1),
) -> Tensor:
    """Put a picture together of tiles of at most `tile`×`tile` pixels.

    Args:
        height: of the picture.
        width: of the picture.
        make: called for every tile, row by row.
        tile: side in pixels.
        multiple: of what the starts of tiles are a multiple.
        overlap: pixels that neighbours share.
        axes: of what `make` gives: rows, columns.

    Raises:
        OptionsError: the tile is too small for the overlap.
    """
    rows = plan_tiles(height, tile, multiple, overlap)
    columns = plan_tiles(width, tile, multiple, overlap)
    strips = (
        _join((make(ys, xs) for xs in columns), columns, axes[1])
        for ys in rows  # made one after another
    )
    return _join(strips, rows, axes[0])


def _join(pieces: Iterator[Tensor], places: list[slice], axis: int) -> Tensor:
    """Put pieces together along one axis, each fading in over those before."""
    first = next(pieces)
    if len(places) == 1:
        return first
    scale = first.shape[axis] // places[0].stop
    shape = list(first.shape)
    shape[axis] = scale * places[-1].stop
    whole = first.new_empty(shape)
    whole.narrow(axis, 0, first.shape[axis]).copy_(first)
    done = first.shape[axis]
    for place, piece in zip(places[1:], pieces, strict=True):
        start, length = scale * place.start, piece.shape[axis]
        shared = done - start
        feather = round(FEATHER_SHARE * shared)
        context = (shared - feather) // 2
        seam = whole.narrow(axis, start + context, feather)
        seam.lerp_(piece.narrow(axis, context, feather), _ramp(feather, piece, axis))
        known = context + feather
        whole.narrow(axis, start + known, length - known).copy_(
            piece.narrow(axis, known, length - known)
        )
        done = start + length
    return whole


def _ramp(length: int, like: Tensor, axis: int) -> Tensor:
    """From 0 to 1 over a seam, sampled at pixel centres, shaped to broadcast along `axis`."""
    ramp = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) / length
    return ramp.view(-1, *(1,) * (like.ndim - 1 - axis % like.ndim))
