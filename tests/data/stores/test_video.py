"""Frames of videos at random access are those of a pass over the whole file, as `iart` reads it."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from iart.data.sets import inspect, open_training_set
from iart.data.stores.video import VideoFrames
from iart.errors import DataError
from iart.pictures.degrade import to_uint8
from iart.video.read.reader import VideoReader
from tests.data.made import ground_truth, train_options
from tests.video.clips import make_clip, overwrite_middle, truncate

B_FRAMES = {"bf": "3", "g": "8", "crf": "18", "x264-params": "b-adapt=0:scenecut=0"}
OPEN_GOP = {**B_FRAMES, "x264-params": "b-adapt=0:scenecut=0:open-gop=1:keyint=8:min-keyint=8"}
VFR = [
    0,
    40,
    90,
    100,
    180,
    200,
    210,
    300,
    333,
    350,
    470,
    480,
    500,
    555,
    600,
    610,
    650,
    700,
    810,
    900,
]
CASES: dict[str, dict[str, Any]] = {
    "ffv1.mkv": {"codec": "ffv1", "pixel_format": "bgr0", "options": {}},
    "ffv1_yuv.avi": {"codec": "ffv1", "pixel_format": "yuv420p", "options": {}},
    "ffv1_10bit.mkv": {"codec": "ffv1", "pixel_format": "yuv422p10le", "options": {}},
    "b_frames.mp4": {"options": B_FRAMES},
    "b_frames.mkv": {"options": B_FRAMES},
    "b_frames.avi": {"options": B_FRAMES},
    "b_frames.ts": {"options": B_FRAMES},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "vfr.mp4": {"options": B_FRAMES, "pts": VFR, "time_base": Fraction(1, 1000)},
    "vfr.mkv": {"options": B_FRAMES, "pts": VFR, "time_base": Fraction(1, 1000)},
    "late_start.mkv": {"options": B_FRAMES, "pts": range(500, 520), "time_base": Fraction(1, 25)},
    "rotated.mp4": {"rotation": 90},
    "colour.mp4": {"color": (9, 14, 9, 2)},
    "untagged_hd.mkv": {"height": 600, "options": B_FRAMES},
    "jpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {}},
    "odd.mkv": {"codec": "ffv1", "pixel_format": "yuv420p", "options": {}, "width": 61},
}  # fmt: skip


def whole_pass(path: Path) -> np.ndarray:
    with VideoReader(path, scenes=False) as reader:
        frames = [to_uint8(frame.data) for frame in reader]
    return torch.stack(frames).permute(0, 2, 3, 1).numpy()


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Colours are computed on a part, whose float sums may end one bit apart."""
    assert a.shape == b.shape
    difference = np.abs(a.astype(int) - b)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_frames_are_those_of_a_whole_pass(tmp_path: Path, name: str):
    path = make_clip(tmp_path / name, **{"frames": 20, "width": 96, "height": 80, **CASES[name]})
    expected = whole_pass(path)
    frames = VideoFrames(path, name)
    assert frames.count == len(expected) == 20
    assert frames.size == expected.shape[1:3]
    height, width = frames.size
    same(frames.read(range(20), 0, 0, height, width), expected)
    for first in range(0, 18, 1 if "open_gop" in name or "vfr" in name else 5):
        indices = [first, first + 2]
        same(frames.read(indices, 20, 18, 21, 16), expected[indices, 20:41, 18:34])
    assert list(frames.problems()) == []


def test_the_case_of_open_groups_is_one(tmp_path: Path):
    """Pictures after a key frame are shown before it, and need the group before."""
    path = make_clip(tmp_path / "a.mkv", frames=20, options=OPEN_GOP)
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) > 2
    assert any((packets[i + 1].pts or 0) < (packets[i].pts or 0) for i in keys[1:])


