"""What the command tells of itself: help, examples, versions, models, completion, JSON."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from iart import __version__, cli
from iart.upscaling.film.request import CODECS, DEINTERLACE
from iart.video.fields.treat import MODES
from iart.video.write import codecs
from iart.weights import model_names
from tests.cli.test_cli import assert_fails, iart, upscale
from tests.video.clips import make_clip, picture, save_image

GROUP = typer.main.get_command(cli.app)


def commands(
    group: Any = GROUP, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_examples_that_the_command_takes(path: tuple[str, ...], monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = iart(*path, "-h")
    assert result.exit_code == 0, result.output
    assert result.output == iart(*path, "--help").output
    title, *examples = (COMMANDS[path].epilog or "").split("\n\n")
    assert title == "Examples:"
    assert examples
    for line in examples:
        assert line in result.output
        words = shlex.split(line)
        assert tuple(words[1 : 1 + len(path)]) == path
        COMMANDS[path].make_context(line, words[1 + len(path) :])  # exits if it is no usage


def test_options_stand_in_groups():
    text = iart("upscale", "-h").output
    headings = ("Input", "Picture", "Sound and other tracks", "Encoding", "Network, speed and")
    places = [text.index(f" {heading}") for heading in headings]
    assert places == sorted(places)


def test_the_version():
    assert iart("--version").stdout == f"iart {__version__}\n"


def test_choices_of_options_are_what_is_taken():
    assert DEINTERLACE == MODES
    assert tuple(codecs.CODECS) == CODECS


def test_models():
    text = iart("models").stdout
    assert [line for line in text.splitlines() if line in model_names()] == model_names()
    assert "licence" in text
    found = json.loads(iart("models", "--json").stdout)
    assert list(found) == model_names()
    for name in ("light", "dvd"):
        assert "dvd" in found[name]["PSNR in dB"], "scores.json is of the weights that ship"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("iart upscale --model l", "light"),
        ("iart upscale --color bt", "bt709"),
        ("iart test mpeg2-q", "mpeg2-q4"),
        ("iart mod", "models"),
    ],
)
def test_a_shell_completes(words: str, expected: str):
    asked = {"_IART_COMPLETE": "complete_bash", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(len(words.split()) - 1)
    result = CliRunner().invoke(cli.app, [], prog_name="iart", env=asked)
    assert expected in result.stdout.split(), result.output


def test_without_an_output_the_result_lies_beside_and_replaces_nothing(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=2)
    result = iart("upscale", source, "--model", "bicubic")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "in_x4.mkv").exists()
    assert "done before" in iart("upscale", source, "--model", "bicubic").stderr
    assert_fails(iart("upscale", source, "--model", "bicubic", "--crf", "30"), "it exists")
    assert_fails(iart("upscale", source, "--model", "bicubic", "--overwrite"), "pass -o with")


def test_images_as_ffmpeg_names_them(tmp_path: Path):
    for number in (8, 9, 10, 1000):
        save_image(tmp_path / f"f{number:03d}.png", picture(number), pixel_format="rgb24")
    save_image(tmp_path / "f11.png", picture(11), pixel_format="rgb24")
    result = upscale(tmp_path / "f%03d.png", tmp_path / "out.mkv")
    assert "out.mkv: 4 frames" in result.stderr
    assert_fails(upscale(tmp_path / "g%03d.png", tmp_path / "b.mkv"), "no images (found: nothing)")


def test_images_are_written_as_ffmpeg_names_them(tmp_path: Path):
    source, folder = make_clip(tmp_path / "in.mkv", frames=12), tmp_path / "out"

    def shown() -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    assert upscale(source, folder / "f%d.png").exit_code == 0
    assert shown() == sorted(f"f{number}.png" for number in range(1, 13))
    again = iart("upscale", source, "-o", folder / "f%d.png", "--model", "bicubic")
    assert "done before" in again.stderr
    assert_fails(upscale(source, folder / "f%03d.png"), "the folder is not empty")
    assert_fails(
        upscale(source, folder / "f%03d.png", "--overwrite"), "more than frames ('f1.png')"
    )
    assert upscale(source, folder / "f%d.png", "--overwrite", "--end", "0.1").exit_code == 0
    assert shown() == ["f1.png", "f2.png", "f3.png"]
    back = upscale(folder / "f%d.png", tmp_path / "back.mkv", "--size", "1x")
    assert "back.mkv: 3 frames" in back.stderr
    capitals = tmp_path / "capitals"
    assert upscale(source, capitals / "f%02d.PNG").exit_code == 0
    assert sorted(path.name for path in capitals.iterdir())[-1] == "f12.PNG"
    # the same first name, and others later
    assert_fails(upscale(source, capitals / "f0%d.PNG"), "the folder is not empty")


def test_info_of_several_files_for_programs(tmp_path: Path):
    files = [make_clip(tmp_path / name, frames=2) for name in ("a.mkv", "b.mkv")]
    flags = ("--model", "bicubic", "--size", "128:96", "--codec", "x265", "--crop", "auto")
    shown = iart("info", *files, *flags)
    assert shown.stdout.count("128x96, .mkv") == 2
    found = json.loads(iart("info", *files, *flags, "--container", "mp4", "--json").stdout)
    assert [entry["file"] for entry in found] == [str(file) for file in files]
    assert found[0]["output"] == "128x96, .mp4"
    assert found[0]["preview_seconds"] == 2 / 25
    assert_fails(iart("info", files[0], "--size", "big"), "unknown size 'big'")


def test_compare_for_programs(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mkv", frames=2)
    result = iart("compare", clip, clip, "-o", tmp_path / "out", "--json", "--quiet")
    found = json.loads(result.stdout)
    assert found["scores"][0]["psnr"] == ["Infinity", "Infinity"]
    assert found["frames"] == 2


@pytest.mark.slow
def test_nothing_needs_modules_that_windows_lacks():
    code = """
import importlib, pkgutil, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix_ipc"):
    sys.modules[name] = None
import iart
for module in pkgutil.walk_packages(iart.__path__, "iart."):
    if module.name in ("iart.web.page", "iart.web.server"):
        continue  # `iart serve` is not for Windows; Gradio imports termios
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
