from itertools import accumulate, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iart.errors import OptionsError
from iart.upscaling.windows import Begins, Window, check_windows, plan_windows

scenes = st.lists(st.integers(1, 40), min_size=1, max_size=6)
sizes = st.integers(1, 12).flatmap(
    lambda window: st.tuples(st.just(window), st.integers(0, (window - 1) // 2))
)


def cuts_of(scene_lengths: list[int]) -> list[bool]:
    """The first frame of a video is no cut, or it is one: both occur."""
    flags = [i == 0 for n in scene_lengths for i in range(n)]
    return [False, *flags[1:]]


@settings(max_examples=300)
@given(scene_lengths=scenes, size=sizes, first=st.booleans())
def test_every_frame_once_with_context(
    scene_lengths: list[int], size: tuple[int, int], first: bool
):
    window, overlap = size
    cuts = cuts_of(scene_lengths)
    cuts[0] = first
    plan = list(plan_windows(cuts, window, overlap))
    ends = list(accumulate(scene_lengths))

    kept = [i for w in plan for i in range(w.keep_start, w.keep_stop)]
    assert kept == list(range(ends[-1]))
    for w in plan:
        end = next(end for end in ends if end > w.start)
        begin = max((e for e in ends if e <= w.start), default=0)
        assert begin <= w.start <= w.keep_start < w.keep_stop <= w.stop <= end
        assert w.stop - w.start == min(window, end - begin)
        assert w.keep_start - w.start >= min(overlap, w.keep_start - begin)
        assert w.stop - w.keep_stop >= min(overlap, end - w.keep_stop)
        assert range(w.start, w.stop)[w.kept] == range(w.keep_start, w.keep_stop)


@settings(max_examples=200)
@given(scene_lengths=scenes, size=sizes)
def test_windows_come_while_their_frames_are_among_the_newest(
    scene_lengths: list[int], size: tuple[int, int]
):
    window, overlap = size
    taken = 0

    def arriving():
        nonlocal taken
        for cut in cuts_of(scene_lengths):
            taken += 1
            yield cut

    for w in plan_windows(arriving(), window, overlap):
        assert taken - w.start <= window + 1


@settings(max_examples=100)
@given(count=st.integers(1, 100), size=sizes)
def test_no_more_windows_than_needed(count: int, size: tuple[int, int]):
    window, overlap = size
    plan = list(plan_windows(repeat(False, count), window, overlap))
    kept_by_each = window - 2 * overlap
    assert len(plan) == 1 + max(0, -(-(count - window) // kept_by_each))


def test_the_last_window_is_shifted_back():
    assert list(plan_windows(repeat(False, 12), 6, 1)) == [
        Window(0, 6, 0, 5),
        Window(4, 10, 5, 9),
        Window(6, 12, 9, 12),
    ]


def test_windows_end_at_cuts():
    cuts = [False, False, False, True, False, False, False, False]
    assert list(plan_windows(cuts, 4, 1)) == [
        Window(0, 3, 0, 3),
        Window(3, 7, 3, 6),
        Window(4, 8, 6, 8),
    ]


@settings(max_examples=300)
@given(
    marks=st.lists(st.sampled_from((0, 0, 0, 0, 0, 0, 1, 2)), min_size=1, max_size=90), size=sizes
)
def test_chains_of_windows_that_carry_state(marks: list[int], size: tuple[int, int]):
    """Each frame once; state comes from just before it, or context does; context follows."""
    window, overlap = size
    taken = 0

    def arriving():
        nonlocal taken
        for mark in marks:
            taken += 1
            yield mark

    scenes = [0, *(i for i, mark in enumerate(marks) if mark == Begins.SCENE), len(marks)]
    chains = {*scenes, *(i for i, mark in enumerate(marks) if mark == Begins.CHAIN)}
    kept: list[int] = []
    for w in plan_windows(arriving(), window, overlap, carried=True):
        assert taken - w.start <= window + 1
        begin = max(scene for scene in scenes if scene <= w.keep_start)
        end = min(scene for scene in scenes if scene > w.keep_start)
        assert begin <= w.start <= w.keep_start < w.keep_stop <= w.stop <= end
        assert w.stop - w.start <= window
        assert w.stop - w.keep_stop >= min(overlap, end - w.keep_stop)
        assert w.is_carried == (w.keep_start not in chains)
        context = 0 if w.is_carried else min(overlap, w.keep_start - begin)
        assert w.keep_start - w.start == context
        assert chains.isdisjoint(range(w.keep_start + 1, w.keep_stop))
        kept += range(w.keep_start, w.keep_stop)
    assert kept == list(range(len(marks)))


def test_only_context_that_follows_is_computed_twice_where_state_is_carried():
    plan = list(plan_windows(repeat(Begins.NOTHING, 1303), 16, 3, carried=True))
    assert sum(w.stop - w.start for w in plan) / 1303 == pytest.approx(16 / 13, abs=0.005)


def test_no_frames_no_windows():
    assert list(plan_windows([])) == []


@pytest.mark.parametrize("size", [(0, 0), (-3, 0), (4, -1), (4, 2), (5, 3), (1, 1)])
def test_windows_that_keep_nothing_are_refused(size: tuple[int, int]):
    with pytest.raises(OptionsError, match=r"(window|overlap) must be"):
        list(plan_windows([False], *size))


def test_a_window_longer_than_any_video_is_refused():
    with pytest.raises(OptionsError, match="window must be 1 to"):
        check_windows(10**20, 3)
