"""Finding video files."""

import os
from pathlib import Path

from iart.video.images import natural_key

VIDEOS = frozenset({".mkv", ".mp4", ".avi", ".mov", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"})


def video_files(root: Path) -> list[Path]:
    """Videos at any depth below a folder, in natural order; hidden ones are left out."""
    found = (Path(folder) / file for folder, _, files in os.walk(root) for file in files)
    videos = [p for p in found if p.suffix.lower() in VIDEOS and not p.name.startswith(".")]
    return sorted(videos, key=natural_key)
