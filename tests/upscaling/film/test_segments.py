from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iart.upscaling.film.segments import LONGEST, SHORTEST, Segments


@given(st.lists(st.integers(1, 3 * LONGEST), max_size=12))
def test_segments_follow_each_other_and_have_a_good_length(lengths: list[int]):
    cuts = [index == 0 and scene > 0 for scene, n in enumerate(lengths) for index in range(n)]
    plan = Segments()
    placed = [plan.place(cut) for cut in cuts]
    starts = sorted({segment.first for segment in placed})
    assert [segment.first for segment in placed] == [
        max(start for start in starts if start <= index) for index in range(len(cuts))
    ]
    assert sorted({segment.number for segment in placed}) == list(range(len(starts)))
    assert starts[:1] == [0][: len(cuts)]
    for start, stop in pairwise(starts):
        assert SHORTEST <= stop - start <= LONGEST
        assert cuts[stop] or stop - start == LONGEST
    for index, cut in enumerate(cuts):
        before = max((start for start in starts if start < index), default=0)
        assert not cut or index in starts or index - before < SHORTEST
