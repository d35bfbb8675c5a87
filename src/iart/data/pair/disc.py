"""The luma of a disc: small pictures of every frame, without colours, which cost ten times as much.

A disc is decoded once. Thumbnails stay; larger pictures, which frames are compared by, are kept as
JPEG until that is done: about 20 kB a frame, where decoding again would take most of the time.

Frames are those of `VideoReader`: the same treatment of fields gives the same frames at the same
times, here of luma alone.
"""

import io
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from iart.errors import DataError, InputError
from iart.files.complete import complete_file
from iart.pictures.chroma import Siting
from iart.pictures.color import to_rgb
from iart.video.dvd.disc import find_title
from iart.video.fields.treat import Plan, plan_fields, treated
from iart.video.filters import FilterChain
from iart.video.frame import Crop, VideoInfo
from iart.video.open import open_video
from iart.video.read.borders import find_borders
from iart.video.read.decode import Decoder, Picture
from iart.video.read.probe import open_container, read_info
from iart.video.read.reader import VideoReader, chroma_siting, picture_color
from iart.video.read.timing import is_seekable

THUMBNAIL = 32, 48
"""(rows, columns)."""
_RECORD = np.dtype([("time", "<f8"), ("end", "<u8"), ("luma", "u1", THUMBNAIL)])
"""Time, where its larger picture ends in the file of these, thumbnail."""
_QUALITY = 90  # of JPEG: errors of a level or two, which are noise to what compares pictures
_CONTEXT_SECONDS = 2  # as the reader decodes before the first frame that is asked for
_BUFFERED = 256  # records
_SAME = 1e-6  # seconds between times of the same frame
_RECENT = 4  # frames that a later request may begin with
_SKIPPED_SECONDS = 20  # are decoded rather than sought


@dataclass(frozen=True)
class Disc:
    """One of the two films.

    Attributes:
        path: as it was given.
        source: what the probe found.
        info: what is known of its frames.
        plan: how its fields are treated.
        active: the picture without black borders, in pixels.
    """

    path: Path
    source: VideoInfo
    info: VideoInfo
    plan: Plan
    active: Crop

    @classmethod
    def open(cls, path: Path) -> "Disc":
        """Look at a video file or a DVD's folder.

        Raises:
            InputError: it cannot be read.
            DataError: it is no video, or is stored turned.
        """
        if path.is_dir() and find_title(path) is None:
            raise DataError(f"'{path}' holds no VOB files: pass a video, or a VIDEO_TS folder")
        with open_video(path, scenes=False) as reader:
            if not isinstance(reader, VideoReader):
                raise DataError(f"'{path}' is not a video: pass a video, or a VIDEO_TS folder")
            info = reader.info
        if info.rotation or info.marks.aperture is not None:
            raise DataError(
                f"'{path}' is shown turned or cropped by its container: remux it without"
            )
        source = read_info(info.path)
        active = find_borders(path) or Crop(info.width, info.height, 0, 0)
        return cls(path, source, info, plan_fields(source, info.fields, "auto"), active)

    @property
    def aspect(self) -> float:
        """Width of the active picture over its height, as shown."""
        return float(self.active.width * self.info.sample_aspect / self.active.height)

    @property
    def identity(self) -> dict[str, object]:
        """What tells this disc from others, as far as results depend on it."""
        title = find_title(self.info.path)
        files = [path.stat() for path in (title.files if title else [self.info.path])]
        return {
            "name": self.path.name,
            "bytes": sum(file.st_size for file in files),
            "modified": max(file.st_mtime_ns for file in files),
        }

    def luma(self, height: int, width: int) -> Iterator[tuple[float, UInt8[np.ndarray, "h w"]]]:
        """Time and active picture of each frame, reduced to a size by the mean of the area."""
        crop = self.active
        place = f"{crop.width}:{crop.height}:{crop.x}:{crop.y}"
        reduce = FilterChain([("crop", place), ("scale", f"{width}:{height}:flags=area")])
        # a plane as it is costs nothing; what has none becomes grey
        has_luma = self.source.pixel_format.startswith(("yuv", "gray"))
        planes = FilterChain([("extractplanes", "y")] * has_luma + [("format", "gray")])
        with open_container(self.info.path) as container:
            pictures = (
                Picture(planes.push(picture.image, 0)[0][1], picture.pts, picture.duration)
                for picture in Decoder(container, self.source)
            )
            for picture in treated(pictures, self.plan.treatment(self.source)):
                small = reduce.push(picture.image, 0)[0][1]
                yield float(picture.pts * self.info.time_base), small.to_ndarray()

    def colors(
        self, *, start_seconds: float
    ) -> Iterator[tuple[float, Callable[[], Float[Tensor, "3 h w"]]]]:
        """Time of each frame, and what makes RGB of it: that takes most of the work.

        Args:
            start_seconds: from about this time on.
        """
        siting: Siting = chroma_siting(self.source.codec)
        with open_container(self.info.path) as container:
            stream = container.streams[self.source.stream_index]
            start = Fraction(start_seconds) - _CONTEXT_SECONDS
            pictures = Decoder(container, self.source, start_seconds=start)
            for picture in treated(pictures, self.plan.treatment(self.source)):
                color = picture_color(picture.image, stream, self.source)
                rgb = partial(to_rgb, picture.image, color, siting=siting)
                yield float(picture.pts * self.info.time_base), rgb


