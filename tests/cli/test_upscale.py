"""`iart upscale`: many files, ranges, and looks at what will come."""

import os
import socket
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from iart.cli.flags import split_devices
from iart.pictures.color_tags import color_name
from iart.video.open import open_video
from tests.cli.test_cli import assert_fails, iart, upscale
from tests.video.clips import make_clip, pictures, save_image, truncate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two films, and one that is none."""
    (tmp_path / "in").mkdir()
    for name in ("a.mkv", "b.mp4"):
        make_clip(tmp_path / "in" / name, frames=30, audio=["eng"])
    (tmp_path / "in" / "broken.avi").write_bytes(b"no film")
    return tmp_path / "in"


def test_one_bad_file_does_not_stop_the_others(folder: Path, tmp_path: Path):
    result = upscale(folder, tmp_path / "out")
    assert result.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mkv", "b.mp4"]
    lines = result.stderr.splitlines()
    assert lines[0] == f"1 of 3: {folder / 'a.mkv'}"
    assert [line for line in lines if line.startswith("error: ")] == [
        line.replace(f"failed: {folder / 'broken.avi'}", "error")
        for line in lines
        if line.startswith("failed: ")
    ]
    assert "broken.avi" in lines[-1]

    files = [folder / "a.mkv", folder / "b.mp4"]
    again = iart(
        "upscale", *files, "-o", tmp_path / "out", "--model", "bicubic", "--container", "mkv"
    )
    assert again.exit_code == 0
    assert f"{tmp_path / 'out' / 'a.mkv'}: done before" in again.stderr
    assert (tmp_path / "out" / "b.mkv").exists()


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_same_command_goes_on_with_the_rest(folder: Path, tmp_path: Path, more: tuple[str]):
    (folder / "broken.avi").unlink()
    output = tmp_path / "out"
    upscale(folder, output)
    made = (output / "a.mkv").stat().st_mtime_ns
    (output / "b.mp4").unlink()  # as if the batch had been stopped
    again = upscale(folder, output, *more)
    assert again.exit_code == 0, again.output
    assert f"{output / 'a.mkv'}: done before" in again.stderr
    assert (output / "a.mkv").stat().st_mtime_ns == made
    assert (output / "b.mp4").exists()


def test_what_changed_since_was_not_done_before(folder: Path, tmp_path: Path):
    output = tmp_path / "out.mkv"
    upscale(folder / "a.mkv", output)
    assert_fails(upscale(folder / "a.mkv", output, "--crf", "40"), "it exists")
    os.utime(output)
    assert_fails(upscale(folder / "a.mkv", output), "it exists")
    upscale(folder / "a.mkv", output, "--overwrite")
    os.utime(folder / "a.mkv")
    assert_fails(upscale(folder / "a.mkv", output), "it exists")


def test_damage_is_told_again(folder: Path, tmp_path: Path):
    source = truncate(folder / "a.mkv", 0.6)
    first, second = (upscale(source, tmp_path / "out.mkv") for _ in range(2))
    assert first.exit_code == second.exit_code == 1
    assert "is written, but" in first.stderr
    assert first.stderr.splitlines()[-1] == second.stderr.splitlines()[-1]


def test_images_are_done_before(folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    upscale(folder / "a.mkv", output, "--images")
    assert "done before" in upscale(folder / "a.mkv", output, "--images").stderr
    (output / "00000003.png").unlink()
    assert_fails(upscale(folder / "a.mkv", output, "--images"), "the folder is not empty")


def test_several_videos_need_a_folder(folder: Path, tmp_path: Path):
    assert_fails(upscale(folder, tmp_path / "out.mkv"), "pass a folder, such as")
    assert_fails(upscale(folder, tmp_path / "no" / "out"), "cannot make the folder")


@pytest.mark.parametrize("start", ["0.4", "0:00.4", "00:00:00.400"])
def test_a_range(folder: Path, tmp_path: Path, start: str):
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--start", start, "--end", "0.8")
    assert result.exit_code == 0, result.output
    with open_video(tmp_path / "out.mkv") as reader:
        times = [frame.time for frame in reader]
    assert times == [Fraction(i, 25) for i in range(10)]


def test_a_crop(folder: Path, tmp_path: Path):
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--crop", "32:20:4:6")
    assert result.exit_code == 0, result.output
    with open_video(tmp_path / "out.mkv") as reader:
        assert (reader.info.width, reader.info.height) == (128, 80)
    assert_fails(
        upscale(folder / "a.mkv", tmp_path / "b.mkv", "--crop", "65:20:0:0"),
        "65:20:0:0 does not lie inside",
    )


def test_borders_are_left_out(tmp_path: Path):
    images = [np.pad(image, ((6, 8), (0, 0), (0, 0))) for image in pictures(5)]
    source = make_clip(tmp_path / "in.mkv", images)
    assert "64:48:0:6; --crop auto" in iart("info", source, "--model", "bicubic").stdout
    result = upscale(source, tmp_path / "out.mkv", "--crop", "auto")
    assert result.exit_code == 0, result.output
    assert "crop: 64:48:0:6" in result.stderr
    with open_video(tmp_path / "out.mkv") as reader:
        assert (reader.info.width, reader.info.height) == (256, 192)
    upscale(source, tmp_path / "whole.mkv", "--crop", "none")
    with open_video(tmp_path / "whole.mkv") as reader:
        assert reader.info.height == 4 * 62


def test_size_and_colours(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=3, sample_aspect=Fraction(32, 27))
    flags = ["--size", "720p", "--preset", "ultrafast"]
    result = upscale(source, tmp_path / "out.mkv", *flags)
    assert result.exit_code == 0, result.output
    assert "bt709, limited range (--color keep leaves it)" in result.stderr
    assert "1138x720 is more than 4 times 64x48" in result.stderr
    with open_video(tmp_path / "out.mkv") as reader:
        assert (reader.info.width, reader.info.height) == (1138, 720)
        assert reader.info.sample_aspect == 1
        assert color_name(reader.info.color) == "bt709, limited range"
    kept = upscale(source, tmp_path / "k.mkv", "--preview", "--color", "keep", *flags)
    assert kept.exit_code == 0, kept.output
    with open_video(tmp_path / "k.preview.mkv") as reader:
        assert (reader.info.width, reader.info.color.matrix) == (1138, 5)
    assert_fails(upscale(source, tmp_path / "b.mkv", "--size", "big"), "unknown size 'big'")
    assert_fails(upscale(source, tmp_path / "b.mkv", "--hdr", "map"), "unknown hdr 'map'")
    many = "9" * 5000
    assert_fails(upscale(source, tmp_path / "b.mkv", "--size", f"2x{many}"), "unknown size '2x99")
    assert_fails(upscale(source, tmp_path / "b.mkv", "--drop", many), "cannot drop '99")


@pytest.mark.parametrize(
    "flags",
    [
        ["--start", "soon"],
        ["--end", "1:2:3:4"],
        ["--crop", "1:2"],
        ["--start", "-1"],
        ["--rate", "1e999999999"],
        ["--rate", "abc"],
        ["--start", "1:99"],
        ["--end", "1:60:00"],
    ],
)
def test_wrong_words(folder: Path, tmp_path: Path, flags: list[str]):
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", *flags)
    assert result.exit_code == 2
    assert "literal" not in result.stderr
    assert "Value error" not in result.stderr


def test_one_picture_is_told_as_one(tmp_path: Path):
    save_image(tmp_path / "1.png", pictures(1)[0], pixel_format="rgb24")
    result = upscale(tmp_path / "1.png", tmp_path / "out")
    assert ": 1 frame in " in result.stderr


def test_a_preview(folder: Path, tmp_path: Path):
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--preview")
    assert result.exit_code == 0, result.output
    assert "out.preview.png" in result.stderr
    assert not (tmp_path / "out.mkv").exists()


def test_a_preview_of_pictures_that_would_go_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    result = upscale(folder / "a.mkv", Path(), "--preview", "--images")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in here.iterdir()) == ["here.preview.mkv", "here.preview.png"]


def test_a_dry_run(folder: Path, tmp_path: Path):
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "out.mkv, 256x192" in result.stdout
    result = upscale(folder, tmp_path / "out", "--dry-run")
    assert result.exit_code == 1
    assert "broken.avi" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_dry_run_of_videos_into_a_new_folder(folder: Path, tmp_path: Path):
    (folder / "broken.avi").unlink()
    result = upscale(folder, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("256x192") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert_fails(upscale(folder, tmp_path / "no" / "out", "--dry-run"), "cannot make the folder")


def test_one_video_and_its_sound_go_to_a_folder(folder: Path, tmp_path: Path):
    result = upscale(folder / "a.mkv", f"{tmp_path / 'out'}/")
    assert result.exit_code == 0, result.output
    with open_video(tmp_path / "out" / "a.mkv") as reader:
        assert [track.kind for track in reader.info.tracks] == ["video", "audio"]
    result = upscale(folder / "a.mkv", tmp_path / "pictures", "--images", "--end", "0.1")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pictures" / "00000000.png").exists()


@pytest.mark.parametrize("window", ["1", "2", "4", "6"])
def test_the_overlap_follows_a_short_window(folder: Path, tmp_path: Path, window: str):
    """What the message on too little memory proposes is a command that works."""
    flags = ["--window", window, "--tile", "96", "--end", "0.5"]
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", *flags)
    assert result.exit_code == 0, result.output


def test_devices_are_named_by_number_or_name():
    assert split_devices("0, 1,cpu,cuda:3") == ["cuda:0", "cuda:1", "cpu", "cuda:3"]


@pytest.mark.parametrize("name", [".mp4", ".mkv"])
def test_an_ending_is_no_name(folder: Path, tmp_path: Path, name: str):
    assert_fails(upscale(folder / "a.mkv", tmp_path / name), "it has no name before its ending")


def test_without_ray_a_cluster_is_refused_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--cluster", "local")
    assert_fails(result, "--cluster needs Ray; install it with: pip install 'iart-vsr[cluster]'")
    assert not (tmp_path / "out.mkv").exists()


def test_where_no_cluster_is_the_command_ends_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))  # it would wait for it
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--cluster", address)
        assert_fails(result, f"cannot join a Ray cluster at '{address}': Connection refused")
    result = upscale(folder / "a.mkv", tmp_path / "out.mkv", "--cluster", "there")
    assert_fails(result, "cannot join a Ray cluster at 'there': it is no HOST:PORT")
