"""Clips that are video files, by name: in a folder, or in a JSON list of pairs.

A list is `[{"name": "a", "gt_video": "GT/a.mkv", "lq_video": "LQ/a.mkv", "frame_count": 500}]`.

A sample is one seek, exact by presentation times, which come from one pass over the packets of a
file when its frames are first needed. Pictures are those of `iart.video`, of the file's own colours
and upright, rounded to 8 bits; what they need is cut out before colours are computed.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from einops import rearrange
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError

from iart.data.pairs import Pair, found_pairs
from iart.data.stores.folder import Frames
from iart.errors import DataError, InputError
from iart.files.images import video_files
from iart.files.text import numbered, read_text
from iart.pictures.color import to_rgb
from iart.pictures.degrade import to_uint8
from iart.pictures.orientation import Orientation
from iart.video.filters import filter_graph
from iart.video.frame import Loss, VideoInfo
from iart.video.read.decode import Decoder
from iart.video.read.probe import open_container, read_info
from iart.video.read.reader import chroma_siting, picture_color
from iart.video.read.timing import is_timed_by_order

logger = logging.getLogger(__name__)

# Files with an index of key frames; others are decoded from their start.
_QUICK = frozenset({".mkv", ".webm", ".mp4", ".m4v", ".mov"})
# Chroma is interpolated from 2 samples on either side, which lie at most 4 pixels apart.
_MARGIN = 16


class VideoFrames(Frames):
    """The frames of one file, as they are stored: nothing is deinterlaced."""

    def __init__(self, path: Path, name: str, count: int | None = None) -> None:
        """See `Store.clip`."""
        self.name = name
        self._path, self._stated = path, count

    @property
    def count(self) -> int:
        """As stated, else counted."""
        return len(self._times) if self._stated is None else self._stated

    @property
    def size(self) -> tuple[int, int]:
        """As shown."""
        return self._info.height, self._info.width

    @cached_property
    def _info(self) -> VideoInfo:
        with _damage_named(self._path):
            # of a varying rate: frames that the file never had are no damage
            return replace(read_info(self._path), variable_rate=True)

    @cached_property
    def _times(self) -> tuple[int, ...]:
        """Of all frames, ascending, in units of the file's time base."""
        info = self._info
        by_order = is_timed_by_order(info.container)
        times: list[int] = []
        with _damage_named(self._path), open_container(self._path) as container:
            for packet in container.demux(container.streams[info.stream_index]):
                time = packet.dts if by_order else packet.pts
                if packet.size and time is not None and not packet.is_discard:
                    times.append(time)
        times.sort()
        if by_order:  # such as the reader counts them
            start = round(info.start_seconds / info.time_base) - times[0]
            times = [time + start for time in times]
        if self._stated is not None and len(times) < self._stated:
            raise DataError(
                f"video '{self._path}' has {len(times)} frames, but the list of videos says"
                f" {self._stated}"
            )
        return tuple(times)

    def read(
        self, indices: Sequence[int], top: int, left: int, height: int, width: int
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """See `Frames`."""
        unit = self._info.time_base
        wanted = {self._times[index]: place for place, index in enumerate(indices)}
        start, end = min(wanted) * unit, (max(wanted) + 1) * unit
        result = np.empty((len(indices), height, width, 3), np.uint8)
        with _damage_named(self._path), open_container(self._path) as container:
            decoder = Decoder(container, self._info, start_seconds=start, logged=(start, end))
            stream: Any = container.streams[self._info.stream_index]
            stream.codec_context.thread_count = 1  # other threads make other samples
            part = _Cutter(self._info, stream, (top, left, height, width))
            for picture in decoder:
                if (place := wanted.pop(picture.pts, None)) is not None:
                    result[place] = part.of(picture.image, decoder.orientation)
                if not wanted:
                    break
            self._check(decoder.losses, wanted)
        return result

    def _check(self, losses: Sequence[Loss], missing: Iterable[int]) -> None:
        damage = [(loss.start_seconds, loss.reason) for loss in losses]
        damage += [(time * self._info.time_base, "a frame is missing") for time in missing]
        if damage:
            seconds, reason = damage[0]
            raise DataError(f"video '{self._path}' is damaged at {float(seconds):.3f} s: {reason}")

    def problems(self) -> Iterator[str]:
        """See `Frames`."""
        try:
            _ = self.size
            if len(self._times) != self.count:
                yield (
                    f"video '{self._path}' has {len(self._times)} frames, but the list of videos"
                    f" says {self.count}; the rest is not used"
                )
        except DataError as error:
            yield str(error)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, FFmpegError, OSError) as error:
        raise DataError(f"cannot read video '{path}': {error}") from error