class Thumbnails:
    """Small pictures of all frames of a disc, in files; only what is looked at is in memory.

    Attributes:
        times: of the frames, in seconds.
        luma: thumbnails, `n 32 48`.
    """

    def __init__(self, path: Path) -> None:
        """Map a file that `write_thumbnails` has written."""
        records = np.memmap(path, _RECORD, "r")
        self.times: np.ndarray = np.array(records["time"])
        self.luma: np.ndarray = records["luma"]
        self._ends, self._pictures = records["end"], _pictures_of(path)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    def pictures(self, first: int, last: int) -> UInt8[np.ndarray, "n h w"]:
        """The larger pictures of [first, last), until `drop_pictures`."""
        ends = [0 if first == 0 else int(self._ends[first - 1]), *self._ends[first:last].tolist()]
        with self._pictures.open("rb") as file:
            file.seek(ends[0])
            stored = [io.BytesIO(file.read(end - start)) for start, end in pairwise(ends)]
        return np.stack([np.asarray(Image.open(each)) for each in stored])

    def drop_pictures(self) -> None:
        """Remove the file of the larger pictures."""
        self._pictures.unlink(missing_ok=True)

    @property
    def rate(self) -> float:
        """Frames per second, on average."""
        return (len(self) - 1) / float(self.times[-1] - self.times[0])


def _pictures_of(path: Path) -> Path:
    return path.with_suffix(".pictures")


def write_thumbnails(
    disc: Disc, path: Path, size: tuple[int, int], progress: Callable[[int, int], None]
) -> None:
    """Decode a disc once, and keep of each frame what `Thumbnails` has; complete or not at all.

    Args:
        disc: to look at.
        path: of the thumbnails, beside which the larger pictures go; nothing is done if it exists.
        size: (rows, columns) of the larger pictures.
        progress: called with (frames done, frames expected).

    Raises:
        InputError: it cannot be read.
        DataError: it has fewer than two frames.
        OutputError: the operating system refuses.
    """
    if path.exists():
        return
    buffer = np.zeros(_BUFFERED, _RECORD)
    expected, count = disc.info.frame_count or 0, 0
    with complete_file(path) as file, complete_file(_pictures_of(path)) as pictures:
        for time, luma in disc.luma(*size):
            image = Image.fromarray(luma)
            image.save(pictures, "JPEG", quality=_QUALITY)
            small = image.resize((THUMBNAIL[1], THUMBNAIL[0]), Image.Resampling.BOX)
            buffer[count % _BUFFERED] = time, pictures.tell(), np.asarray(small)
            count += 1
            if count % _BUFFERED == 0:
                file.write(buffer.tobytes())
                progress(count, max(count, expected))
        file.write(buffer[: count % _BUFFERED].tobytes())
        if count < 2:
            raise DataError(f"'{disc.path}' has fewer than two frames: expected a film")
    progress(count, count)


Content = TypeVar("Content")


class Cursor(Generic[Content]):
    """Frames of a disc at given times, read forwards where that is nearer than to begin anew."""

    def __init__(
        self, disc: Disc, begin: Callable[[float], Iterator[tuple[float, Content]]]
    ) -> None:
        """Read a disc.

        Args:
            disc: to read.
            begin: gives time and content of all frames from about a time on.
        """
        self._disc, self._begin = disc, begin
        # others are decoded from their start to get anywhere
        seekable = is_seekable(disc.source.container)
        self._skipped = _SKIPPED_SECONDS if seekable else math.inf
        self._frames: Iterator[tuple[float, Content]] = iter(())
        self._recent: deque[tuple[float, Content]] = deque(maxlen=_RECENT)

    def read(self, times: Float[np.ndarray, " n"]) -> Iterator[Content]:
        """The frames at ascending times, which `Thumbnails` has told.

        Raises:
            InputError: the disc has changed.
        """
        first, recent = times[0], self._recent
        if not recent or not recent[0][0] - _SAME <= first <= recent[-1][0] + self._skipped:
            self._frames = self._begin(float(first))
            recent.clear()
        found = 0
        for time, content in self._forwards():
            if abs(time - times[found]) < _SAME:
                yield content
                found += 1
                if found == len(times):
                    return
        raise InputError(
            f"'{self._disc.path}' has no frame at {times[found]:.3f} s any more: it was changed"
            " since it was analysed; pass --overwrite to begin again"
        )

    def _forwards(self) -> Iterator[tuple[float, Content]]:
        yield from tuple(self._recent)
        for frame in self._frames:
            self._recent.append(frame)
            yield frame
