from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iart.pictures.orientation import Orientation, orientation_of_matrix
from iart.video.read.timing import Clock, LossLog

MILLISECOND = Fraction(1, 1000)
RATE = Fraction(25)

stated_times = st.lists(
    st.tuples(st.none() | st.integers(-10_000, 10_000), st.none() | st.integers(0, 200))
)


def place(times: list[int | None], *, regular: bool = True, duration: int | None = 40):
    log = LossLog()
    clock = Clock(MILLISECOND, RATE, log, regular=regular)
    return [clock.place(time, duration)[0] for time in times], log.losses


@given(stated_times)
def test_times_increase_whatever_is_stated(stated: list[tuple[int | None, int | None]]):
    log = LossLog()
    clock = Clock(MILLISECOND, RATE, log)
    placed = [clock.place(time, duration)[0] for time, duration in stated]
    assert all(a < b for a, b in pairwise(placed))
    for before, after in pairwise(log.losses):
        assert before.end_seconds is not None
        assert before.end_seconds < after.start_seconds


def test_missing_times_are_filled_in_without_drift():
    log = LossLog()
    clock = Clock(MILLISECOND, Fraction(30), log)
    placed = [clock.place(None, None)[0] for _ in range(301)]
    assert placed[300] == 10_000
    assert log.losses == []


def test_a_repeated_time_moves_by_one_tick_and_is_recorded():
    placed, losses = place([0, 40, 40, 120])
    assert placed == [0, 40, 41, 120]
    assert "repeat" in losses[0].reason


def test_a_jump_back_shifts_all_that_follows():
    placed, losses = place([5000, 5040, 0, 40, 80])
    assert placed == [5000, 5040, 5080, 5120, 5160]
    assert len(losses) == 1
    assert losses[0].reason.startswith("times jump back by 5.080 s")


def test_a_hole_in_an_even_video_is_a_loss():
    even = list(range(0, 1600, 40))
    _, losses = place([*even, even[-1] + 160, even[-1] + 200])
    assert [(loss.start_seconds, loss.end_seconds) for loss in losses] == [
        (Fraction(8, 5), Fraction(43, 25))
    ]
    assert losses[0].reason == "3 frames are missing"


@pytest.mark.parametrize("hole", [57, 100])
def test_uneven_times_are_no_loss(hole: int):
    even = list(range(0, 1600, 40))
    assert place([*even, even[-1] + 40 + hole])[1] == []
    assert place([0, 40, 80, 240, 280])[1] == []
    assert place([*even, even[-1] + 160], regular=False)[1] == []


def test_losses_that_touch_become_one():
    log = LossLog()
    log.add(Fraction(5), Fraction(6), "b")
    log.add(Fraction(1), Fraction(2), "a")
    log.add(Fraction(2), Fraction(5), "b")
    (loss,) = log.losses
    assert (loss.start_seconds, loss.end_seconds) == (1, 6)
    assert set(loss.reason.split("; ")) == {"a", "b"}


def test_slanted_display_matrices_are_not_applied():
    assert orientation_of_matrix(0.8, 0.6, -0.6, 0.8) == Orientation()
    assert orientation_of_matrix(0.0, 0.0, 0.0, 0.0) == Orientation()
    assert orientation_of_matrix(0.0, 1.0, -1.0, 0.0).rotation == 90
