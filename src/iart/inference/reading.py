"""How a source is read: everything that `open_video` is told, in one object."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from iart.errors import InputError
from iart.video.borders import find_borders
from iart.video.dvd import find_title
from iart.video.frame import Crop
from iart.video.images import ImageReader, find_images, open_video
from iart.video.reader import VideoReader

_log = logging.getLogger(__name__)

_CLOCKS_FROM_ANYWHERE = ("mpeg", "mpegts")


@dataclass(frozen=True)
class Reading:
    """A source and the part of it that is wanted; can be sent to other processes.

    Attributes:
        source: a file that FFmpeg reads, a folder of images, a pattern, or a list of images.
        rate: frames per second of images.
        deinterlace: see `iart.video.reader.VideoReader`.
        crop: the part of the picture that is wanted; None for all of it, "auto" for all but black
            borders.
        start_seconds: where to start, from the beginning of the film.
        end_seconds: where to stop, from the beginning of the film.
    """

    source: str | Path | Sequence[str | Path]
    rate: Fraction = Fraction(25)
    deinterlace: str = "auto"
    crop: Crop | Literal["auto"] | None = None
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.source) if isinstance(self.source, str | Path) else "the images"

    @property
    def has_range(self) -> bool:
        """Whether only a part of the film's time is wanted."""
        return self.start_seconds is not None or self.end_seconds is not None

    @property
    def absolute_name(self) -> str:
        """The same for the same files, wherever the command is run."""
        names = [self.source] if isinstance(self.source, str | Path) else self.source
        return ", ".join(str(Path(name).absolute()) for name in names)

    def open(self) -> VideoReader | ImageReader:
        """A reader of what is wanted; borders have been found, see `resolved`.

        Raises:
            InputError: the source cannot be read.
            OptionsError: the range or the rectangle is empty or lies outside.
        """
        assert self.crop != "auto"
        return open_video(
            self.source,
            rate=self.rate,
            deinterlace=self.deinterlace,
            crop=self.crop,
            start_seconds=self.start_seconds,
            end_seconds=self.end_seconds,
        )

    def resolved(self) -> "Reading":
        """The same, with what depends on the file: its black borders, and its clock.

        Raises:
            InputError: the source cannot be read.
        """
        if self.crop != "auto":
            return self._in_file_time()
        found = find_borders(self.source)
        _log.info("crop: %s", "no black borders found" if found is None else f"{found}")
        return replace(self, crop=found)._in_file_time()

    def _in_file_time(self) -> "Reading":
        """The same, with a range in the clock of the file, which may start anywhere."""
        if not self.has_range:
            return self
        with open_video(self.source, rate=self.rate, deinterlace="off") as reader:
            info = reader.info
        if not info.container.startswith(_CLOCKS_FROM_ANYWHERE):
            return self
        times = (self.start_seconds, self.end_seconds)
        start, end = (None if time is None else time + info.start_seconds for time in times)
        return replace(self, start_seconds=start, end_seconds=end)

    def fingerprint(self) -> str:
        """Changes when a file of the source is exchanged or touched: sizes and times of all."""
        digest = hashlib.sha256()
        for path in self._files():
            status = path.stat()
            digest.update(os.fsencode(path.absolute()))
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:16]

    def _files(self) -> list[Path]:
        title = find_title(self.source) if isinstance(self.source, str | Path) else None
        if title is not None:
            return [*title.files, *title.sheets]
        if isinstance(self.source, str | Path) and Path(self.source).is_file():
            return [Path(self.source)]
        try:
            return find_images(self.source)
        except InputError:  # a folder of something else
            assert isinstance(self.source, str | Path)
            folder = Path(self.source)
            # hidden ones may be ours
            seen = (path for path in folder.rglob("*") if path.is_file())
            return sorted(p for p in seen if "/." not in f"/{p.relative_to(folder).as_posix()}")
