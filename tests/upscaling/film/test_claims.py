"""Every segment has one owner; what a lost owner had begun goes to others."""

from pathlib import Path

import pytest

from iart.errors import DeviceError
from iart.upscaling.film.job import End
from iart.upscaling.film.segments import PictureStore
from iart.upscaling.film.worker import MOST_LOSSES, Claim, Claims, Done
from iart.video.write.image_series import PicturePlan


class SegmentStore(PictureStore):
    """Of segments that are said to be finished."""


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    plan = PicturePlan.__new__(PicturePlan)  # nothing is written
    return SegmentStore(tmp_path, plan)


def finish(store: SegmentStore, number: int) -> None:
    (store.folder / f"{number:06d}.json").write_text(f"[{50 * number}, {50 * number + 50}]")


def test_the_next_that_nobody_has(store: SegmentStore):
    finish(store, 1)
    claims = Claims(store, lambda frames: None)
    a, b = object(), object()
    assert [claims.answer(a, Claim(0)), claims.answer(b, Claim(0))] == [0, 2]
    assert [claims.answer(a, Claim(1)), claims.answer(b, Claim(6))] == [3, 6]
    claims.answer(a, End(250, 5))
    assert not claims.are_all_given
    assert [claims.answer(a, Claim(4)), claims.answer(b, Claim(4))] == [4, None]
    assert claims.are_all_given


def test_a_lost_owner_leaves_what_it_did_not_finish(store: SegmentStore):
    claims = Claims(store, lambda frames: None)
    a, b = object(), object()
    assert [claims.answer(a, Claim(0)) for _ in range(3)] == [0, 1, 2]
    finish(store, 0)
    claims.answer(b, End(150, 3))
    assert claims.answer(b, Claim(0)) is None
    assert not claims.release(a)
    assert [claims.answer(b, Claim(0)) for _ in range(3)] == [1, 2, None]
    assert store.missing(150) == [range(50, 150)]


def test_what_is_lost_again_and_again_is_told(store: SegmentStore):
    claims = Claims(store, lambda frames: None)
    lost: list[int] = []
    for _ in range(MOST_LOSSES):
        owner = object()
        assert claims.answer(owner, Claim(0)) == 0
        lost = claims.release(owner)
    assert lost == [0]


def test_frames_are_counted_until_it_is_stopped(store: SegmentStore):
    counted: list[int] = []
    claims = Claims(store, counted.append)
    claims.answer(self := object(), Done(3))
    claims.stop(DeviceError("no worker is left"))
    with pytest.raises(DeviceError, match="no worker is left"):
        claims.answer(self, Done(3))
    assert counted == [3]
