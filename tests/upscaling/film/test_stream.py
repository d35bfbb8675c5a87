"""y4m from standard input and to standard output."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from iart.errors import DamagedInputError, InputError, OptionsError
from iart.model.bicubic import Bicubic
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.upscaling.film.stream import run_stream
from iart.video.read.reader import VideoReader
from tests.video.clips import make_clip, picture

RATE, COUNT = Fraction(24000, 1001), 5


def _y4m(pixel_format: str = "yuv420p", *, sample_aspect: Fraction = Fraction(1)) -> bytes:
    file = BytesIO()
    options = {"strict": "-1"}
    with av.open(file, "w", format="yuv4mpegpipe", options=options) as output:
        stream: Any = output.add_stream("rawvideo", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = index
            output.mux(stream.encode(frame))
    aspect = f" A{sample_aspect.numerator}:{sample_aspect.denominator} "
    return file.getvalue().replace(b" A0:0 ", aspect.encode(), 1)


def _run(monkeypatch, given: bytes, output: Any, **options: Any):
    """Through a pipe, which cannot be sought in, to a file that stands for standard output."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as sink, suppress(BrokenPipeError):
            sink.write(given)

    with os.fdopen(read, "rb") as source, ThreadPoolExecutor(1) as thread:
        thread.submit(feed)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=source))
        with Path("stream.y4m").open("wb") as target:
            monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=target))
            try:
                return run_stream(UpscaleRequest("-", output, **options), Bicubic())
            finally:
                source.close()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le"])
def test_a_stream_becomes_the_same_as_a_file(monkeypatch, tmp_path, pixel_format):
    given = _y4m(pixel_format, sample_aspect=Fraction(8, 9))
    result = _run(monkeypatch, given, "-", color="keep")
    assert result.frames == COUNT
    (tmp_path / "in.y4m").write_bytes(given)
    upscale_video(
        tmp_path / "in.y4m",
        tmp_path / "out.mkv",
        Bicubic(),
        codec="ffv1",
        pixel_format=pixel_format,
        color="keep",
    )
    with (
        VideoReader(tmp_path / "stream.y4m") as got,
        VideoReader(tmp_path / "out.mkv") as wanted,
    ):
        assert (got.info.width, got.info.height) == (256, 192)
        assert got.info.pixel_format == pixel_format
        assert (got.info.rate, got.info.sample_aspect) == (RATE, Fraction(8, 9))
        frames, others = list(got), list(wanted)
    assert [frame.time for frame in frames] == [index / RATE for index in range(COUNT)]
    for frame, other in zip(frames, others, strict=True):
        np.testing.assert_array_equal(frame.data.numpy(), other.data.numpy())


@pytest.mark.parametrize("missing", [1, 64 * 48, 64 * 48 * 3 // 2 + 3])
def test_a_stream_that_ends_within_a_picture_is_told(monkeypatch, tmp_path, missing):
    with pytest.raises(DamagedInputError, match="within a picture") as caught:
        _run(monkeypatch, _y4m()[:-missing], "out.mkv", preset="ultrafast")
    assert [loss.start_seconds for loss in caught.value.losses] == [(COUNT - 1) / RATE]
    with VideoReader(tmp_path / "out.mkv") as reader:
        assert len(list(reader)) == COUNT - 1


def test_a_stream_becomes_a_file_and_a_part_of_it(monkeypatch, tmp_path):
    _run(monkeypatch, _y4m(), "out.mkv", size="2x")
    with VideoReader(tmp_path / "out.mkv") as reader:
        assert (reader.info.width, len(list(reader))) == (128, COUNT)


def test_a_range_of_a_file_becomes_a_stream_and_sound_is_told(monkeypatch, tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=20, audio=["eng"])
    with Path("stream.y4m").open("wb") as target:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=target))
        request = UpscaleRequest(source, "-", end_seconds=Fraction(1, 5))
        result = run_stream(request, Bicubic())
    assert any("not carried into a stream: audio 1" in note for note in result.notes)
    with VideoReader("stream.y4m") as reader:
        assert len(list(reader)) == 5


def test_what_a_stream_cannot_do_is_refused(monkeypatch):
    with pytest.raises(InputError, match="no y4m stream"):
        _run(monkeypatch, b"hello", "-")
    for options in ({"start_seconds": Fraction(1)}, {"crop": "auto"}, {"deinterlace": "bwdif"}):
        with pytest.raises(OptionsError, match="read once"):
            _run(monkeypatch, _y4m(), "-", **options)
    with pytest.raises(OptionsError, match="not encoded"):
        _run(monkeypatch, _y4m(), "-", codec="x264")


@pytest.mark.slow
def test_a_pipe_holds_pictures_only_and_may_be_closed_early(tmp_path):
    command = [sys.executable, "-m", "iart", "upscale", "-", "-o", "-", "--model", "bicubic"]
    done = subprocess.run(command, input=_y4m(), capture_output=True, check=True)
    (tmp_path / "out.y4m").write_bytes(done.stdout)
    assert b"5 frames" in done.stderr
    with VideoReader(tmp_path / "out.y4m") as reader:
        assert len(list(reader)) == COUNT
    (tmp_path / "in.y4m").write_bytes(_y4m())
    with subprocess.Popen(
        [*command[:4], "in.y4m", *command[5:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"has stopped" in process.stderr.read()
    assert process.returncode == 1
