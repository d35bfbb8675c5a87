"""Videos by name: in a folder, or in a JSON list of pairs.

A list is `[{"name": "a", "gt_video": "GT/a.mkv", "lq_video": "LQ/a.mkv", "frame_count": 500}]`.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError

from iart.data.pairs import Pair
from iart.data.video_files import VIDEOS, video_files
from iart.data.video_frames import VideoFrames
from iart.errors import DataError

logger = logging.getLogger(__name__)

# Files with an index of key frames; others are decoded from their start.
_QUICK = frozenset({".mkv", ".webm", ".mp4", ".m4v", ".mov"})


class VideoStore:
    """Video files at any depth below a folder; a clip's name is its path without the ending."""

    def __init__(self, root: Path) -> None:
        """Find the files.

        Raises:
            DataError: there are none, or two of one name.
        """
        self._files: dict[str, Path] = {}
        for path in video_files(root):
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in self._files:
                raise DataError(f"'{path}' and '{self._files[name]}' would be the same clip")
            self._files[name] = path
        if not self._files:
            raise DataError(f"no videos in '{root}': expected {', '.join(sorted(VIDEOS))}")
        _note_slow(self._files.values())

    def names(self) -> list[str]:
        """See `Store`."""
        return list(self._files)

    def clip(self, name: str, count: int | None = None) -> VideoFrames:
        """See `Store`.

        Raises:
            DataError: there is no such clip.
        """
        if name not in self._files:
            raise DataError(f"there is no video '{name}'")
        return VideoFrames(self._files[name], name, count)


class _Entry(BaseModel):
    """One clip of a list of videos."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    gt_video: Path
    lq_video: Path
    frame_count: PositiveInt | None = None


_ENTRIES = TypeAdapter(tuple[_Entry, ...])


def read_video_list(path: Path, gt_root: Path | None, lq_root: Path | None) -> list[Pair]:
    """The pairs of a JSON list, see above; files are sought in the roots, then beside it.

    Raises:
        DataError: it cannot be read, has another form, is empty, or names a file that is missing.
    """
    try:
        entries = _ENTRIES.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the list of videos '{path}': {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"list of videos '{path}': {place}: {first['msg']}") from error
    if not entries:
        raise DataError(f"the list of videos '{path}' is empty")

    files: list[Path] = []

    def frames(entry: _Entry, file: Path, root: Path | None) -> VideoFrames:
        places = [folder / file for folder in (root, path.parent) if folder is not None]
        for place in places:
            if place.is_file():
                files.append(place)
                return VideoFrames(place, entry.name, entry.frame_count)
        raise DataError(f"'{path}' names '{places[0]}' for clip '{entry.name}', which is missing")

    pairs = [
        Pair(frames(entry, entry.lq_video, lq_root), frames(entry, entry.gt_video, gt_root))
        for entry in entries
    ]
    _note_slow(files)
    return pairs


def _note_slow(files: Iterable[Path]) -> None:
    if slow := [file for file in files if file.suffix.lower() not in _QUICK]:
        logger.warning(
            "%d videos are decoded from their start for every sample, for want of an index:"
            " `ffmpeg -i %s -c copy %s` makes one that is quick",
            len(slow),
            slow[0].name,
            slow[0].with_suffix(".mkv").name,
        )
