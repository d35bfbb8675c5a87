from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iart.errors import OptionsError
from iart.inference.tiles import enlarge_in_tiles, plan_tiles

sides = st.integers(1, 60)
tilings = st.tuples(st.integers(0, 8), st.sampled_from([1, 2, 8])).flatmap(
    lambda t: st.tuples(st.integers(t[0] + t[1], 40), st.just(t[1]), st.just(t[0]))
)


def repeat4(clip: Tensor) -> Tensor:
    return clip.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=300, deadline=None)
@given(size=st.integers(1, 500), tiling=tilings)
def test_tiles_cover_the_axis(size: int, tiling: tuple[int, int, int]):
    tile, multiple, overlap = tiling
    starts = plan_tiles(size, tile, multiple, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - tile)
    assert all(start % multiple == 0 for start in starts[:-1])
    for here, after in pairwise(starts):
        assert here < after <= here + tile - overlap


@settings(max_examples=50, deadline=None)
@given(h=sides, w=sides, tiling=tilings)
def test_tiles_of_an_exact_model_are_exact(h: int, w: int, tiling: tuple[int, int, int]):
    tile, multiple, overlap = tiling
    clip = noise(2, 3, h, w)
    sizes = set()

    def enlarge(piece: Tensor) -> Tensor:
        sizes.add(tuple(piece.shape[-2:]))
        return repeat4(piece)

    large = enlarge_in_tiles(clip, enlarge, tile, multiple=multiple, overlap=overlap)
    assert large.equal(repeat4(clip))
    assert sizes == {(min(h, tile), min(w, tile))}


def test_a_seam_fades_from_one_tile_to_the_next():
    shades = iter([0.0, 1.0])

    def enlarge(piece: Tensor) -> Tensor:
        return torch.full_like(repeat4(piece), next(shades))

    line = enlarge_in_tiles(noise(1, 3, 5, 24), enlarge, 16, multiple=4, overlap=8)[0, 0, 0]
    assert line[:32].eq(0).all()
    assert line[64:].eq(1).all()
    torch.testing.assert_close(line[32:64], (torch.arange(32) + 0.5) / 32)


def test_a_tile_too_small_is_refused():
    with pytest.raises(OptionsError, match="tile must be at least 24 pixels, got 20"):
        enlarge_in_tiles(noise(1, 3, 64, 64), repeat4, 20, multiple=8, overlap=16)
