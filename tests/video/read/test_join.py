"""Recordings joined end to end: one clock for pictures and sound, also of a range."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import iart
from iart.video.read.reader import VideoReader
from tests.video import clips

_SECONDS = 3


def joined(path: Path) -> Path:
    """Two recordings whose clocks start alike."""
    halves = []
    for number in (1, 2):
        half = path.with_name(f"{number}{path.suffix}")
        halves.append(half)
        clips.make_clip(
            half,
            frames=25 * _SECONDS,
            codec="mpeg2video",
            audio=("eng",),
            audio_codec="mp2",
        )
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    return path


def sound(path: Path) -> tuple[list[float], list[float]]:
    """Times in seconds of the packets of sound, and all samples."""
    times, samples = [], []
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.pts is None:
                continue
            times.append(float(packet.pts * packet.time_base))
            samples += [frame.to_ndarray()[0] for frame in packet.decode()]
    return times, list(np.concatenate(samples))


def upscaled(source: Path, output: Path, **options) -> Path:
    iart.upscale_video(source, output, iart.load_model("bicubic"), **options)
    return output


@pytest.mark.parametrize("ending", ["ts", "mpg"])
def test_sound_keeps_time_where_a_clock_starts_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
):
    """That is no damage, and only noted."""
    path = joined(tmp_path / f"a.{ending}")
    with VideoReader(path) as reader:
        pictures = [frame.time for frame in reader]
    steps = np.diff([float(time) for time in pictures])
    assert len(pictures) == 2 * 25 * _SECONDS
    assert np.allclose(steps, 0.04, atol=0.001)
    with caplog.at_level(logging.INFO):
        times, _ = sound(upscaled(path, tmp_path / "b.mkv"))
    assert sum("times jump back by 3." in record.message for record in caplog.records) == 1
    with av.open(str(path)) as source:
        count = sum(1 for packet in source.demux(audio=0) if packet.size)
    assert len(times) == count
    length = 1152 / 48000
    # at the join sound may be a little longer or shorter than the pictures
    apart = np.abs(np.diff(times) - length)
    assert apart.max() <= 0.12
    assert (apart > 0.002).sum() <= 1


@pytest.mark.parametrize("ending", ["ts", "mpg"])
def test_a_range_is_cut_on_the_mended_clock(tmp_path: Path, ending: str):
    path = joined(tmp_path / f"a.{ending}")
    start, end = Fraction(7, 2), Fraction(5)
    output = upscaled(path, tmp_path / "b.mkv", start_seconds=start, end_seconds=end)
    times, _ = sound(output)
    assert abs(len(times) * 1152 / 48000 - float(end - start)) <= 0.05
    with VideoReader(output) as reader:
        assert abs(len(list(reader)) - 25 * float(end - start)) <= 1
