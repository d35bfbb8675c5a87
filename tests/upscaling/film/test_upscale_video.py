import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iart.errors import DamagedInputError, DeviceError, InputError, OutputError
from iart.model.bicubic import Bicubic
from iart.upscaling.clip import upscale
from iart.upscaling.film.request import Progress
from iart.upscaling.film.run import upscale_video
from iart.video.frame import Frame
from iart.video.open import open_video
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from iart.weights import load_model
from tests.video.clips import make_clip, overwrite_middle, pictures, truncate


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, frames: Tensor) -> Tensor:
        raise self.error


def frames_of(path: Path) -> list[Frame]:
    with open_video(path) as reader:
        return list(reader)


def test_a_video_with_sound(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=23, audio=["eng"], rate=Fraction(30000, 1001))
    target, seen = tmp_path / "out.mkv", []
    result = upscale_video(
        source, target, Bicubic(), window=6, overlap=1, crf=4, preset="ultrafast",
        progress=seen.append,
    )  # fmt: skip
    small, large = frames_of(source), frames_of(target)
    assert result.frames == len(small) == len(large) == 23
    assert [f.time for f in large] == [f.time for f in small]
    expected = upscale(torch.stack([f.data for f in small]), Bicubic())
    assert (torch.stack([f.data for f in large]) - expected).abs().mean() < 0.02
    with VideoReader(target) as reader:
        assert [track.kind for track in reader.info.tracks] == ["video", "audio"]
        assert reader.info.rate == Fraction(30000, 1001)

    assert result.output == target
    assert [p.frames_done for p in seen] == list(range(1, 24))
    assert all(isinstance(p, Progress) and p.frame_count == 23 for p in seen)
    assert [p.elapsed_seconds for p in seen] == sorted(p.elapsed_seconds for p in seen)
    assert result.seconds >= seen[-1].elapsed_seconds


@pytest.mark.cuda
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_a_gpu_makes_the_same_film(tmp_path: Path, pixel_format: str):
    """Pictures go there as planes and come back as planes; alignment may jump in a few pixels."""
    source = make_clip(tmp_path / "in.mkv", frames=20)
    numbers = []
    for device in ("cpu", "cuda"):
        target = tmp_path / f"{device}.mkv"
        model = load_model("light", device, "float32")
        upscale_video(
            source, target, model, window=7, codec="ffv1", size="3x", color="bt709",
            pixel_format=pixel_format,
        )  # fmt: skip
        with av.open(target) as film:
            planes = [frame.to_ndarray() for frame in film.decode(video=0)]
            numbers.append(np.stack(planes).astype(int))
    difference = np.abs(numbers[0] - numbers[1])
    assert np.quantile(difference, 0.999) <= 1


def test_images_to_images(tmp_path: Path):
    clip = make_clip(tmp_path / "in.mkv", frames=3)
    upscale_video(clip, tmp_path / "one", Bicubic())
    result = upscale_video(tmp_path / "one", tmp_path / "two", Bicubic(), rate=Fraction(10))
    assert result.frames == 3
    assert ImageReader(tmp_path / "two").info.width == 16 * 64


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_network_stops(tmp_path: Path, error: BaseException):
    source = make_clip(tmp_path / "in.mkv", frames=5)
    with pytest.raises(type(error)):
        upscale_video(source, tmp_path / "out.mkv", Failing(error))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_says_what_to_do(tmp_path: Path, full: RuntimeError):
    source = make_clip(tmp_path / "in.mkv", frames=5)
    with pytest.raises(DeviceError, match=r"5 frames of 64x48 in whole pictures, 4 frames at once"):
        upscale_video(source, tmp_path / "out.mkv", Failing(full))


def test_conversions_are_told_before_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = make_clip(tmp_path / "in.mkv", frames=3, subtitles=["eng"])
    with caplog.at_level("INFO", "iart"), pytest.raises(RuntimeError):
        upscale_video(source, tmp_path / "out.mp4", Failing(RuntimeError()))
    assert "mov_text" in caplog.text
    result = upscale_video(source, tmp_path / "out.mp4", Bicubic())
    assert any("mov_text" in note for note in result.notes)


