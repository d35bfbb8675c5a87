"""Rates and repeats: what several fields of a file say together, not one of them."""

import logging
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

import iart
from iart.video.fields.classify import FieldReport
from iart.video.read.describe import describe
from iart.video.read.reader import VideoReader
from tests.video import clips, fielded

NTSC = Fraction(30000, 1001)
_LEFT_OUT = {40, 41, 42, 60, *range(80, 90)}
_SHOWN = [index for index in range(100) if index not in _LEFT_OUT]


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.hevc", "libx265", Fraction(50)),
        ("a.h264", "libx264", NTSC),
        ("a.m2v", "mpeg2video", Fraction(24000, 1001)),
    ],
)
def test_bare_streams_have_the_rate_of_their_own_headers(tmp_path: Path, name, codec, rate):
    path = clips.make_clip(tmp_path / name, frames=12, codec=codec, rate=rate)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.info.rate == rate
        assert reader.info.color.matrix == (5 if rate == 50 else 6)  # SD of 50 fields, of 60
        assert not reader.losses
    steps = [later.time - frame.time for frame, later in pairwise(frames)]
    assert all(abs(step - 1 / rate) <= frames[0].time_base for step in steps)


def test_a_still_in_a_vob_is_one_picture(tmp_path: Path):
    path = clips.make_clip(
        tmp_path / "a.mpg",
        frames=1,
        codec="mpeg2video",
        audio=["eng"],
        audio_codec="mp2",
        audio_seconds=0.5,
        container="vob",
    )
    with VideoReader(path) as reader:
        info = reader.info
        assert (info.rate, info.frame_count, info.duration_seconds) == (25, 1, Fraction(1, 25))
        assert len(list(reader)) == 1
    assert dict(describe(info))["duration"] == "0:00:00.040 (1 frame)"


def test_film_in_bare_streams_is_found(tmp_path: Path):
    woven = fielded.telecined(fielded.moments(72), top_first=True)
    path = fielded.write(
        tmp_path / "a.m2v", woven, codec="mpeg2video", options=fielded.MPEG2_INTERLACED
    )
    with VideoReader(path) as reader:
        assert reader.info.rate == Fraction(24000, 1001)
        assert isinstance(reader.info.fields, FieldReport)
        assert reader.info.fields.kind == "hard telecine"
        assert len(list(reader)) == 72


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv420p"),
    ],
)
def test_repeats_that_are_left_out_are_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name, codec, pixel_format
):
    """AVI has chunks of no bytes for them, Matroska and MP4 have times."""
    path = clips.make_clip(
        tmp_path / name,
        [clips.picture(index) for index in _SHOWN],
        pts=_SHOWN,
        codec=codec,
        pixel_format=pixel_format,
    )
    with VideoReader(path) as reader:
        assert [round(frame.time * 25) for frame in reader] == _SHOWN
        assert all(not loss.certain for loss in reader.losses)
    with caplog.at_level(logging.INFO):
        model = iart.load_model("bicubic")
        result = iart.upscale_video(path, tmp_path / "b.mkv", model, end_seconds=Fraction(3))
    assert result.frames == sum(index < 75 for index in _SHOWN)
    noted = [r.message for r in caplog.records if "or left out since" in r.message]
    assert len(noted) == (2 if name == "a.mkv" else 0)
