"""Clips in an LMDB as BasicSR lays it out: written from folders of images, and read.

The folder of the database also holds `meta_info.txt`, a line a frame: `000/00000000.png
(720,1280,3) 1` (file, height × width × channels, compression). The key is the name without its
ending, the value the bytes of the image file.

A database is written to a hidden folder beside the target, which gets its name when it is complete;
a run that was stopped goes on there, since what a transaction has written is whole.
"""

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from PIL import Image

from iart.data.stores.folder import ImageFrames
from iart.errors import DataError, MissingExtraError, OutputError
from iart.files.complete import writing
from iart.files.images import clip_folders, image_names, natural_key, opened
from iart.files.text import read_text
from iart.parallel.ordered import ordered

META = "meta_info.txt"
# Images of one transaction: what a stop may lose. The size that a database begins with.
_IMAGES, _FIRST_BYTES = 32, 2**30
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


class _ListedClip(NamedTuple):
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


def _read_meta(path: Path) -> dict[str, _ListedClip]:
    what = f"'{path}', which lists an LMDB's frames"
    lines = read_text(path, what, DataError).split("\n")
    clips: dict[str, _ListedClip] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise DataError(
                f"'{path}', line {number}: expected `000/00000000.png (720,1280,3) 1`, got"
                f" '{line[:80]}'"
            )
        key, size = found["key"], (int(found["height"]), int(found["width"]))
        name = key.rpartition("/")[0] or "."
        clip = clips.setdefault(name, _ListedClip([], size))
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


# ---- writing


class _StoredImage(NamedTuple):
    key: str
    data: bytes | None
    """None if it is in the database."""
    size: tuple[int, int]


def make_lmdb(
    source: Path, target: Path, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write every image below `source` into a database; PNG files go in as they are.

    A database that is complete and not older than any image is left as it is.

    Args:
        source: a folder of clips, at any depth.
        target: of the database; its name ends in ".lmdb" by custom.
        progress: called with (images done, images in all).

    Returns:
        How many images were written.

    Raises:
        DataError: no images; one cannot be read; two would get one key; `target` exists and holds
            something else.
        MissingExtraError: lmdb is not installed.
        OutputError: the operating system refuses.
    """
    images = _images(source)
    if target.exists():
        _check_complete(images, target)
        return 0
    part = target.absolute().with_name(f".{target.name}.part")
    with writing(target):
        part.mkdir(parents=True, exist_ok=True)
        data = part / "data.mdb"
        begun, size = (data.stat().st_mtime, data.stat().st_size) if data.exists() else (0.0, 0)
        with closing(open_lmdb(part, map_size=max(_FIRST_BYTES, 2 * size))) as database:
            written = _fill(database, images, begun, part / META, progress)
        part.rename(target)
    return written


def _images(source: Path) -> dict[str, Path]:
    """Files by their keys."""
    images: dict[str, Path] = {}
    for clip, folder in clip_folders(source).items():
        for name in image_names(folder):
            key = Path(clip, name).with_suffix("").as_posix()
            if key in images:
                raise DataError(f"'{folder / name}' and '{images[key]}' would get one key")
            images[key] = folder / name
    if not images:
        raise DataError(f"no images in '{source}': expected folders of images below it")
    return images


def _check_complete(images: Mapping[str, Path], target: Path) -> None:
    meta = target / META
    try:
        keys = {line.partition(".png (")[0] for line in meta.read_text("utf-8").splitlines()}
        newest = max(path.stat().st_mtime for path in images.values())
        complete = keys == images.keys() and newest <= meta.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        complete = False
    if not complete:
        raise DataError(
            f"'{target}' exists and does not hold these images as they are now; remove it or pass"
            " another name"
        )


def _fill(
    database: Any,
    images: Mapping[str, Path],
    begun: float,
    meta: Path,
    progress: Callable[[int, int], None] | None,
) -> int:
    def entry(image: tuple[str, Path]) -> _StoredImage:
        key, path = image
        if path.stat().st_mtime <= begun:
            with database.begin() as transaction:
                stored = transaction.get(key.encode())
            if stored is not None:
                with opened(io.BytesIO(stored), key) as picture:
                    return _StoredImage(key, None, picture.size)
        return _encoded(key, path)

    written = 0
    lines: list[str] = []
    with closing(ordered(entry, images.items(), workers=os.cpu_count() or 1)) as entries:
        while some := list(islice(entries, _IMAGES)):
            new = [(key, data) for key, data, _ in some if data is not None]
            _put(database, new)
            written += len(new)
            lines += [f"{key}.png ({size[0]},{size[1]},3) 1\n" for key, _, size in some]
            if progress:
                progress(len(lines), len(images))
    database.sync(True)
    meta.write_text("".join(lines), encoding="utf-8")
    return written


def _encoded(key: str, path: Path) -> _StoredImage:
    with opened(path, str(path)) as picture:
        rgb = picture.read()  # decoded even if it goes in as it is: damage is found here
        if picture.header.form == "PNG":
            data = path.read_bytes()
        else:
            file = io.BytesIO()
            Image.fromarray(rgb).save(file, format="png", compress_level=1)
            data = file.getvalue()
        return _StoredImage(key, data, picture.size)


def _put(database: Any, entries: Sequence[tuple[str, bytes]]) -> None:
    """One transaction; the database grows as it must."""
    import lmdb

    while True:
        try:
            with database.begin(write=True) as transaction:
                for key, data in entries:
                    transaction.put(key.encode(), data)
        except lmdb.MapFullError:
            database.set_mapsize(2 * database.info()["map_size"])
        except lmdb.Error as error:
            raise OutputError(f"cannot write LMDB '{database.path()}': {error}") from error
        else:
            return
