"""Records: means as published, and JSON that comes back equal or says what is wrong."""

import math
from datetime import UTC, datetime

import pytest

from iart.evaluate.record import (
    ClipRecord,
    CropRecord,
    FrameScore,
    Record,
    Setting,
    from_json,
    to_json,
)

CROP = CropRecord("00000001.png", 8, 12, 3.25, b"\x89PNG\r\n", b"\x00\xff", b"", b"\xfe")


def clip(name: str, *psnrs: float, temporal: float | None = None) -> ClipRecord:
    frames = tuple(FrameScore(f"{i:08d}.png", {"psnr": p}) for i, p in enumerate(psnrs))
    return ClipRecord(name, frames, temporal, 1.5, windowed="16 frames, 2 shared", crops=(CROP,))


def record(*clips: ClipRecord) -> Record:
    setting = Setting("vid4", "Vid4, “BI” ×4", "y", expected={"psnr": 23.78})
    date = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Record(
        setting, clips, "iart test", "0.1", "2.13", "light", None, "CPU", None, date, ("n",)
    )


def test_means_are_of_frames_then_of_clips() -> None:
    found = record(clip("a", 30.0, 32.0, temporal=2.0), clip("b", 20.0, temporal=4.0)).means()
    assert found == {"psnr": (31.0 + 20.0) / 2, "tof": 3.0}


def test_only_what_all_have_is_averaged() -> None:
    assert record(clip("a", 30.0, temporal=2.0), clip("b", 20.0)).means() == {"psnr": 25.0}
    uneven = ClipRecord(
        "a", (FrameScore("0", {"psnr": 1.0, "x": 1.0}), FrameScore("1", {"psnr": 3.0})), None, 0.0
    )
    assert uneven.means() == {"psnr": 2.0}
    assert record().means() == {}


def test_json_round_trip() -> None:
    written = record(clip("a", 30.123456789012345, math.inf, temporal=0.1), clip("b", 1 / 3))
    text = to_json(written)
    assert '"Infinity"' in text
    assert from_json(text, Record) == written
    assert from_json(to_json(written.clips[0]), ClipRecord) == written.clips[0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"psnr": 30.0', '"psnr": "NaN"', "NaN"),
        ('"psnr": 30.0', '"psnr": null', "valid number"),
        ('"seconds"', '"second"', "seconds"),
        ('"x": 12', '"x": 12.5', "integer"),
        ("}", "", "JSON"),
    ],
)
def test_damage_is_refused(old: str, new: str, says: str) -> None:
    text = to_json(clip("a", 30.0))
    assert old in text
    with pytest.raises(ValueError, match=says):
        from_json(text.replace(old, new), ClipRecord)


def test_a_record_of_another_kind() -> None:
    with pytest.raises(ValueError, match="Record"):
        from_json(to_json(clip("a", 30.0)), Record)


def test_names_that_are_no_text_are_written_readably() -> None:
    odd = ClipRecord("caf\udce9", (FrameScore("\udcff.png", {"psnr": 1.0}),), None, 0.0)
    read = from_json(to_json(odd), ClipRecord)
    assert (read.name, read.frames[0].name) == ("caf\\udce9", "\\udcff.png")
