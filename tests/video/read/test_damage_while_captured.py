"""Decoders are freed while errors are captured, as when an encoder is opened meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.video.clips import make_clip, pictures

PATIENCE_SECONDS = 300

READ = """
import sys
from iart.video.ffmpeg_log import captured_errors
from iart.video.open import open_video

with captured_errors():
    for _ in range(100):
        with open_video(sys.argv[1], deinterlace="off") as reader:
            next(iter(reader))
"""


@pytest.mark.slow
def test_a_damaged_film_is_left_while_errors_are_captured(tmp_path: Path):
    """Threads of decoders that log errors once waited for ever for who waited for them."""
    path = make_clip(tmp_path / "in.mp4", pictures(60, 320, 240))
    data = bytearray(path.read_bytes())
    for place in range(2000, len(data) - 6000, 97):
        data[place] ^= 0x55
    path.write_bytes(data)
    command = [sys.executable, "-c", READ, str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS)
