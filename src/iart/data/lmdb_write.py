"""Folders of images into one LMDB in BasicSR's layout, see `lmdb_frames.py`.

Work goes to a hidden folder beside the target, which gets its name when it is complete; a run that
was stopped goes on there, since what a transaction has written is whole.
"""

import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from iart.data.images import clip_folders, image_names, opened, pixels
from iart.data.lmdb_frames import META, open_lmdb
from iart.data.prepare import Progress
from iart.data.threads import ordered
from iart.errors import DataError, OutputError
from iart.video.pending import output_error

# Images of one transaction: what a stop may lose.
_IMAGES = 32
_FIRST_BYTES = 2**30


class _Image(NamedTuple):
    key: str
    path: Path


class _Entry(NamedTuple):
    key: str
    data: bytes | None
    """None if it is in the database."""
    height: int
    width: int

    def line(self) -> str:
        """Of `meta_info.txt`."""
        return f"{self.key}.png ({self.height},{self.width},3) 1\n"


def make_lmdb(source: Path, target: Path, *, progress: Progress | None = None) -> int:
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
    data = part / "data.mdb"
    try:
        part.mkdir(parents=True, exist_ok=True)
        begun = data.stat().st_mtime if data.exists() else 0.0
        database = open_lmdb(part, map_size=max(_FIRST_BYTES, 2 * _bytes(data)))
        try:
            written = _fill(database, images, begun, part / META, progress)
        finally:
            database.close()
        part.rename(target)
    except OSError as error:
        raise output_error(target, error) from error
    return written


def _images(source: Path) -> list[_Image]:
    images: dict[str, _Image] = {}
    for clip, folder in clip_folders(source).items():
        for name in image_names(folder):
            key = Path(clip, name).with_suffix("").as_posix()
            if key in images:
                raise DataError(f"'{folder / name}' and '{images[key].path}' would get one key")
            images[key] = _Image(key, folder / name)
    if not images:
        raise DataError(f"no images in '{source}': expected folders of images below it")
    return list(images.values())


def _check_complete(images: list[_Image], target: Path) -> None:
    meta = target / META
    try:
        keys = {line.partition(".png (")[0] for line in meta.read_text("utf-8").splitlines()}
        newest = max(image.path.stat().st_mtime for image in images)
        complete = keys == {image.key for image in images} and newest <= meta.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        complete = False
    if not complete:
        raise DataError(
            f"'{target}' exists and does not hold these images as they are now; remove it or pass"
            " another name"
        )


def _bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _fill(
    database: Any, images: list[_Image], begun: float, meta: Path, progress: Progress | None
) -> int:
    def entry(image: _Image) -> _Entry:
        if image.path.stat().st_mtime <= begun:
            with database.begin() as transaction:
                stored = transaction.get(image.key.encode())
            if stored is not None:
                with opened(io.BytesIO(stored), image.key) as picture:
                    return _Entry(image.key, None, picture.height, picture.width)
        return _encoded(image)

    written = done = 0
    lines: list[str] = []
    entries = ordered(entry, images, workers=os.cpu_count() or 1)
    try:
        for chunk in _chunks(entries):
            new = [e for e in chunk if e.data is not None]
            _put(database, new)
            written += len(new)
            done += len(chunk)
            lines += [e.line() for e in chunk]
            if progress:
                progress(done, len(images))
    finally:
        entries.close()
    database.sync(True)
    meta.write_text("".join(lines), encoding="utf-8")
    return written


def _chunks(entries: Iterator[_Entry]) -> Iterator[list[_Entry]]:
    while chunk := list(islice(entries, _IMAGES)):
        yield chunk


def _encoded(image: _Image) -> _Entry:
    with opened(image.path, str(image.path)) as picture:
        rgb = pixels(picture)  # decoded even if it goes in as it is: damage is found here
        if picture.format == "PNG":
            data = image.path.read_bytes()
        else:
            file = io.BytesIO()
            Image.fromarray(rgb).save(file, format="png", compress_level=1)
            data = file.getvalue()
        return _Entry(image.key, data, picture.height, picture.width)


def _put(database: Any, entries: list[_Entry]) -> None:
    """One transaction; the database grows as it must."""
    import lmdb

    while True:
        try:
            with database.begin(write=True) as transaction:
                for entry in entries:
                    transaction.put(entry.key.encode(), entry.data)
        except lmdb.MapFullError:
            database.set_mapsize(2 * database.info()["map_size"])
        except lmdb.Error as error:
            raise OutputError(f"cannot write LMDB '{database.path()}': {error}") from error
        else:
            return
