"""An output folder: runs never mix, a run is resumed, two at once are refused."""

from pathlib import Path

import pytest

from iart.errors import OutputError
from iart.evaluate.clips import Clip
from iart.evaluate.record import ClipRecord, FrameScore
from iart.evaluate.results import FinishedClip, open_results

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
