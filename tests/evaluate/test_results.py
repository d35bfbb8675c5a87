"""Records: means as published, JSON that comes back equal; and folders that a later run resumes."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iart.errors import OutputError
from iart.evaluate.clips import Clip
from iart.evaluate.results import (
    ClipRecord,
    CropRecord,
    FinishedClip,
    FrameScore,
    Record,
    Setting,
    from_json,
    open_results,
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


IDENTITY = {"weights": "abc", "limit": None, "protocol": {"name": "made"}}


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    made = []
    for name in ("a", "x/b", "c"):
        image = tmp_path / f"{name.replace('/', '_')}.png"
        image.write_bytes(b"image")
        made.append(Clip(name, (4, 4), (0,), (image,), (image,)))
    return made


def done(name: str, psnr: float = 30.0) -> FinishedClip:
    score = FrameScore("0.png", {"psnr": psnr})
    return FinishedClip(ClipRecord(name, (score,), None, 1.5), "a device", ("a note",))


def work(
    folder: Path, clips: list[Clip], identity: dict[str, object] = IDENTITY, **options: bool
) -> list[str]:
    """Names of the clips that a run does."""
    with open_results(folder, clips, identity, **options) as results:
        names = [clip.name for clip in results.left()]
        for name in names:
            results.save(done(name))
        assert results.left() == []
        assert results.in_order() == [done(clip.name) for clip in clips]
    return names


def test_a_second_run_has_nothing_to_do(tmp_path: Path, clips: list[Clip]):
    assert work(tmp_path / "out", clips) == ["a", "x/b", "c"]
    assert (tmp_path / "out" / "clips" / "x" / "b.json").is_file()
    assert work(tmp_path / "out", clips) == []


def test_what_is_missing_or_damaged_is_done_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    (tmp_path / "out" / "clips" / "a.json").unlink()
    (tmp_path / "out" / "clips" / "c.json").write_text("{")
    assert work(tmp_path / "out", clips) == ["a", "c"]


def test_a_clip_whose_images_changed_is_done_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    clips[1].gt[0].write_bytes(b"another image")
    assert work(tmp_path / "out", clips) == ["x/b"]


def test_overwrite_does_all_again(tmp_path: Path, clips: list[Clip]):
    work(tmp_path / "out", clips)
    assert work(tmp_path / "out", clips, overwrite=True) == ["a", "x/b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "def"}, r"another weights \(abc, now def\)"),
        ({"limit": 3}, r"another limit \(None, now 3\)"),
        ({"protocol": {"name": "made", "border": 1}}, "another protocol"),
    ],
)
def test_runs_do_not_mix(
    tmp_path: Path, clips: list[Clip], change: dict[str, object], message: str
):
    work(tmp_path / "out", clips)
    with pytest.raises(OutputError, match=message + r".*--overwrite"):
        work(tmp_path / "out", clips, IDENTITY | change)
    everything = ["a", "x/b", "c"]
    assert work(tmp_path / "out", clips, IDENTITY | change, overwrite=True) == everything


def test_a_run_that_finished_nothing_is_in_nobodys_way(tmp_path: Path, clips: list[Clip]):
    with open_results(tmp_path / "out", clips, IDENTITY | {"limit": 3}):
        pass
    assert work(tmp_path / "out", clips) == ["a", "x/b", "c"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_at_once_are_refused(tmp_path: Path, clips: list[Clip], overwrite: bool):
    with open_results(tmp_path / "out", clips, IDENTITY) as results:
        results.save(done("a"))
        with pytest.raises(OutputError, match=r"another run is writing to '.*out'.*--output"):
            work(tmp_path / "out", clips, overwrite=overwrite)
    assert work(tmp_path / "out", clips) == ["x/b", "c"]


def test_a_place_that_cannot_be_written(tmp_path: Path, clips: list[Clip]):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        work(tmp_path / "file", clips)
    work(tmp_path / "out", clips[:1])
    (tmp_path / "out" / "run.json").write_text("no JSON")
    with pytest.raises(OutputError, match=r"run.json' is not of a benchmark run.*--overwrite"):
        work(tmp_path / "out", clips)
    assert work(tmp_path / "out", clips, overwrite=True) == ["a", "x/b", "c"]


def test_overwriting_removes_nothing_that_is_not_ours(tmp_path: Path, clips: list[Clip]):
    mine = tmp_path / "out" / "clips" / "mine.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_text("a video")
    work(tmp_path / "out", clips, overwrite=True)
    work(tmp_path / "out", clips, overwrite=True)
    assert mine.read_text() == "a video"
