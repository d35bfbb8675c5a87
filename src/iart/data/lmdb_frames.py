"""Clips in an LMDB as BasicSR lays it out.

The folder of the database also holds `meta_info.txt`, a line a frame: `000/00000000.png
(720,1280,3) 1` (file, height × width × channels, compression). The key is the name without its
ending, the value the bytes of the image file.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from iart.data.frames import ImageFrames
from iart.errors import DataError, MissingExtraError
from iart.video.images import natural_key

META = "meta_info.txt"
_LINE = re.compile(r"(?P<key>.+)\.\w+ \((?P<height>\d+), ?(?P<width>\d+), ?\d+\) \d+")


def open_lmdb(path: Path, **settings: Any) -> Any:
    """An `lmdb.Environment`.

    Raises:
        MissingExtraError: lmdb is not installed.
        DataError: it cannot be opened.
    """
    try:
        import lmdb
    except ImportError as error:
        raise MissingExtraError(
            "LMDB needs the library lmdb: pip install 'iart-vsr[train]'"
        ) from error
    try:
        return lmdb.open(str(path), **settings)
    except lmdb.Error as error:
        raise DataError(f"cannot open LMDB '{path}': {error}") from error


# A process may open a database once only; stores share it, and the last one closes it.
_open: WeakValueDictionary[Path, Any] = WeakValueDictionary()


def _shared(root: Path) -> Any:
    place = root.resolve()
    environment = _open.get(place)
    if environment is None:
        environment = _open[place] = open_lmdb(
            root, readonly=True, create=False, lock=False, readahead=False, meminit=False
        )
    return environment


class _Clip(NamedTuple):
    keys: list[str]
    size: tuple[int, int]


class LmdbStore:
    """One database, opened once for all its clips."""

    def __init__(self, root: Path) -> None:
        """Open it and read its list of frames.

        Raises:
            MissingExtraError: lmdb is not installed.
            DataError: it is missing or damaged.
        """
        self._root = root
        self._clips = _read_meta(root / META)
        self._environment = _shared(root)

    def names(self) -> list[str]:
        """See `Store`."""
        return list(self._clips)

    def clip(self, name: str, count: int | None = None) -> "LmdbFrames":
        """See `Store`.

        Raises:
            DataError: there is no such clip, or it has another number of frames.
        """
        where = f"'{self._root / META}'"
        if name not in self._clips:
            raise DataError(f"clip '{name}' is not in {where}")
        keys, size = self._clips[name]
        if count not in (None, len(keys)):
            raise DataError(
                f"clip '{name}' has {len(keys)} frames in {where}, but the list of clips says"
                f" {count}"
            )
        return LmdbFrames(self, name, keys, size)

    def entry(self, key: str) -> bytes:
        """The bytes of an image.

        Raises:
            DataError: there is no such key.
        """
        with self._environment.begin() as transaction:
            data = transaction.get(key.encode())
        if data is None:
            raise DataError(f"LMDB '{self._root}' has no key '{key}', which its {META} lists")
        return data

    def label(self, key: str) -> str:
        """An entry in messages."""
        return f"{self._root}/{key}"


def _read_meta(path: Path) -> dict[str, _Clip]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read '{path}', which lists an LMDB's frames: {reason}") from error
    clips: dict[str, _Clip] = {}
    for number, line in enumerate(filter(None, lines), 1):
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise DataError(
                f"'{path}', line {number}: expected `000/00000000.png (720,1280,3) 1`, got"
                f" '{line[:80]}'"
            )
        key, size = found["key"], (int(found["height"]), int(found["width"]))
        name = key.rpartition("/")[0] or "."
        clip = clips.setdefault(name, _Clip([], size))
        if clip.size != size:
            raise DataError(f"'{path}', line {number}: clip '{name}' has frames of different sizes")
        clip.keys.append(key)
    if not clips:
        raise DataError(f"'{path}' lists no frames")
    for clip in clips.values():
        clip.keys.sort(key=lambda key: natural_key(Path(key)))
    return clips


class LmdbFrames(ImageFrames):
    """One clip of a database."""

    def __init__(
        self, store: LmdbStore, name: str, keys: Sequence[str], size: tuple[int, int]
    ) -> None:
        """See `LmdbStore.clip`."""
        self.name = name
        self._store, self._keys, self._size = store, keys, size

    @property
    def size(self) -> tuple[int, int]:
        """As `meta_info.txt` says."""
        return self._size

    @property
    def _entries(self) -> Sequence[str]:
        return self._keys

    def _label(self, entry: str) -> str:
        return self._store.label(entry)

    def _source(self, entry: str) -> io.BytesIO:
        return io.BytesIO(self._store.entry(entry))
