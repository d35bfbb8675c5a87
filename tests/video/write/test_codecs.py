"""Tables of codecs and containers, and the trial that proves them."""

import ctypes
import os
import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from iart.errors import OptionsError, OutputError
from iart.model.bicubic import Bicubic
from iart.pictures.color import Color
from iart.upscaling.film.run import upscale_video
from iart.video.write.codecs import (
    CODECS,
    CONTAINERS,
    Encoding,
    choose_encoding,
    fitting_codecs,
    reductions,
)
from iart.video.write.encoder import Encode, Shape, Slot
from iart.video.write.trial import check_video
from tests.video.clips import make_clip

SHAPE = Shape(256, 192, Fraction(30000, 1001), Fraction(1001, 30000), Color(1, 1, 1, False))


def check(encoding: Encoding, shape: Shape = SHAPE) -> None:
    check_video(Encode(encoding, shape, shape.color))


NVENC = {"nvenc-h264", "nvenc-hevc", "nvenc-av1"}
SOFTWARE = [name for name in CODECS if name not in NVENC]
HELD = {
    "mp4": {"x264", "x265", "svt-av1", "ffv1"},
    "mkv": {"x264", "x265", "svt-av1", "ffv1", "prores"},
    "mov": {"x264", "x265", "prores"},
    "webm": {"svt-av1"},
}


@pytest.mark.parametrize(
    ("container", "depth", "encoder", "pixel_format", "crf"),
    [
        ("mp4", 8, "libx264", "yuv420p", "16"),
        ("mkv", 8, "libx264", "yuv420p", "16"),
        ("mov", 8, "libx264", "yuv420p", "16"),
        ("webm", 8, "libsvtav1", "yuv420p", "20"),
        ("mkv", 10, "libx265", "yuv420p10le", "18"),
        ("mp4", 12, "libx265", "yuv420p10le", "18"),
        ("webm", 10, "libsvtav1", "yuv420p10le", "20"),
    ],
)
def test_defaults_follow_container_and_depth(container, depth, encoder, pixel_format, crf):
    encoding = choose_encoding(CONTAINERS[container], depth)
    assert (encoding.encoder, encoding.pixel_format) == (encoder, pixel_format)
    assert encoding.options["crf"] == crf
    assert not encoding.notes


def test_ten_bits_by_pixel_format_choose_a_codec_that_plays_them():
    encoding = choose_encoding(CONTAINERS["mp4"], 8, pixel_format="yuv420p10")
    assert (encoding.encoder, encoding.pixel_format) == ("libx265", "yuv420p10le")


def test_x264_named_for_a_deep_source_writes_8_bits_and_says_so():
    encoding = choose_encoding(CONTAINERS["mp4"], 10, codec="x264")
    assert encoding.pixel_format == "yuv420p"
    assert "10 bits are written as 8" in encoding.notes[0]
    asked = choose_encoding(CONTAINERS["mp4"], 10, codec="x264", pixel_format="yuv420p10")
    assert asked.pixel_format == "yuv420p10le"
    assert not asked.notes


@pytest.mark.parametrize("name", ["x265", "X265", "hevc", "h265", "libx265"])
def test_codecs_have_the_names_that_users_type(name):
    assert choose_encoding(CONTAINERS["mkv"], 8, codec=name).encoder == "libx265"


