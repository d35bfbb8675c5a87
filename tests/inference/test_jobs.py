"""Work that is stopped, by whatever, goes on after its last finished segment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor, nn

from iart.inference.video import upscale_video
from iart.model.bicubic import Bicubic
from tests.video.clips import make_clip, picture

LENGTHS = (60, 20, 50, 55, 300, 49)
"""Of scenes: one too short for a segment of its own, one too long."""
FIRSTS = (0, 60, 130, 185, 425, 485)
"""Of the segments that come of them."""
FAST = ("--model", "bicubic", "--preset", "ultrafast")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes that differ, sound, subtitles."""
    images = [
        picture(index, scene=scene) for scene, count in enumerate(LENGTHS) for index in range(count)
    ]
    path = tmp_path_factory.mktemp("film") / "in.mkv"
    return make_clip(path, images, audio=["eng"], subtitles=["eng", "deu"])


def start(source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "iart", "upscale", source, "-o", output, *FAST, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.PIPE, text=True, env=environment
    )


def run(source: Path, output: Path, *more: str) -> str:
    process = start(source, output, *more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


def job_of(output: Path) -> Path:
    return output.parent / f".{output.name}.job"


def segments_of(output: Path) -> list[Path]:
    return sorted((job_of(output) / "parts").glob("*.json"))


def stop(source: Path, output: Path, segments: int, number: int, *more: str) -> str:
    """Send a signal when so many segments are finished."""
    process = start(source, output, *more)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(segments_of(output)) >= segments:
            break
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    return errors


class StopsAfter(nn.Module):
    """Bicubic, until so many windows have been shown."""

    def __init__(self, windows: int, error: BaseException) -> None:
        super().__init__()
        self.left, self.error, self.shown = windows, error, 0

    def forward(self, frames: Tensor) -> Tensor:
        self.shown += 1
        if self.shown > self.left:
            raise self.error
        return Bicubic()(frames)


def call(source: Path, output: Path, model: nn.Module, **more) -> None:
    upscale_video(source, output, model, preset="ultrafast", **more)


@contextmanager
def stopped(error: type[BaseException] = RuntimeError, match: str = "") -> Iterator[None]:
    with pytest.raises(error, match=match):
        yield


def windows_of(source: Path, output: Path, **more) -> int:
    model = StopsAfter(10**6, RuntimeError())
    call(source, output, model, **more)
    return model.shown


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_killed_twice_and_gone_on_gives_the_same_bytes(film: Path, tmp_path: Path, name: str):
    whole, output = tmp_path / "whole" / name, tmp_path / name
    whole.parent.mkdir()
    run(film, whole)
    stop(film, output, 1, signal.SIGKILL)
    stop(film, output, 4, signal.SIGKILL)
    kept = segments_of(output)
    firsts = [json.loads(path.read_text())["first"] for path in kept]
    assert tuple(firsts) == FIRSTS[: len(firsts)]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert not output.exists()
    process = start(film, output)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"going on at frame {FIRSTS[len(before)]} of 534" in errors
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "whole"])