def test_nothing_is_left_when_reading_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: VideoReader) -> Iterator[Frame]:
        raise InputError("cannot read the file any more")

    source = make_clip(tmp_path / "in.mkv", frames=5)
    monkeypatch.setattr(VideoReader, "__iter__", broken)
    with pytest.raises(InputError, match="any more") as caught:
        upscale_video(source, tmp_path / "out.mkv", Bicubic())
    assert caught.value.__context__ is None
    assert list(tmp_path.iterdir()) == [source]


def test_no_frames_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make_clip(tmp_path / "in.mkv", frames=5)
    monkeypatch.setattr(VideoReader, "__iter__", lambda self: iter([]))
    with pytest.raises(InputError, match=r"in\.mkv': it holds no frame"):
        upscale_video(source, tmp_path / "out.mkv", Bicubic())
    assert list(tmp_path.iterdir()) == [source]


def test_an_output_that_exists_stops_before_the_network(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=3)
    target = tmp_path / "out.mkv"
    target.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        upscale_video(source, target, Failing(AssertionError()))
    assert target.read_text() == "precious"
    upscale_video(source, target, Bicubic(), overwrite=True, preset="ultrafast")
    assert len(frames_of(target)) == 3


def test_damaged_input_gives_a_complete_output_and_a_list(tmp_path: Path):
    source = truncate(make_clip(tmp_path / "in.mkv", frames=50, images=pictures(50)), 0.6)
    with pytest.raises(DamagedInputError, match=r"out\.mkv' is written, but .*ends early") as e:
        upscale_video(source, tmp_path / "out.mkv", Bicubic(), preset="ultrafast")
    with VideoReader(source) as reader:
        readable = len(list(reader))
        assert e.value.losses == tuple(reader.losses)
    assert 0 < readable < 50
    assert len(frames_of(tmp_path / "out.mkv")) == readable


def make_broadcast(path: Path, codec: str = "mpeg2video") -> Path:
    """50 frames whose clock begins at 357 s."""
    pts = [357 * 25 + index for index in range(50)]
    return make_clip(path, frames=50, pts=pts, codec=codec, audio=(), options={"g": "5"})


@pytest.mark.parametrize("output", ["out.mkv", "out"])
def test_damage_is_told_in_the_clock_of_the_output(tmp_path: Path, output: str):
    source = overwrite_middle(make_broadcast(tmp_path / "in.ts"), 0.5, 0.6)
    with VideoReader(source) as reader:
        assert list(reader)
        assert min(loss.start_seconds for loss in reader.losses) > 357
    with pytest.raises(DamagedInputError) as caught:
        upscale_video(source, tmp_path / output, Bicubic())
    assert caught.value.losses
    assert all(0 <= loss.start_seconds < 2 for loss in caught.value.losses)
    assert "damaged: 0:00:0" in str(caught.value)


def test_recordings_of_windows_count_from_0(tmp_path: Path):
    source = make_broadcast(tmp_path / "in.wtv")
    with VideoReader(source) as reader:
        assert reader.info.start_seconds == 357
        assert reader.info.frame_count is None or 45 <= reader.info.frame_count <= 55
    upscale_video(source, tmp_path / "out.mkv", Bicubic(), end_seconds=Fraction(1))
    times = [frame.time for frame in frames_of(tmp_path / "out.mkv")]
    assert times == [Fraction(index, 25) for index in range(25)]


PEAK = """
import sys
from pathlib import Path
from iart.upscaling.film.run import upscale_video
from iart.model.bicubic import Bicubic
upscale_video(sys.argv[1], sys.argv[2], Bicubic(), preset="ultrafast")
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_length(tmp_path: Path):
    """One scene, and sound that goes on after the pictures."""
    peaks = []
    for count in (100, 1000):
        # Pictures that come back every 29 frames: no cut, and quickly made.
        images = (pictures(29) * 35)[:count]
        source = make_clip(
            tmp_path / f"{count}.mkv", images, audio=["eng"], audio_seconds=count / 25 + 20
        )
        command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / f"{count}-out.mkv")]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(run.stdout) * 1024)
        with VideoReader(tmp_path / f"{count}-out.mkv") as reader:
            assert sum(1 for _ in reader) == count
    assert peaks[1] - peaks[0] < 100e6
