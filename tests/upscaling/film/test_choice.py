"""`--model auto`: the choice by real files, and what it does to commands and jobs."""

import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from iart import cli
from iart.upscaling.film.choice import Models, choose_model
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.video.open import open_video
from tests.video.clips import make_clip, picture, save_image

COARSE = {"qmin": "31", "qmax": "31"}
LOW = {"crf": "40", "preset": "ultrafast", "threads": "1"}


def noise(count: int = 6) -> list[np.ndarray]:
    """Pictures that cost many bits."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def chosen(source: Path) -> str:
    with open_video(source) as reader:
        return choose_model(reader.info).model


@pytest.mark.parametrize(
    ("name", "codec", "options", "expected"),
    [
        ("disc.mpg", "mpeg2video", {"qmin": "4", "qmax": "4"}, "dvd"),
        ("divx.avi", "mpeg4", {"qmin": "6", "qmax": "6"}, "dvd"),
        ("old.flv", "flv", {"qmin": "6", "qmax": "6"}, "dvd"),
        ("low.mp4", "libx264", LOW, "dvd"),
        ("low.mkv", "libx264", LOW, "dvd"),
        ("lossless.mkv", "ffv1", {}, "light"),
    ],
)
def test_the_codec_decides(tmp_path: Path, name: str, codec: str, options: dict, expected: str):
    images = [picture(i, 320, 240) for i in range(8)]
    clip = make_clip(tmp_path / name, images, codec=codec, options=options)
    assert chosen(clip) == expected


def test_tape_on_disk_is_restored(tmp_path: Path):
    images = [picture(i, 720, 576) for i in range(2)]
    assert chosen(make_clip(tmp_path / "tape.dv", images, codec="dvvideo")) == "dvd"


@pytest.mark.parametrize("name", ["rich.mp4", "rich.mkv"])
def test_high_rates_have_lost_little(tmp_path: Path, name: str):
    assert chosen(make_clip(tmp_path / name, noise())) == "light"
    assert chosen(make_clip(tmp_path / f"2{name}", noise(), codec="mpeg2video",
                            options={"qmin": "1", "qmax": "1"})) == "light"  # fmt: skip


def test_images_are_taken_as_clean(tmp_path: Path):
    for number in range(2):
        save_image(tmp_path / f"{number}.png", picture(number), pixel_format="rgb24")
    assert chosen(tmp_path) == "light"


def test_fields_are_restored_whatever_holds_them(tmp_path: Path):
    moments = [picture(i, 96, 64, speed=3) for i in range(80)]
    woven = [a.copy() for a in moments[::2]]
    for frame, later in zip(woven, moments[1::2], strict=True):
        frame[1::2] = later[1::2]
    path = make_clip(tmp_path / "capture.mkv", woven, codec="ffv1", pixel_format="yuv422p")
    assert chosen(path) == "dvd"
    with open_video(path, deinterlace="off") as reader:  # which does not look
        assert choose_model(reader.info).model == "light"


def test_large_pictures_of_new_codecs_are_taken_as_clean(tmp_path: Path):
    with open_video(make_clip(tmp_path / "a.mp4", options=LOW)) as reader:
        info = replace(reader.info, bits_per_pixel=0.05)
    assert choose_model(info).model == "dvd"
    assert choose_model(replace(info, width=1920, height=1080)).model == "light"
    assert choose_model(replace(info, codec="mpeg2video", width=1920, height=1080)).model == "dvd"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg", "a.avi", "a.vob", "a.ts"])
def test_bits_per_pixel_are_those_of_the_packets(tmp_path: Path, name: str):
    codec = "mpeg2video" if name[2:] in ("mpg", "vob", "ts") else "mpeg4"
    sound = {"a.mkv": "ac3", "a.vob": "ac3", "a.mp4": "aac"}.get(name, "mp2")
    images = noise(25)
    clip = make_clip(
        tmp_path / name, images, codec=codec, options={}, audio=["eng"], audio_codec=sound
    )
    with av.open(str(clip)) as file:
        spent = 8 * sum(packet.size for packet in file.demux(file.streams.video[0]))
    with open_video(clip) as reader:
        assert reader.info.bits_per_pixel == pytest.approx(
            spent / (25 * 64 * 48),
            rel=0.2,  # packets of .ts carry a fifth beside
        )


def iart(*words: object) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout + result.stderr


def test_a_command_says_what_it_took_and_takes_what_it_is_told(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", frames=2, codec="mpeg2video", options=COARSE)
    words = ("upscale", clip, "--device", "cpu")
    text = iart(*words, "-o", tmp_path / "a.mkv")
    assert "model: dvd, for mpeg2video at " in text
    again = iart(*words, "-o", tmp_path / "a.mkv", "--model", "dvd")
    assert "model:" not in again
    assert "done before" in again, "the identity is that of the model chosen, however named"
    text = iart(*words, "-o", tmp_path / "b.mkv", "--model", "bicubic", "--dry-run")
    assert "model:" not in text
    assert re.search(r"model +dvd, for mpeg2video", iart("info", clip, "--device", "cpu"))


def test_a_job_that_auto_began_is_known_by_the_model_it_chose(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", frames=2, codec="mpeg2video", options=COARSE)
    request = UpscaleRequest(clip, tmp_path / "a.mkv")
    auto = Models("auto", ["cpu"])
    chosen_one, _ = auto.load(auto.choose(request))
    named = [Models(name, ["cpu"]).load(None)[0] for name in ("dvd", "light")]
    with plan_upscale(request) as plan:
        first, dvd, light = (plan.identity(model) for model in (chosen_one, *named))
    assert first == dvd
    assert first["model"] != light["model"]


def test_a_stream_is_taken_as_clean():
    choice = Models("auto", ["cpu"]).choose(UpscaleRequest("-", "out.mkv"))
    assert choice is not None
    assert choice.model == "light"
