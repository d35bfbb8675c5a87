from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iart.errors import OptionsError
from iart.upscaling.tiles import make_in_tiles, plan_tiles
from tests.upscaling.test_clip import noise, repeat4

sides = st.integers(1, 60)
tilings = st.tuples(st.integers(0, 8), st.sampled_from([1, 2, 8])).flatmap(
    lambda t: st.tuples(st.integers(t[0] + t[1], 40), st.just(t[1]), st.just(t[0]))
)


@settings(max_examples=300)
@given(size=st.integers(1, 500), tiling=tilings)
def test_tiles_cover_the_axis(size: int, tiling: tuple[int, int, int]):
    tile, multiple, overlap = tiling
    tiles = plan_tiles(size, tile, multiple, overlap)
    assert (tiles[0].start, tiles[-1].stop) == (0, size)
    assert all(place.start % multiple == 0 for place in tiles)
    assert all(0 < place.stop - place.start <= tile for place in tiles)
    for here, after in pairwise(tiles):
        assert here.start < after.start == here.stop - overlap
        assert after.stop > here.stop
    lengths = [place.stop - place.start for place in tiles[:-1]]
    assert len(set(lengths)) <= 1


def test_tiles_are_as_few_as_can_be_and_nearly_equal():
    assert plan_tiles(720, 400, 16, 32) == [slice(0, 384), slice(352, 720)]
    assert plan_tiles(400, 400, 16, 32) == [slice(0, 400)]
    assert plan_tiles(401, 400, 16, 32) == [slice(0, 224), slice(192, 401)]


@settings(max_examples=50)
@given(h=sides, w=sides, tiling=tilings, channels_last=st.booleans())
def test_tiles_of_an_exact_model_are_exact(
    h: int, w: int, tiling: tuple[int, int, int], channels_last: bool
):
    tile, multiple, overlap = tiling
    clip = noise(2, 3, h, w)

    def make(ys: slice, xs: slice) -> Tensor:
        large = repeat4(clip[..., ys, xs])
        return large.movedim(1, -1) if channels_last else large

    axes = (1, 2) if channels_last else (-2, -1)
    large = make_in_tiles(h, w, make, tile, multiple=multiple, overlap=overlap, axes=axes)
    assert large.equal(repeat4(clip).movedim(1, -1) if channels_last else repeat4(clip))


def test_a_seam_fades_from_one_tile_to_the_next_in_the_middle_of_what_they_share():
    shades = iter([0.0, 1.0])

    def make(ys: slice, xs: slice) -> Tensor:
        return torch.full((1, 3, 4 * 5, 4 * (xs.stop - xs.start)), next(shades))

    line = make_in_tiles(5, 24, make, 16, multiple=4, overlap=8)[0, 0, 0]
    assert line[:44].eq(0).all()  # they share [32, 64), and fade in a quarter of it
    assert line[52:].eq(1).all()
    torch.testing.assert_close(line[44:52], (torch.arange(8) + 0.5) / 8)


def test_a_tile_too_small_is_refused():
    with pytest.raises(OptionsError, match="tile must be at least 24 pixels, got 20"):
        make_in_tiles(64, 64, lambda ys, xs: noise(1), 20, multiple=8, overlap=16)
