"""Pictures of a segment that is not finished, kept as the encoder got them.

An encoder that is stopped leaves nothing. Pictures that took long to compute are therefore kept
without loss until their segment is finished; a later run hands them to the encoder again, and where
a run stopped changes no byte.
"""

import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.plane import VideoPlane

from iart.files.complete import sync
from iart.pictures.color import color_for, tag_color
from iart.video.write.encoder import Encode

_FASTEST = 1  # of zlib's levels


@dataclass(frozen=True)
class KeptPictures:
    """One file for each picture, by its number in the film.

    Attributes:
        folder: of the segments; the pictures lie in a folder in it.
        encode: what they are encoded to.
    """

    folder: Path
    encode: Encode

    def numbers(self) -> list[int]:
        """Of all pictures that are kept, in no order."""
        return [int(path.stem) for path in self._place.glob("*.picture")]

    def has(self, number: int) -> bool:
        """Whether a picture is kept whole; it may have been written just before a power cut."""
        try:
            self.load(number)
        except (OSError, ValueError, zlib.error):
            return False
        return True

    def save(self, number: int, picture: av.VideoFrame) -> None:
        """Keep a picture; complete or not at all, and safely on the disk.

        Raises:
            OSError: the disk refuses.
        """
        self._place.mkdir(exist_ok=True)
        part = self.folder / f"{number:08d}.{os.getpid()}.part"
        same = self._blank()
        try:
            for target, source in zip(same.planes, picture.planes, strict=True):
                width = min(target.line_size, source.line_size)
                _rows(target)[:, :width] = _rows(source)[: target.height, :width]
            part.write_bytes(zlib.compress(b"".join(map(bytes, same.planes)), _FASTEST))
            sync(part)
            part.replace(self._path(number))
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def load(self, number: int) -> av.VideoFrame:
        """A picture as it was when it was saved.

        Raises:
            OSError: it is not there.
            ValueError: it has another size.
            zlib.error: it is damaged.
        """
        content = zlib.decompress(self._path(number).read_bytes())
        picture = self._blank()
        if sum(plane.buffer_size for plane in picture.planes) != len(content):
            raise ValueError("a picture of another size")
        start = 0
        for plane in picture.planes:
            plane.update(content[start : start + plane.buffer_size])
            start += plane.buffer_size
        pixel_format = self.encode.encoding.pixel_format
        tag_color(picture, color_for(pixel_format, self.encode.source_color))
        return picture

    def remove(self, numbers: range) -> None:
        """Remove pictures that are no longer needed; never fails."""
        for number in numbers:
            with suppress(OSError):
                self._path(number).unlink()

    @property
    def _place(self) -> Path:
        return self.folder / "pictures"

    def _path(self, number: int) -> Path:
        return self._place / f"{number:08d}.picture"

    def _blank(self) -> av.VideoFrame:
        shape = self.encode.shape
        return av.VideoFrame(shape.width, shape.height, self.encode.encoding.pixel_format)


def _rows(plane: VideoPlane) -> np.ndarray:
    """The plane's own memory, padding at line ends included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
