"""Comparisons find what differs, match by time and size, say what they did, and can be watched."""

import inspect
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iart import cli
from iart.compare import CompareResult, compare, format_result
from iart.errors import InputError, OptionsError, OutputError
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import bicubic
from tests.video.clips import make_clip, make_plain, picture, pictures, save_image

FRAMES = 6
LOSSLESS = {"codec": "ffv1", "pixel_format": "bgr0"}


def lossless(path: Path, images: list[np.ndarray], **more) -> Path:
    return make_clip(path, images, **LOSSLESS, **more)


def watched(path: Path) -> list[np.ndarray]:
    """Every frame of a video, uint8 RGB."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def spoiled(images: list[np.ndarray], index: int) -> list[np.ndarray]:
    """The same with a grey square of 12 pixels at x 32, y 16 of one frame."""
    images = [image.copy() for image in images]
    images[index][16:28, 32:44] = 90
    return images


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return lossless(tmp_path / "a.mkv", pictures(FRAMES))


def test_the_frame_that_differs_is_found(tmp_path: Path, clip: Path):
    other = lossless(tmp_path / "b.mkv", spoiled(pictures(FRAMES), 4))
    result = compare(clip, other, output=tmp_path / "out")
    (scores,) = result.scores
    assert [math.isinf(value) for value in scores.psnr] == [i != 4 for i in range(FRAMES)]
    error = (picture(4).astype(float) - spoiled(pictures(FRAMES), 4)[4]) ** 2
    assert scores.psnr[4] == pytest.approx(10 * math.log10(255**2 / error.mean()))
    assert scores.worst_frame == 4
    assert (scores.equal, result.frames, result.truth) == (FRAMES - 1, FRAMES, "b.mkv")
    assert scores.mean_psnr == scores.psnr[4]
    assert scores.ssim[4] < min(scores.ssim[:4])
    assert result.notes == ()
    assert "frame 4 at 0.160 s: " in result.plot.read_text()
    with Image.open(result.sheet) as sheet:  # two columns of a detail that is the whole picture
        pixels = np.asarray(sheet)[36 + 26 :][: 48 * 3]
    left, right = np.split(pixels[::3, ::3], 2, axis=1)
    assert np.array_equal(left, picture(4))
    assert np.array_equal(right, spoiled(pictures(FRAMES), 4)[4])


def test_everything_lies_in_the_folder_and_can_be_read(tmp_path: Path, clip: Path):
    result = compare(clip, clip, output=tmp_path / "out")
    names = ["compare.html", "compare.mp4", "compare.png", "compare.svg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert result.scores[0].mean_psnr == math.inf
    assert result.scores[0].mean_ssim == pytest.approx(1)
    charts = ElementTree.parse(result.plot).getroot()
    assert len(charts.findall("{http://www.w3.org/2000/svg}svg")) == 2
    html = result.page.read_text()
    assert "data:image/png;base64," in html
    assert "http" not in html
    assert "1 a.mkv" in html


def test_side_by_side_shows_both_and_the_reference(tmp_path: Path, clip: Path):
    dark = lossless(tmp_path / "b.mkv", [image // 2 for image in pictures(FRAMES)])
    result = compare(clip, dark, reference=clip, output=tmp_path / "out")
    frames = watched(result.video)
    assert (len(frames), frames[0].shape) == (FRAMES, (48, 3 * 64, 3))
    for index, (frame, shown) in enumerate(zip(frames, pictures(FRAMES), strict=True)):
        columns = np.split(frame.astype(float), 3, axis=1)
        for column, expected in zip(columns, (shown, shown // 2, shown), strict=True):
            assert np.abs(column - expected)[24:].mean() < 6, index
    first, second = result.scores
    assert first.mean_psnr == math.inf
    assert second.mean_psnr < 20
    assert [scores.label for scores in result.scores] == [f"1 {clip.name}", "2 b.mkv"]


def test_a_wipe_shows_one_on_either_side_of_its_line(tmp_path: Path):
    black = lossless(tmp_path / "a.mkv", [np.zeros((96, 128, 3), np.uint8)] * 36)
    grey = lossless(tmp_path / "b.mkv", [np.full((96, 128, 3), 128, np.uint8)] * 36)
    fixed = compare(black, grey, output=tmp_path / "fixed.mkv", view="wipe", divider=0.25)
    for frame in watched(fixed.video)[::13]:
        assert frame[60, :30].max() < 10
        assert abs(frame[60, 36:].astype(int) - 128).max() < 10
        assert frame[60, 30:34].max() > 200
    moving = watched(compare(black, grey, output=tmp_path / "moving.mp4", view="wipe").video)
    places = [int((frame[60, :, 0] < 40).sum()) for frame in moving]
    assert 60 <= places[0] <= 64 < 110 < places[-1]
    assert all(a <= b for a, b in pairwise(places))


def test_labels_are_drawn(tmp_path: Path):
    images = [np.zeros((96, 160, 3), np.uint8)] * 2
    a, b = lossless(tmp_path / "one.mkv", images), lossless(tmp_path / "two.mkv", images)
    frame = watched(compare(a, b, output=tmp_path / "out").video)[0]
    for column in np.split(frame, 2, axis=1):
        assert column[:20].max() > 200
        assert column[30:].max() < 10


def test_the_smaller_one_is_enlarged_and_it_says_so(tmp_path: Path, clip: Path):
    large = lossless(tmp_path / "b.mkv", [picture(i, 192, 96) for i in range(FRAMES)])
    result = compare(clip, large, output=tmp_path / "out")
    assert result.notes == (
        "a.mkv is 64x48 and was enlarged to 192x96 by bicubic interpolation",
        "a.mkv is 1.33:1, not 2.00:1 as shown, and was stretched",
    )
    assert watched(result.video)[0].shape == (96, 2 * 192, 3)


def test_a_smaller_reference_measures_consistency_with_the_source(tmp_path: Path):
    """The result that is the source when reduced wins, and its own details do not count."""
    rng = np.random.default_rng(0)
    fine = rng.integers(-20, 20, (2, 96, 128, 1))
    smooth = [np.asarray(Image.fromarray(picture(i)).resize((128, 96))) for i in range(2)]
    rich = [np.clip(s + f, 0, 255).astype(np.uint8) for s, f in zip(smooth, fine, strict=True)]
    small = [
        to_uint8(bicubic(torch.from_numpy(image).permute(2, 0, 1) / 255, 48, 64))
        .permute(1, 2, 0)
        .numpy()
        for image in rich
    ]
    paths = [
        lossless(tmp_path / f"{name}.mkv", images)
        for name, images in (("rich", rich), ("smooth", smooth), ("in", small))
    ]
    result = compare(paths[0], paths[1], reference=paths[2], output=tmp_path / "out")
    assert result.source
    assert result.scores[0].equal == 2
    assert result.scores[1].equal == 0
    (note,) = result.notes
    assert note.startswith("in.mkv is 64x48, smaller than the results (128x96): for the scores")
    assert "consistent the results are with it as their source" in note
    assert "consistency with the source in.mkv, 2 frames" in format_result(result)
    assert "against in.mkv" in result.page.read_text()
    frame = watched(result.video)[0]
    assert frame.shape == (96, 2 * 128, 3)  # not enlarged, hence not beside them
    for column, expected in zip(np.split(frame, 2, axis=1), (rich[0], smooth[0]), strict=True):
        assert np.abs(column[48:].astype(int) - expected[48:]).mean() < 12


def test_the_shorter_one_ends_it_and_it_says_so(tmp_path: Path, clip: Path):
    longer = lossless(tmp_path / "b.mkv", pictures(FRAMES + 3))
    for pair in ((clip, longer), (longer, clip)):
        result = compare(*pair, output=tmp_path / f"{pair[0].stem}.mp4")
        assert result.frames == FRAMES
        assert result.scores[0].equal == FRAMES
        assert result.notes == ("a.mkv ends at 0.240 s: the rest of b.mkv is left out",)


def test_other_rates_are_matched_by_time(tmp_path: Path, clip: Path):
    twice = [image for image in pictures(FRAMES) for _ in range(2)]
    fast = lossless(tmp_path / "b.mkv", twice, rate=Fraction(50))
    for pair, frames in (((clip, fast), FRAMES), ((fast, clip), 2 * FRAMES)):
        result = compare(*pair, output=tmp_path / f"{pair[0].stem}.mp4")
        assert result.frames == frames
        assert "nearest in time" in result.notes[0]
    assert compare(clip, fast, output=tmp_path / "c.mp4").scores[0].equal == FRAMES


def test_times_count_from_the_first_frame(tmp_path: Path):
    clip = make_plain(tmp_path / "a.mp4", frames=FRAMES)
    late = make_plain(tmp_path / "b.mp4", frames=FRAMES, pts=[i + 50 for i in range(FRAMES)])
    result = compare(clip, late, output=tmp_path / "out")
    assert (result.scores[0].equal, result.notes) == (FRAMES, ())


def test_images_take_the_rate_of_the_video(tmp_path: Path):
    clip = lossless(tmp_path / "a.mkv", pictures(FRAMES), rate=Fraction(10))
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(pictures(FRAMES)):
        save_image(folder / f"{index}.png", image, pixel_format="rgb24")
    result = compare(folder, clip, output=tmp_path / "out")
    assert (result.scores[0].equal, result.notes) == (FRAMES, ())
    with pytest.raises(OutputError, match="it is an input"):
        compare(folder, clip, output=folder)


def test_what_exists_stays(tmp_path: Path, clip: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.svg").write_text("mine")
    with pytest.raises(OutputError, match=r"compare\.svg': it exists; pass --overwrite"):
        compare(clip, clip, output=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["compare.svg"]
    assert (tmp_path / "out" / "compare.svg").read_text() == "mine"
    compare(clip, clip, output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "compare.svg").read_text() != "mine"


def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, clip: Path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"missing\.mkv"):
        compare(clip, tmp_path / "missing.mkv", output=out)
    with pytest.raises(OptionsError, match="side, wipe"):
        compare(clip, clip, output=out, view="top")
    with pytest.raises(OptionsError, match="--view wipe"):
        compare(clip, clip, output=out, divider=0.5)
    with pytest.raises(OptionsError, match="divider must be"):
        compare(clip, clip, output=out, view="wipe", divider=1.5)
    assert not out.exists()
    with pytest.raises(OutputError, match="it is the input"):
        compare(clip, clip, output=clip, overwrite=True)
    with pytest.raises(OutputError, match="unknown ending"):
        compare(clip, clip, output=tmp_path / "out.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_odd_sizes_become_even(tmp_path: Path):
    clip = lossless(tmp_path / "a.mkv", [picture(i, 63, 47) for i in range(2)])
    frame = watched(compare(clip, clip, output=tmp_path / "out", view="wipe").video)[0]
    assert frame.shape == (48, 64, 3)


def test_the_command_compares(tmp_path: Path):
    clip = make_plain(tmp_path / "a.mp4", frames=FRAMES)
    large = make_clip(tmp_path / "b.mp4", frames=FRAMES, width=128, height=96)
    command = ["compare", str(clip), str(large), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "note: a.mp4 is 64x48 and was enlarged" in done.stderr
    assert "against b.mp4, 6 frames" in done.stdout
    assert str(tmp_path / "out" / "compare.html") in done.stdout
    again = CliRunner().invoke(cli.app, command)
    assert again.exit_code == 1
    assert "pass --overwrite" in again.stderr


def test_flags_are_keywords_of_compare():
    flags = inspect.signature(cli.compare).parameters
    words = inspect.signature(compare).parameters
    assert flags.keys() - {"json", "quiet", "verbose"} == words.keys() - {"progress"}
    for name in words.keys() - {"progress"}:
        assert flags[name].default == words[name].default


def test_the_result_names_its_files(tmp_path: Path, clip: Path):
    result = compare(clip, clip, output=tmp_path / "seen.mkv")
    assert isinstance(result, CompareResult)
    for path in (result.video, result.sheet, result.plot, result.page):
        assert path.parent == tmp_path
        assert path.stem == "seen"
        assert path.stat().st_size > 0