def test_settings_reach_the_encoder():
    mkv = CONTAINERS["mkv"]
    encoding = choose_encoding(mkv, 8, codec="svt-av1", crf=33, preset="9")
    assert (encoding.options["crf"], encoding.options["preset"]) == ("33", "9")
    assert choose_encoding(mkv, 8, codec="prores", preset="4444").options["profile"] == "4444"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codec": "x266"}, "unknown codec 'x266'; known are x264"),
        ({"codec": "aac"}, "unknown codec 'aac'"),
        ({"codec": "ffv1", "crf": 10}, "ffv1 has no CRF"),
        ({"codec": "prores", "crf": 10}, "prores has no CRF"),
        ({"codec": "ffv1", "preset": "slow"}, "ffv1 has no presets"),
        ({"crf": 52}, "CRF 52 is out of range; x264 takes 0 to 51"),
        ({"pixel_format": "yuv999"}, "unknown pixel format 'yuv999'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(OptionsError, match=words):
        choose_encoding(CONTAINERS["mkv"], 8, **settings)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("codec", CODECS)
def test_every_pair_is_tried(container, codec):
    encoding = choose_encoding(CONTAINERS[container], 8, codec=codec)
    if codec in HELD[container]:
        check(encoding)
    elif codec in NVENC & set(fitting_codecs(CONTAINERS[container])):
        check_nvenc(encoding)
    else:
        with pytest.raises(OutputError, match=f"{container} cannot hold .*it holds .*"):
            check(encoding)


@pytest.mark.parametrize("container", CONTAINERS)
def test_fitting_codecs_are_those_of_the_trials(container):
    nvenc = {"webm": {"nvenc-av1"}, "mov": NVENC - {"nvenc-av1"}}.get(container, NVENC)
    assert set(fitting_codecs(CONTAINERS[container])) == HELD[container] | nvenc


def check_nvenc(encoding: Encoding) -> None:
    """It works, or one line says that it does not: many GPUs for servers cannot encode."""
    try:
        check(encoding)
    except OutputError as error:
        if not re.search(r"NVIDIA's encoder cannot be used here: .*; pass another", str(error)):
            raise


def test_quality_and_bits_reach_nvenc():
    mkv = CONTAINERS["mkv"]
    encoding = choose_encoding(mkv, 10, codec="nvenc-hevc", crf=30, preset="p7")
    assert (encoding.encoder, encoding.pixel_format) == ("hevc_nvenc", "p010le")
    assert encoding.options == {"rc": "vbr", "b": "0", "cq": "30", "preset": "p7"}
    assert choose_encoding(mkv, 8, codec="h264_nvenc").options["cq"] == "19"
    assert "10 bits are written as 8" in choose_encoding(mkv, 10, codec="nvenc-h264").notes[0]
    with pytest.raises(OptionsError, match="takes 1 to 51"):
        choose_encoding(mkv, 8, codec="nvenc-hevc", crf=0)
    with pytest.raises(OptionsError, match="nvenc-av1 has no preset 'slow'; it has p1"):
        choose_encoding(mkv, 8, codec="nvenc-av1", preset="slow")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there may be one")
@pytest.mark.parametrize("codec", sorted(NVENC))
def test_without_an_encoder_of_nvidia_one_line_says_so_before_the_work(codec, tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=2)
    with pytest.raises(OutputError, match=r"^NVIDIA's encoder cannot .*; pass another --codec$"):
        upscale_video(source, tmp_path / "out.mkv", Bicubic(), codec=codec)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_odd_sizes_are_refused_by_name_where_the_codec_cannot():
    odd = replace(SHAPE, width=63, height=47)
    with pytest.raises(OutputError, match=r"63x47 is odd.*--pixel-format yuv444p"):
        check(choose_encoding(CONTAINERS["mkv"], 8), odd)
    with pytest.raises(OutputError, match=r"^the size 63x47 is odd.*--pixel-format yuv444p10le$"):
        check(choose_encoding(CONTAINERS["mkv"], 10), odd)
    check(choose_encoding(CONTAINERS["mkv"], 8, pixel_format="yuv444p"), odd)
    check(choose_encoding(CONTAINERS["mkv"], 8, codec="ffv1"), odd)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codec": "svt-av1", "preset": "77"}, "out of range"),
        ({"codec": "x265", "pixel_format": "nv16"}, "nv16 is not supported"),
        ({"codec": "mpeg2video", "crf": 3}, "mpeg2video has no option --crf"),
    ],
)
def test_what_the_encoder_refuses_is_known_before_work(settings, words):
    encoding = choose_encoding(CONTAINERS["mkv"], 8, **settings)
    with pytest.raises(OutputError, match=words):
        check(encoding)


