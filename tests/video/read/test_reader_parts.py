"""Parts of a video: a rectangle of the picture, a range of time."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from iart.errors import OptionsError
from iart.video.frame import Crop, Frame
from iart.video.open import open_video
from iart.video.read.reader import VideoReader
from tests.video import clips
from tests.video.clips import HEIGHT, RATE, WIDTH
from tests.video.read.test_reader import read

# encoder, its options: B-frames, open groups of pictures, key frames far apart or everywhere
KINDS = {
    "h264": ("libx264", {"bf": "3", "g": "12", "preset": "veryfast"}),
    "h264-open": ("libx264", {"g": "12", "x264-params": "open-gop=1:bframes=3:scenecut=0"}),
    "hevc-open": ("libx265", {"x265-params": "open-gop=1:keyint=12:log-level=none:pools=1"}),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "12"}),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "12"}),
    "intra": ("libx264", {"g": "1"}),
}  # fmt: skip
CASES = [
    *((kind, "mkv") for kind in KINDS),
    *(("h264-open", ending) for ending in ("mov", "ts")),
    *(("mpeg2", "mpg"), ("mpeg4", "avi"), ("h264", "h264")),
]


def assert_same(frames: list[Frame], expected: list[Frame]) -> None:
    assert [(f.time, f.duration, f.cut) for f in frames] == [
        (f.time, f.duration, f.cut) for f in expected
    ]
    for frame, other in zip(frames, expected, strict=True):
        assert torch.equal(frame.data, other.data)


@pytest.mark.parametrize(("kind", "ending"), CASES)
def test_a_range_gives_the_frames_of_a_whole_pass(tmp_path: Path, kind: str, ending: str):
    codec, options = KINDS[kind]
    path = clips.make_scenes(tmp_path / f"a.{ending}", (31, 40, 29), codec=codec, options=options)
    _, whole = read(path)
    assert len(whole) == 100
    for first, last in ((0, 3), (7, 20), (31, 71), (90, 100)):
        start, end = whole[first].time, whole[min(last, 99)].time
        if last == 100:
            end += 1 / RATE
        reader, frames = read(path, start_seconds=start, end_seconds=end)
        assert_same(frames, whole[first:last])
        assert reader.losses == []
        assert reader.info.start_seconds == start
        if ending != "mpg":  # of which FFmpeg guesses the length
            assert reader.info.duration_seconds == end - start
            assert reader.info.frame_count == last - first


def test_ranges_that_meet_share_no_frame(tmp_path: Path):
    path = clips.make_variable_rate(tmp_path / "a.mkv")
    _, whole = read(path)
    between = Fraction(170, 1000)
    _, before = read(path, end_seconds=between)
    _, after = read(path, start_seconds=between)
    assert_same([*before, *after], whole)
    assert len(before) == 4


def test_damage_outside_the_range_is_no_loss(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv", frames=60, options={"g": "5"})
    damaged = clips.remux(
        path, tmp_path / "b.mkv", lambda i, p: clips.spoiled(p) if 10 <= i < 15 else p
    )
    reader, frames = read(damaged, start_seconds=Fraction(1), end_seconds=Fraction(2))
    assert len(frames) == 25
    assert reader.losses == []
    reader, _ = read(damaged, start_seconds=Fraction(1, 5), end_seconds=Fraction(1))
    assert reader.losses


def test_a_file_that_ends_before_the_range_does_has_lost_its_end(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mp4", frames=60, options={"g": "10"},
                            container_options={"movflags": "faststart"})  # fmt: skip
    clips.truncate(path, 0.6)
    reader, _ = read(path, end_seconds=Fraction(1, 2))
    assert reader.losses == []
    reader, _ = read(path, start_seconds=Fraction(1, 2), end_seconds=Fraction(2))
    assert "ends early" in reader.losses[-1].reason
    assert reader.losses[-1].end_seconds == 2


def test_a_range_far_behind_the_end_is_empty(tmp_path: Path):
    path = clips.make_clip(tmp_path / "a.mkv", frames=3)
    assert read(path, start_seconds=Fraction(10**400))[1] == []


def test_a_range_must_not_be_empty(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv")
    with pytest.raises(OptionsError, match=r"the end \(1 s\) must come after the start \(2.5 s\)"):
        VideoReader(path, start_seconds=Fraction(5, 2), end_seconds=Fraction(1))


@pytest.mark.parametrize("crop", [Crop(31, 17, 5, 3), Crop(WIDTH, HEIGHT, 0, 0), Crop(1, 1, 63, 0)])
def test_a_crop_is_exact_at_odd_places_too(tmp_path: Path, crop: Crop):
    path = clips.make_plain(tmp_path / "a.mkv")
    _, whole = read(path)
    reader, frames = read(path, crop=crop)
    assert (reader.info.width, reader.info.height) == (crop.width, crop.height)
    for frame, other in zip(frames, whole, strict=True):
        part = other.data[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        assert torch.equal(frame.data, part)
        assert frame.time == other.time


def test_a_crop_is_of_the_picture_as_shown(tmp_path: Path):
    path = clips.make_rotated(tmp_path / "a.mp4", 90)
    _, whole = read(path)
    _, frames = read(path, crop=Crop(20, 60, 7, 4))
    assert torch.equal(frames[2].data, whole[2].data[:, 4:64, 7:27])


@pytest.mark.parametrize(
    "crop", [Crop(65, 48, 0, 0), Crop(10, 10, -1, 0), Crop(10, 10, 0, 39), Crop(0, 10, 0, 0)]
)
def test_a_crop_outside_the_picture_is_refused(tmp_path: Path, crop: Crop):
    path = clips.make_plain(tmp_path / "a.mkv")
    with pytest.raises(OptionsError, match=f"crop {crop} does not lie inside .* 64x48"):
        VideoReader(path, crop=crop)


def test_parts_of_a_series_of_images(tmp_path: Path):
    for index in range(10):
        image = np.full((8, 8, 3), 10 * index, np.uint8)
        clips.save_image(tmp_path / f"{index}.png", image, pixel_format="rgb24")
    with open_video(
        tmp_path, crop=Crop(3, 5, 1, 2), start_seconds=Fraction(1, 10), end_seconds=Fraction(6, 25)
    ) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == [3, 4, 5]
    assert frames[0].data.shape == (3, 5, 3)
    assert round(float(frames[0].data[0, 0, 0]) * 255) == 30
    assert (reader.info.width, reader.info.height) == (3, 5)
