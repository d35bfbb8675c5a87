from fractions import Fraction
from pathlib import Path

from iart.video.frame import Loss
from iart.video.read.describe import clock_time, describe, describe_loss
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from tests.video import clips


def test_a_video_is_described(tmp_path: Path):
    path = clips.make_tracks(
        tmp_path / "a.mkv",
        rate=Fraction(30000, 1001),
        rotation=90,
        sample_aspect=Fraction(16, 15),
        color=(1, 1, 1, 1),
    )
    lines = dict(describe(VideoReader(path).info))
    assert lines["size"] == "48x64, pixels 15:16 (shown as 45:64)"
    assert lines["rate"] == "29.97 frames/s (30000/1001)"
    assert lines["colour"] == "bt709, limited range"
    assert lines["rotation"].startswith("90 degrees")
    assert lines["duration"] == "0:00:00.333 (10 frames)"
    assert lines["track 1"].startswith("audio · aac · eng · 48000 Hz, stereo · sound in eng")
    assert lines["chapters"] == "2"
    assert "track 0" not in lines


def test_images_are_described(tmp_path: Path):
    clips.save_image(tmp_path / "1.png", clips.picture(0), pixel_format="rgb24")
    lines = dict(describe(ImageReader(tmp_path).info))
    assert lines["container"] == "images"
    assert lines["rate"] == "25 frames/s"
    assert "gbr" in lines["colour"]


def test_interlaced_and_varying(tmp_path: Path):
    path = clips.make_interlaced(tmp_path / "a.mp4")
    assert "no motion" in dict(describe(VideoReader(path).info))["fields"]
    stored = VideoReader(path, deinterlace="off").info
    assert dict(describe(stored))["fields"] == "marked as interlaced, not looked at"
    lines = dict(describe(VideoReader(clips.make_variable_rate(tmp_path / "b.mp4")).info))
    assert lines["rate"].endswith("on average, varies")


def test_losses_and_times_are_readable():
    loss = Loss(Fraction(125, 2), Fraction(7325, 2), "frames are missing")
    assert describe_loss(loss) == "0:01:02.500 – 1:01:02.500: frames are missing"
    assert describe_loss(Loss(Fraction(1), None, "x")) == "0:00:01.000 – the end: x"
    assert clock_time(Fraction(-1, 2)) == "-0:00:00.500"
