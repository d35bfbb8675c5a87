"""Whole clips of low resolution as real footage has it, on disk."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iart.cli.data import data
from iart.data.degrade_clips import degrade_clips
from iart.data.stores.video import VideoFrames
from iart.errors import DataError, OutputError
from tests.data.degradation.made import sliding

COUNTS = {"a": 6, "b/c": 3}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, count in COUNTS.items():
        folder = tmp_path / "GT" / name
        folder.mkdir(parents=True)
        frames = (sliding(count, 4.0, side=130) * 255).byte().permute(0, 2, 3, 1).numpy()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"f{number}.png")
    return tmp_path / "GT"


def pixels(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(folder.rglob("*.png")):
        with Image.open(file) as image:
            found[file.relative_to(folder).as_posix()] = np.asarray(image)
    return found


@pytest.mark.parametrize("kind", ["mpeg2", "dvd", "tape", "web"])
def test_the_same_tree_at_a_quarter(source: Path, tmp_path: Path, kind):
    shown: list[tuple[int, int]] = []
    count = degrade_clips(source, tmp_path / "LQ", kind, progress=lambda *n: shown.append(n))
    assert (count, shown[-1]) == (9, (9, 9))
    low = pixels(tmp_path / "LQ")
    assert sorted(low) == sorted(pixels(source))
    assert {picture.shape for picture in low.values()} == {(32, 32, 3)}
    for name, truth in pixels(source).items():
        small = np.asarray(
            Image.fromarray(truth[:128, :128]).resize((32, 32), Image.Resampling.BOX)
        )
        assert np.abs(small.astype(float) - low[name]).mean() < 45
    # an equal call makes nothing, and another folder gets equal frames
    assert degrade_clips(source, tmp_path / "LQ", kind) == 0
    degrade_clips(source, tmp_path / "again", kind)
    again = pixels(tmp_path / "again")
    assert all(np.array_equal(again[name], low[name]) for name in low)
    degrade_clips(source, tmp_path / "other", kind, seed=1)
    other = pixels(tmp_path / "other")
    assert not all(np.array_equal(other[name], low[name]) for name in low)


def test_what_was_made_otherwise_stays(source: Path, tmp_path: Path):
    target = tmp_path / "LQ"
    degrade_clips(source, target, "web")
    mine = target / "a" / "f2.png"
    Image.new("RGB", (32, 32)).save(mine)
    before = mine.read_bytes()
    with pytest.raises(OutputError, match="this command did not make; pass --overwrite"):
        degrade_clips(source, target, "web")
    with pytest.raises(OutputError, match="did not make"):
        degrade_clips(source, target, "web", seed=1)
    assert mine.read_bytes() == before
    assert degrade_clips(source, target, "web", overwrite=True) == 6  # of its clip alone
    assert mine.read_bytes() != before
    mine.unlink()
    assert degrade_clips(source, target, "web") == 6


def test_lossless_videos(source: Path, tmp_path: Path):
    degrade_clips(source, tmp_path / "LQ", "web")
    assert degrade_clips(source, tmp_path / "video", "web", ffv1=True) == 9
    low = pixels(tmp_path / "LQ")
    for name, count in COUNTS.items():
        frames = VideoFrames(tmp_path / "video" / f"{name}.mkv", name)
        assert (frames.count, frames.size) == (count, (32, 32))
        expected = [low[f"{name}/f{number}.png"] for number in range(count)]
        np.testing.assert_array_equal(frames.read(range(count), 0, 0, 32, 32), expected)
    assert degrade_clips(source, tmp_path / "video", "web", ffv1=True) == 0
    with pytest.raises(OutputError, match="did not make"):
        degrade_clips(source, tmp_path / "video", "dvd", ffv1=True)
    with av.open(str(tmp_path / "video" / "a.mkv")) as container:
        assert container.streams.video[0].codec_context.name == "ffv1"
    # videos are degraded like folders
    assert degrade_clips(tmp_path / "video", tmp_path / "twice", "dvd") == 9


def test_the_command(source: Path, tmp_path: Path):
    arguments = ["degrade", str(source), str(tmp_path / "LQ"), "--kind", "tape", "--seed", "3"]
    result = CliRunner().invoke(data, [*arguments, "--sheet", str(tmp_path / "sheet.png")])
    assert (result.exit_code, result.output.split(": ")[-1]) == (0, "9 images written\n")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 5 * 4 * 32  # the reduction alone and four kinds
    result = CliRunner().invoke(data, [*arguments, "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    result = CliRunner().invoke(data, [*arguments[:-3], "bi", "--ffv1"])
    assert "--ffv1 goes with mpeg2, dvd, tape, web" in result.output


def test_sources_that_do_not_fit(source: Path, tmp_path: Path):
    with pytest.raises(DataError, match="it lies in"):
        degrade_clips(source, source / "LQ", "dvd")
    with pytest.raises(DataError, match="no clips in"):
        degrade_clips(tmp_path / "none", tmp_path / "LQ", "dvd")