class _Cutter:
    """Cuts one rectangle out of pictures of a file."""

    def __init__(self, info: VideoInfo, stream: Any, box: tuple[int, int, int, int]) -> None:
        top, left, height, width = box
        if info.marks.aperture is not None:
            top, left = top + info.marks.aperture.y, left + info.marks.aperture.x
        self._info, self._stream, self._box = info, stream, (top, left, height, width)
        self._graph: Graph | None = None

    def of(self, image: av.VideoFrame, orientation: Orientation) -> UInt8[np.ndarray, "h w 3"]:
        """The part of a picture, after it was turned upright."""
        color = picture_color(image, self._stream, self._info)  # by the size of the whole
        top, left, height, width = self._box
        if orientation == Orientation():
            above, before = (max(0, n - _MARGIN) // _MARGIN * _MARGIN for n in (top, left))
            image = self._cut(image, above, before)
            top, left = top - above, left - before
        siting = chroma_siting(self._info.codec)
        rgb = orientation.upright(to_rgb(image, color, siting=siting))
        part = to_uint8(rgb[:, top : top + height, left : left + width])
        return rearrange(part, "c h w -> h w c").numpy()

    def _cut(self, image: av.VideoFrame, above: int, before: int) -> av.VideoFrame:
        """The rectangle with a margin for chroma, from (above, before) on; no sample changes."""
        top, left, height, width = self._box
        below = min(image.height, top + height + _MARGIN)
        right = min(image.width, left + width + _MARGIN)
        if self._graph is None:
            options = f"w={right - before}:h={below - above}:x={before}:y={above}:exact=1"
            self._graph = filter_graph(image, [("crop", options)])
        self._graph.vpush(image)
        return self._graph.vpull()


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
            raise DataError(f"no videos in '{root}': expected files such as .mkv or .mp4")
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


class _ListedVideo(BaseModel):
    """One clip of a list of videos."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    gt_video: Path
    lq_video: Path
    frame_count: PositiveInt | None = None


_LIST = TypeAdapter(tuple[_ListedVideo, ...])


def read_video_list(path: Path, gt_root: Path | None, lq_root: Path | None) -> list[Pair]:
    """The pairs of a JSON list, see above; files are sought in the roots, then beside it.

    Raises:
        DataError: it cannot be read, has another form, is empty, or names a file that is missing.
    """
    try:
        text = read_text(path, f"the list of videos '{path}'", DataError)
        entries = _LIST.validate_json(text)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, found['loc'])) or 'the file'}: {found['msg']}"
            for found in error.errors()
        ]
        raise DataError(f"list of videos '{path}': {numbered(problems)}") from error
    if not entries:
        raise DataError(f"the list of videos '{path}' is empty")

    files: list[Path] = []

    def frames(entry: _ListedVideo, file: Path, root: Path | None) -> VideoFrames:
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


def video_pairs(options: Any) -> list[Pair]:
    """The pairs of a section of `datasets`: of its list, or found by equal names.

    Raises:
        DataError: files are missing or do not match, as far as can be told soon.
    """
    if options.meta_info_file is None:
        low = None if options.dataroot_lq is None else VideoStore(options.dataroot_lq)
        return found_pairs(VideoStore(options.dataroot_gt), low)
    return read_video_list(options.meta_info_file, options.dataroot_gt, options.dataroot_lq)
