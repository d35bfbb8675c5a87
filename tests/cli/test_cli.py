import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from iart import cli
from iart.cli import console
from iart.model import IART
from iart.upscaling.film.request import (
    AUTO,
    Progress,
    UpscaleOptions,
    UpscaleRequest,
    options_of_requests,
)
from iart.upscaling.film.run import upscale_video
from iart.video.open import open_video
from iart.weights import convert, load_model, read_metadata, read_model, save_model
from tests.processes import errors_at_end, start_iart, wait_until
from tests.upscaling.test_clip import TINY
from tests.video.clips import make_clip, make_sound_only, make_tracks, picture, save_image, truncate

BICUBIC = ("--model", "bicubic")


def iart(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def upscale(source: str | Path, output: str | Path, *more: str) -> Result:
    return iart("upscale", source, "-o", output, *BICUBIC, *more)


def assert_fails(result: Result, text: str) -> None:
    """Exit code 1 and one line that says what is wrong."""
    assert result.exit_code == 1, result.output
    assert text in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mkv", frames=4)


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(IART(TINY), path)
    return path


# ---- flags are keywords

COMMAND_ONLY = {
    *("model", "device", "devices", "precision", "backend", "threads", "quiet"),
    *("verbose", "container", "images", "preview", "dry_run", "json", "progress_every"),
    *("cluster", "cluster_cpus", "cluster_gpus", "ship"),
}


def keywords(function: Callable) -> dict[str, object]:
    """Name → default; lists of the command line are collections of the library."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default if p.default != () else None for p in parameters}


def test_flags_keywords_and_fields_are_the_same():
    flags, fields = keywords(cli.upscale), keywords(UpscaleRequest)
    assert flags.keys() - COMMAND_ONLY == fields.keys()
    beside_the_input = {"output": None}
    assert {name: flags[name] for name in fields} == fields | beside_the_input
    assert UpscaleOptions.__annotations__.keys() == options_of_requests().keys()
    assert fields.keys() - options_of_requests().keys() == {"source", "output"}
    assert all(f"\n        {name}: " in (UpscaleRequest.__doc__ or "") for name in fields)
    of_info = keywords(cli.info)
    known = of_info.keys() - COMMAND_ONLY
    assert {name: of_info[name] for name in known} == {name: fields[name] for name in known}


def test_options_are_keywords_of_upscale_video(clip: Path, tmp_path: Path):
    with pytest.raises(TypeError, match="windw"):
        upscale_video(clip, tmp_path / "out.mkv", load_model("bicubic"), windw=3)  # pyright: ignore[reportCallIssue]
    options: dict[str, Any] = {name: f.default for name, f in options_of_requests().items()}
    result = upscale_video(clip, tmp_path / "out.mkv", load_model("bicubic"), **options)
    assert result.frames == 4


def test_flags_of_convert_are_keywords_of_the_library():
    flags, words = keywords(cli.convert), keywords(convert)
    assert flags.keys() - {"verbose", "blend", "output"} == words.keys()
    assert {name: flags[name] for name in words} == words


def test_flags_about_the_model_are_keywords_of_load_model():
    words = keywords(load_model)
    for command in (cli.upscale, cli.info):
        flags = keywords(command)
        assert flags["model"] == AUTO  # which needs a source
        assert flags["device"] == words["device"]
        assert flags["precision"] == words["precision"]


# ---- what works


def test_upscale(clip: Path, tmp_path: Path, tiny: Path):
    target = tmp_path / "out.mp4"
    result = iart(
        "upscale", clip, "-o", target, "--model", tiny, "--device", "cpu", "--window", "3",
        "--overlap", "1", "--tile", "40", "--crf", "20", "--preset", "ultrafast",
        "--threads", str(torch.get_num_threads()),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "out.mp4: 4 frames in" in result.stderr
    with open_video(target) as reader:
        assert (reader.info.width, reader.info.height) == (256, 192)
        assert sum(1 for _ in reader) == 4


def test_images_one_by_one(tmp_path: Path):
    images = [
        save_image(tmp_path / f"{index}.png", picture(index), pixel_format="rgb24")
        for index in range(3)
    ]
    result = iart("upscale", *images, "-o", tmp_path / "out.mkv", *BICUBIC)
    assert result.exit_code == 0, result.output
    assert "out.mkv: 3 frames" in result.stderr


def test_info_goes_through_pipes_of_any_encoding(tmp_path: Path):
    source = make_tracks(tmp_path / "in.mkv")
    result = subprocess.run(
        [sys.executable, "-m", "iart", "info", source, *BICUBIC],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert b"copied" in result.stdout


def test_tracks_are_dropped_one_flag_each(tmp_path: Path):
    source = make_tracks(tmp_path / "in.mkv")
    result = upscale(source, tmp_path / "out.mkv", "--drop", "audio", "--drop", "3")
    assert result.exit_code == 0, result.output
    with open_video(tmp_path / "out.mkv") as reader:
        assert [track.kind for track in reader.info.tracks] == ["video", "subtitle"]


def test_conversions_are_told(tmp_path: Path):
    source = make_tracks(tmp_path / "in.mkv")
    assert "note: subtitle 3: subrip → mov_text" in upscale(source, tmp_path / "a.mp4").stderr
    result = upscale(source, tmp_path / "b.mp4", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_images_have_the_rate_that_is_asked_for(tmp_path: Path):
    for i in (1, 2, 10):
        save_image(tmp_path / f"{i}.png", picture(i), pixel_format="rgb24")
    result = upscale(str(tmp_path / "*.png"), tmp_path / "out.mkv", "--rate", "30000/1001")
    assert result.exit_code == 0, result.output
    with open_video(tmp_path / "out.mkv") as reader:
        assert reader.info.rate == Fraction(30000, 1001)


def test_info(tmp_path: Path, tiny: Path):
    source = make_tracks(tmp_path / "in.mkv")
    result = iart("info", source, "--model", tiny, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "64x48" in result.stdout
    assert "256x192, .mkv" in result.stdout
    assert "subrip · eng → copied" in result.stdout
    assert "GB of it for the network" in result.stdout
    assert re.search(r"\d (frames/s|s a frame) on cpu, \d+:\d\d:\d\d", result.stdout)


def test_info_names_what_cannot_be_carried(tmp_path: Path):
    source = make_clip(tmp_path / "in.mov", frames=3, audio=["eng"], audio_codec="pcm_s16le")
    source = source.rename(tmp_path / "in.webm")
    result = iart("info", source, *BICUBIC)
    assert result.exit_code == 1, result.output
    assert "problem" in result.stdout
    assert "--drop" in result.stdout


def test_info_of_images(tmp_path: Path):
    save_image(tmp_path / "1.png", picture(1), pixel_format="rgb24")
    result = iart("info", tmp_path, *BICUBIC)
    assert result.exit_code == 0, result.output
    assert "256x192, .mkv" in result.stdout
    assert "of it for the network): whole pictures, 16 frames at once" in result.stdout


def test_tiles(tmp_path: Path):
    save_image(tmp_path / "1.png", picture(1), pixel_format="rgb24")
    for word, told in (("40", "tiles of 40 pixels"), ("none", "whole"), ("auto", "whole")):
        assert told in iart("info", tmp_path, *BICUBIC, "--tile", word).stdout
    refused = iart("info", tmp_path, *BICUBIC, "--tile", "wide")
    assert refused.exit_code == 2
    assert "a tile is a number of pixels" in refused.output


def test_convert(tmp_path: Path, tiny: Path):
    published = tmp_path / "tiny.pth"
    assert iart("convert", tiny, published).exit_code == 0
    back = read_model(published).state_dict()
    for name, tensor in read_model(tiny).state_dict().items():
        assert back[name].equal(tensor)
    assert_fails(iart("convert", tiny, published), "exists")
    between = tmp_path / "between.safetensors"
    assert iart("convert", tiny, published, "--blend", "0.7", "-o", between).exit_code == 0
    assert read_metadata(between) == {"blend": "0.3 tiny.safetensors + 0.7 tiny.pth"}
    missing = iart("convert", tiny, published, "--blend", "0.7")
    assert missing.exit_code == 2
    assert "go together" in missing.output


def test_python_m_iart():
    run = subprocess.run(
        [sys.executable, "-m", "iart", "--help"], check=True, capture_output=True, text=True
    )
    assert "upscale" in run.stdout


# ---- what fails: nothing under the final name, nothing overwritten


def test_missing_file(tmp_path: Path):
    assert_fails(upscale(tmp_path / "no.mkv", tmp_path / "out.mkv"), "no.mkv': no such file")


def test_no_video_stream(tmp_path: Path):
    source = make_sound_only(tmp_path / "sound.mka")
    assert_fails(upscale(source, tmp_path / "out.mkv"), "no video stream (found: audio aac)")
    assert list(tmp_path.iterdir()) == [source]


def test_zero_frames(tmp_path: Path):
    source = truncate(make_clip(tmp_path / "in.mkv", frames=30), 0.04)
    result = upscale(source, tmp_path / "out.mkv")
    assert_fails(result, "cannot read '")
    assert list(tmp_path.iterdir()) == [source]


def test_output_exists(clip: Path, tmp_path: Path):
    (tmp_path / "out.mkv").write_text("precious")
    assert_fails(upscale(clip, tmp_path / "out.mkv"), "pass --overwrite")
    assert (tmp_path / "out.mkv").read_text() == "precious"
    assert upscale(clip, tmp_path / "out.mkv", "--overwrite").exit_code == 0


def test_the_input_is_not_overwritten(clip: Path):
    before = clip.read_bytes()
    assert_fails(upscale(clip, clip, "--overwrite"), "it is the input")
    assert clip.read_bytes() == before


def test_output_folder_missing(clip: Path, tmp_path: Path):
    assert_fails(upscale(clip, tmp_path / "no" / "out.mkv"), "does not exist")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder where not even root writes")
def test_output_folder_not_writable(clip: Path):
    assert_fails(upscale(clip, "/proc/out.mkv"), "folder '/proc' is not writable")


def test_codec_that_the_container_cannot_hold(clip: Path, tmp_path: Path):
    assert_fails(upscale(clip, tmp_path / "out.webm", "--codec", "x264"), "webm")
    assert list(tmp_path.iterdir()) == [clip]


def test_images_of_different_sizes(tmp_path: Path):
    save_image(tmp_path / "1.png", picture(1), pixel_format="rgb24")
    save_image(tmp_path / "2.png", picture(2, 32, 48), pixel_format="rgb24")
    assert_fails(upscale(tmp_path, tmp_path / "out.mkv"), "64x48")
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it is present")
def test_absent_device(clip: Path, tmp_path: Path):
    assert_fails(upscale(clip, tmp_path / "out.mkv", "--device", "cuda"), "'cuda' is not available")


def test_unknown_model(clip: Path, tmp_path: Path):
    result = iart("upscale", clip, "-o", tmp_path / "out.mkv", "--model", "nobody")
    assert_fails(result, "unknown model 'nobody' (available: bicubic")


def test_a_window_that_keeps_nothing(clip: Path, tmp_path: Path):
    result = upscale(clip, tmp_path / "out.mkv", "--window", "6", "--overlap", "3")
    assert_fails(result, "overlap must be 0 to 2")


@pytest.mark.parametrize(
    "flags",
    [
        ["--rate", "0"],
        ["--rate", "fast"],
        ["--rate", "1/0"],
        ["--threads", "100000"],
        ["--window", "x"],
        ["--threads", "0"],
        ["--x"],
    ],
)
def test_wrong_usage(clip: Path, tmp_path: Path, flags: list[str]):
    result = upscale(clip, tmp_path / "out.mkv", *flags)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == [clip]


def test_verbose_shows_where_an_error_comes_from(tmp_path: Path):
    result = upscale(tmp_path / "no.mkv", tmp_path / "out.mkv", "--verbose")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_salvage(tmp_path: Path):
    source = truncate(make_clip(tmp_path / "in.mkv", frames=50), 0.6)
    result = upscale(source, tmp_path / "out.mkv")
    assert_fails(result, "is damaged: 0:00:01.")
    assert "ends early" in result.stderr
    with open_video(tmp_path / "out.mkv") as reader:
        assert sum(1 for _ in reader) > 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_disk_full(tmp_path: Path):
    """Stands for a full disk: a limit on the size of files, which fails in the same calls."""
    import resource

    source = make_clip(tmp_path / "in.mkv", frames=40)
    process = start_iart(
        "upscale", source, "-o", tmp_path / "out.mkv", *BICUBIC, "--crf", "1",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )  # fmt: skip
    errors = errors_at_end(process)
    assert process.returncode == 1, errors
    assert "error: cannot write" in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "number",
    ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP"))],
)
def test_interruption(tmp_path: Path, number: str):
    source = make_clip(tmp_path / "in.mkv", frames=400, width=160, height=96)
    flags = ("--preset", "veryslow")
    process = start_iart("upscale", source, "-o", tmp_path / "out.mkv", *BICUBIC, *flags)
    wait_until(lambda: list(tmp_path.glob(".out*/*/*")), process)  # frames are on their way
    process.send_signal(getattr(signal, number))
    errors = errors_at_end(process)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == [source]


# ---- progress


def test_progress_in_words():
    assert console.describe_progress(Progress(0, 100, 0.0)) == "0 of 100 frames, 0.0 fps, ? left"
    assert console.describe_progress(Progress(50, 100, 20.0)) == (
        "50 of 100 frames, 2.5 fps, 0:00:20 left"
    )
    assert console.describe_progress(Progress(50, None, 20.0)) == "50 frames, 2.5 fps"
    assert console.describe_progress(Progress(50, 40, 20.0)) == "50 frames, 2.5 fps"
    assert console.describe_progress(Progress(2, 3, 80.0)) == (
        "2 of 3 frames, 40 s a frame, 0:00:40 left"
    )


def test_a_line_every_ten_seconds_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    with console.progress_display() as show:
        assert show is not None
        for second in range(1, 36):
            show(Progress(second, 100, float(second)))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["10", "20", "30"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    screen = console.Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with console.progress_display() as show:
        assert show is not None
        show(Progress(30, 100, 10.0))
    assert "30 of 100 frames, 3.0 fps, 0:00:23 left" in screen.export_text()


def test_quiet_shows_nothing():
    with console.progress_display(quiet=True) as show:
        assert show is None


def test_counted_work_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console, "LINE_EVERY_SECONDS", 0)
    with console.count_display("files") as show:
        show(3, 3)
    assert capsys.readouterr().err == "3 of 3 files, 0:00:00 left\n"
    with console.count_display("files", quiet=True) as show:
        show(1, 3)
    assert capsys.readouterr().err == ""
