"""Vertical motion of fine texture, which looks like fields of several moments."""

import av
import numpy as np
import pytest

from iart.video.fields.classify import Content, FieldMeter, Labels, believed, judge

_HEIGHT, _WIDTH, _COUNT = 96, 128, 16

Place = tuple[int, Content, bool | None]


def _credits(rng: np.random.Generator) -> np.ndarray:
    """Small type, sharp to the row."""
    page = np.full((400, _WIDTH), 16.0)
    for top in range(4, 388, 12):
        for left in range(10, 110, 6):
            page[top : top + 7, left : left + 4] += 210 * (rng.random((7, 4)) > 0.5)
    return page


def _lines(rng: np.random.Generator) -> np.ndarray:
    """Fine horizontal texture."""
    return rng.integers(30, 220, (400, 1)) + rng.normal(0, 8, (400, _WIDTH))


def _softened(page: np.ndarray) -> np.ndarray:
    return (np.roll(page, 1, 0) + 2 * page + np.roll(page, -1, 0)) / 4


def _at(page: np.ndarray, row: float) -> np.ndarray:
    whole = int(row)
    part = row - whole
    upper, lower = (page[first : first + _HEIGHT] for first in (whole, whole + 1))
    return (1 - part) * upper + part * lower


def _kind(pictures: list[np.ndarray]) -> str | None:
    meter = FieldMeter()
    labels = []
    for picture in pictures:
        values = picture.clip(0, 255).round().astype(np.uint8)
        labels.append(meter.label(av.VideoFrame.from_ndarray(values, format="gray")))
    verdict = judge(labels[1:])
    return verdict and verdict[0]


@pytest.mark.parametrize("rows", [0.25, 0.5, 0.75, 1, 1.25, 2, 3, 4])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("draw", [_credits, _lines])
def test_vertical_motion_of_whole_frames_is_no_fields(draw, soft: bool, rows: float):
    page = draw(np.random.default_rng(0))
    page = _softened(page) if soft else page
    assert _kind([_at(page, rows * index) for index in range(_COUNT)]) in (None, "progressive")


@pytest.mark.parametrize("rows", [1.5, 3])
@pytest.mark.parametrize("draw", [_credits, _lines])
def test_fields_that_move_vertically_are_still_found(draw, rows: float):
    page = _softened(draw(np.random.default_rng(0)))
    woven = []
    for index in range(_COUNT):
        picture = _at(page, rows * index).copy()
        picture[1::2] = _at(page, rows * (index + 0.5))[1::2]
        woven.append(picture)
    assert _kind(woven) == "interlaced"


def test_one_place_of_many_is_no_proof_of_fields():
    credits_: list[Place] = [(19, "interlaced", True), (19, "interlaced", True)]
    assert believed(credits_, 20) == []
    told: list[Place] = [(place, "progressive", None) for place in range(4)]
    assert believed([*told, *credits_], 20) == [("progressive", None)] * 4
    two: list[Place] = [(3, "interlaced", True), (9, "hard telecine", True)]
    assert believed(two, 20) == [("interlaced", True), ("hard telecine", True)]
    # short videos are looked at whole
    assert believed(credits_, 1) == [("interlaced", True)] * 2


def test_a_few_pictures_do_not_settle_a_place():
    tell, silent = [Labels("i", "x")], [Labels(".", ".")]
    assert judge(5 * tell + 10 * silent) is None
    assert judge(6 * tell + 9 * silent) == ("interlaced", True)