def test_one_seek_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the key frame before the first frame to the last one, and the file is opened once."""
    from iart.data.stores import video

    path = make_clip(tmp_path / "long.mkv", frames=120, options=B_FRAMES)
    frames = VideoFrames(path, "long")
    frames.read([0], 0, 0, 48, 64)
    opened: list[int] = []
    decoded: list[int] = []
    original = video.Decoder

    class Counting(original):
        def __init__(self, *arguments, **more) -> None:
            opened.append(1)
            super().__init__(*arguments, **more)

        def _place(self, image):
            decoded.append(1)
            return super()._place(image)

    monkeypatch.setattr(video, "Decoder", Counting)
    frames.read(range(100, 108), 0, 0, 48, 64)
    assert len(opened) == 1
    assert len(decoded) <= 8 + 8


def test_damage_is_named(tmp_path: Path):
    path = make_clip(tmp_path / "a.mkv", frames=20, codec="ffv1", pixel_format="bgr0", options={})
    whole = VideoFrames(path, "a")
    assert whole.count == 20
    truncate(path, 0.6)
    with pytest.raises(DataError, match=r"video '.*a\.mkv' is damaged at 0\.\d+ s"):
        whole.read([0, 19], 0, 0, 48, 64)
    stated = VideoFrames(path, "a", 20)
    with pytest.raises(DataError, match="but the list of videos says 20"):
        stated.read([0], 0, 0, 48, 64)
    (problem,) = stated.problems()
    assert "says 20" in problem
    assert whole.read([0], 0, 0, 48, 64).shape == (1, 48, 64, 3)


def test_a_damaged_middle(tmp_path: Path):
    path = make_clip(tmp_path / "a.mkv", frames=40, options=B_FRAMES)
    overwrite_middle(path, 0.3, 0.6)
    frames = VideoFrames(path, "a", 30)
    with pytest.raises(DataError, match=r"a\.mkv"):
        frames.read(range(30), 0, 0, 48, 64)


def test_what_is_no_video(tmp_path: Path):
    (tmp_path / "a.mkv").write_text("text")
    with pytest.raises(DataError, match=r"cannot read video '.*a\.mkv'"):
        _ = VideoFrames(tmp_path / "a.mkv", "a").size


# ---- sets of videos


def make_videos(root: Path, clips: dict[str, int]) -> None:
    """Lossless pairs, GT in Matroska and LQ in AVI."""
    for number, (name, count) in enumerate(clips.items()):
        truth = [ground_truth(number, i, 64, 96) for i in range(count)]
        for folder, images, suffix in (
            ("GT", truth, ".mkv"),
            ("LQ", [image[::4, ::4] for image in truth], ".avi"),
        ):
            path = root / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_clip(path, images, codec="ffv1", pixel_format="bgr0", options={})


@pytest.mark.parametrize("kind", ["VideoRecurrentDataset", "VideoDataset"])
def test_pairs_found_by_name(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    make_videos(tmp_path, {"a": 6, "b/c": 4})
    training_set = open_training_set(train_options(kind, tmp_path, gt_size=32))
    (record,) = caplog.records
    assert "2 videos are decoded from their start" in record.message
    assert "`ffmpeg -i a.avi -c copy a.mkv`" in record.message
    assert len(training_set) == 10
    for i in range(10):
        sample = training_set.sample(i, i, 0)
        assert sample.lq.repeat_interleave(4, -1).repeat_interleave(4, -2).equal(sample.gt)
        assert sample.lq[:, 2, 0, 0].tolist() == list(sample.origin.frames)
    assert inspect(training_set) == []


def test_pairs_of_a_list(tmp_path: Path):
    make_videos(tmp_path, {"a": 6, "b": 4})
    entries = [
        {"name": "first", "gt_video": "a.mkv", "lq_video": "a.avi", "frame_count": 6},
        {"name": "second", "gt_video": "GT/b.mkv", "lq_video": str(tmp_path / "LQ" / "b.avi")},
    ]
    meta = tmp_path / "videos.json"
    meta.write_text(json.dumps(entries))
    options = train_options("VideoRecurrentDataset", tmp_path, meta_info_file=meta)
    training_set = open_training_set(options)
    assert len(training_set) == 10
    assert {training_set.sample(i, i, 0).origin.clip for i in range(10)} == {"first", "second"}
    options.dataroot_gt = options.dataroot_lq = None
    with pytest.raises(DataError, match=re.escape(f"'{tmp_path}/a.avi' for clip 'first'")):
        open_training_set(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "Invalid JSON"),
        ("[]", "is empty"),
        ('[{"name": "a"}]', "0.gt_video: Field required"),
        ('[{"name": "a", "gt_video": "a", "lq_video": "b", "frame_count": -1}]', "0.frame_count"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, message: str):
    meta = tmp_path / "videos.json"
    meta.write_text(text)
    options = train_options("VideoRecurrentDataset", tmp_path, meta_info_file=meta)
    with pytest.raises(DataError, match=re.escape(message)):
        open_training_set(options)


def test_names_that_do_not_pair(tmp_path: Path):
    make_videos(tmp_path, {"a": 4})
    options = train_options("VideoDataset", tmp_path)
    (tmp_path / "LQ" / "a.avi").rename(tmp_path / "LQ" / "b.avi")
    with pytest.raises(DataError, match="clip 'a' has no low resolution of that name"):
        open_training_set(options)
    (tmp_path / "GT" / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="would be the same clip"):
        open_training_set(options)
    options.dataroot_gt = tmp_path / "none"
    with pytest.raises(DataError, match="no videos in"):
        open_training_set(options)
