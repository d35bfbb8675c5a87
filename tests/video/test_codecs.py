"""Tables of codecs and containers, and the trial that proves them."""

from dataclasses import replace
from fractions import Fraction

import pytest

from iart.errors import OptionsError, OutputError
from iart.video.codecs import CODECS, CONTAINERS, choose_encoding
from iart.video.dry_mux import Shape, dry_mux, fitting_codecs
from iart.video.frame import Color

SHAPE = Shape(256, 192, Fraction(30000, 1001), Fraction(1001, 30000), Color(1, 1, 1, False))

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
        dry_mux(encoding, SHAPE)
    else:
        with pytest.raises(OutputError, match=f"{container} cannot hold .*it holds .*"):
            dry_mux(encoding, SHAPE)


@pytest.mark.parametrize("container", CONTAINERS)
def test_fitting_codecs_are_those_of_the_trials(container):
    assert set(fitting_codecs(CONTAINERS[container])) == HELD[container]


def test_odd_sizes_are_refused_by_name_where_the_codec_cannot():
    odd = replace(SHAPE, width=63, height=47)
    with pytest.raises(OutputError, match=r"63x47 is odd.*--pixel-format yuv444p"):
        dry_mux(choose_encoding(CONTAINERS["mkv"], 8), odd)
    dry_mux(choose_encoding(CONTAINERS["mkv"], 8, pixel_format="yuv444p"), odd)
    dry_mux(choose_encoding(CONTAINERS["mkv"], 8, codec="ffv1"), odd)


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
        dry_mux(encoding, SHAPE)


@pytest.mark.parametrize("codec", ["x264", "x265", "svt-av1"])
def test_encoders_are_quiet(codec, capfd):
    dry_mux(choose_encoding(CONTAINERS["mkv"], 8, codec=codec), SHAPE)
    assert capfd.readouterr() == ("", "")


def test_presets_of_x264_are_checked_before_it_speaks_for_itself():
    with pytest.raises(OptionsError, match=r"x264 has no preset 'quickly'; it has ultrafast"):
        choose_encoding(CONTAINERS["mp4"], 8, preset="quickly")


def test_pixel_formats_of_gpus_are_refused():
    with pytest.raises(OptionsError, match="lies on a GPU"):
        choose_encoding(CONTAINERS["mp4"], 8, pixel_format="cuda")
