"""One clip's frames at one size, at random access; here from a folder of images.

Databases are in `lmdb.py`, videos in `video.py`. A store holds clips by name;
`pairs.py` takes clips of one name from two stores.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from iart.errors import DataError
from iart.files.images import ImageFile, clip_folders, image_names, opened


class Frames(ABC):
    """Frames of one clip; what is not given beforehand is looked up when it is asked for.

    All members may raise `DataError`: the clip is missing or damaged. May be used by many threads.

    Attributes:
        name: of the clip, the same in both stores of a pair.
    """

    name: str

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of frames."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What the frames are called, to tell whether two clips pair; None if by order alone."""
        return None

    @abstractmethod
    def read(
        self, indices: Sequence[int], top: int, left: int, height: int, width: int
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """A part of some frames, RGB; indices count from 0."""

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """What is wrong with any frame, as far as headers tell; reads every header."""


@runtime_checkable
class Store(Protocol):
    """Clips by name."""

    def names(self) -> list[str]:
        """All clips, in natural order.

        Raises:
            DataError: there are none.
        """
        ...

    def clip(self, name: str, count: int | None = None) -> Frames:
        """A clip; whether it is there is seen when it is used.

        Args:
            name: of the clip.
            count: its frames, if a list states them.
        """
        ...


class ImageFrames(Frames):
    """Frames that are images, each decoded by itself."""

    @property
    @abstractmethod
    def _entries(self) -> Sequence[str]:
        """Of each frame: the name of a file or a key."""

    @abstractmethod
    def _label(self, entry: str) -> str:
        """An image in messages."""

    @abstractmethod
    def _source(self, entry: str) -> Path | io.BytesIO:
        """An image to open."""

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._entries)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the images, without folders and endings."""
        return tuple(PurePath(entry).stem for entry in self._entries)

    def read(
        self, indices: Sequence[int], top: int, left: int, height: int, width: int
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """See `Frames`."""
        result = np.empty((len(indices), height, width, 3), np.uint8)
        for place, index in zip(result, indices, strict=True):
            with self._opened(self._entries[index]) as image:
                place[:] = image.read((left, top, left + width, top + height))
        return result

    def problems(self) -> Iterator[str]:
        """See `Frames`."""
        for entry in self._entries:
            try:
                with self._opened(entry):
                    pass
            except DataError as error:
                yield str(error)

    @contextmanager
    def _opened(self, entry: str) -> Iterator[ImageFile]:
        label = self._label(entry)
        with opened(self._source(entry), label) as image:
            (height, width), expected = image.size, self.size
            if (height, width) != expected:
                raise DataError(
                    f"image '{label}' is {width}×{height}, but its clip is"
                    f" {expected[1]}×{expected[0]}"
                )
            yield image


class FolderFrames(ImageFrames):
    """The images of a folder, in natural order of their names."""

    def __init__(self, folder: Path, name: str, count: int | None = None) -> None:
        """See `Store.clip`."""
        self.name = name
        self._folder, self._stated = folder, count

    @property
    def count(self) -> int:
        """As stated, else of the images that are there; `size` compares them."""
        return len(self._entries) if self._stated is None else self._stated

    @cached_property
    def _size(self) -> tuple[int, int]:
        first = self._folder / self._entries[0]
        with opened(first, str(first)) as image:
            return image.size

    @property
    def size(self) -> tuple[int, int]:
        """Of the first image."""
        return self._size

    @cached_property
    def _files(self) -> tuple[str, ...]:
        files = tuple(image_names(self._folder))
        if not files:
            raise DataError(f"no images in '{self._folder}'")
        if self._stated not in (None, len(files)):
            raise DataError(
                f"'{self._folder}' holds {len(files)} images, but the list of clips says"
                f" {self._stated}"
            )
        return files

    @property
    def _entries(self) -> tuple[str, ...]:
        return self._files

    def _label(self, entry: str) -> str:
        return str(self._folder / entry)

    def _source(self, entry: str) -> Path:
        return self._folder / entry


class FolderStore:
    """Folders of images at any depth below one; a clip's name is its path below it."""

    def __init__(self, root: Path) -> None:
        """Look whether the folder is there.

        Raises:
            DataError: it is not.
        """
        if not root.is_dir():
            raise DataError(f"there is no folder '{root}'")
        self._root = root

    def names(self) -> list[str]:
        """See `Store`."""
        names = list(clip_folders(self._root))
        if not names:
            raise DataError(f"no clips in '{self._root}': expected folders of images below it")
        return names

    def clip(self, name: str, count: int | None = None) -> FolderFrames:
        """See `Store`."""
        return FolderFrames(self._root / name, name, count)