@pytest.mark.parametrize("codec", ["x264", "x265", "svt-av1"])
def test_encoders_are_quiet(codec, capfd):
    check(choose_encoding(CONTAINERS["mkv"], 8, codec=codec))
    assert capfd.readouterr() == ("", "")


def test_presets_of_x264_are_checked_before_it_speaks_for_itself():
    with pytest.raises(OptionsError, match=r"x264 has no preset 'quickly'; it has ultrafast"):
        choose_encoding(CONTAINERS["mp4"], 8, preset="quickly")


def test_pixel_formats_of_gpus_are_refused():
    with pytest.raises(OptionsError, match="lies on a GPU"):
        choose_encoding(CONTAINERS["mp4"], 8, pixel_format="cuda")


@pytest.mark.parametrize(
    ("container", "codec", "source", "lost"),
    [
        ("mp4", None, "yuv420p", None),
        ("mp4", None, "gray", None),
        ("mp4", None, "yuv411p", "colour in 4:1:1 becomes 4:2:0"),
        ("mp4", None, "yuvj422p", "colour in 4:2:2 becomes 4:2:0 (--pixel-format yuv422p keeps"),
        ("mp4", None, "yuv444p", "colour in 4:4:4 becomes 4:2:0 (--pixel-format yuv444p keeps"),
        ("mov", None, "gbrp", "colour in RGB becomes 4:2:0 (--pixel-format yuv444p keeps"),
        ("mkv", None, "yuv420p12le", "12 bits become 10 (--pixel-format yuv420p12le keeps"),
        ("webm", None, "yuv420p12le", "12 bits become 10"),
        (
            "mkv",
            "svt-av1",
            "yuv422p12le",
            "4:2:2 becomes 4:2:0 and 12 bits become 10 (--codec ffv1",
        ),
        ("mov", "prores", "yuv422p10le", None),
        ("mov", "prores", "yuv444p10le", "4:4:4 becomes 4:2:2 (--pixel-format yuv444p10le keeps"),
    ],
)
def test_what_a_pixel_format_does_not_keep_is_noted(container, codec, source, lost):
    depth = max(component.bits for component in av.VideoFormat(source).components)
    encoding = choose_encoding(CONTAINERS[container], depth, codec=codec)
    notes = reductions(encoding, source)
    assert len(notes) == (lost is not None)
    assert lost is None or lost in notes[0]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux has it")
@pytest.mark.parametrize("codec", SOFTWARE)
def test_encoders_leave_the_scheduling_as_it_is(codec):
    encoding = choose_encoding(CONTAINERS["mkv"], 8, codec=codec)
    with Encode(encoding, SHAPE, SHAPE.color).fresh():
        threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills memory on demand")
@pytest.mark.parametrize("codec", SOFTWARE)
def test_bytes_do_not_depend_on_what_memory_held_before(codec):
    """x264's look-ahead read memory that nobody had written, on processors with AVX-512."""
    shape = replace(SHAPE, width=448, height=320)
    encode = Encode(choose_encoding(CONTAINERS["mkv"], 8, codec=codec), shape, shape.color)
    texture = np.random.default_rng(0).integers(60, 180, (50, 70, 3), np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)
    images = [np.ascontiguousarray(texture[i : i + 320, 2 * i : 2 * i + 448]) for i in range(30)]

    def packets() -> list[bytes]:
        with encode.fresh() as encoder:
            found = []
            for number, image in enumerate(images):
                picture = av.VideoFrame.from_ndarray(image)
                picture = picture.reformat(format=encode.encoding.pixel_format)
                found += encoder.encode(picture, Slot(number, 1))
            found += encoder.flush()
        return [bytes(packet) for packet in found]

    mallopt, perturb = ctypes.CDLL(None).mallopt, -6
    try:
        mallopt(perturb, 0x55)
        first = packets()
        mallopt(perturb, 0xAA)
        assert packets() == first
    finally:
        mallopt(perturb, 0)
