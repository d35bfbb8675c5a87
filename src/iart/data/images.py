"""Image files of clips: finding them, their sizes, their pixels; errors name the file.

Convention: pictures are uint8, RGB, `h w 3`; sizes are (height, width). Names follow in natural
order, 2.png before 10.png; hidden files are left out.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from iart.errors import DataError
from iart.video.images import natural_key

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# Pillow's modes of more than 8 bits, which its conversion to RGB would cut off.
_DEEP = ("I", "F")


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_image(e.name) and e.is_file()]
    except OSError as error:
        raise DataError(f"cannot read folder '{folder}': {error.strerror or error}") from error
    return sorted(names, key=lambda name: natural_key(Path(name)))


def clip_folders(root: Path) -> dict[str, Path]:
    """Every folder with images at or below `root` by its path below `root` ("." for itself).

    Linked folders are followed. Empty if there is none.
    """
    seen: set[str] = set()
    found: dict[str, Path] = {}
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        if any(map(_is_image, files)):
            found[Path(folder).relative_to(root).as_posix()] = Path(folder)
    return dict(sorted(found.items(), key=lambda item: natural_key(Path(item[0]))))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGES  # noqa: PTH122


@contextmanager
def opened(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """An image whose header was read; pixels are decoded when they are asked for.

    Raises:
        DataError: it is missing, damaged, or of more than 8 bits without colour.
    """
    try:
        with Image.open(source) as image:
            if image.mode.startswith(_DEEP):
                raise DataError(f"image '{name}' has more than 8 bits (mode {image.mode})")
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"cannot read image '{name}': {reason}") from error


def pixels(
    image: Image.Image, box: tuple[int, int, int, int] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """An opened image, or its part (left, top, right, bottom), as RGB."""
    part = image if box is None else image.crop(box)
    return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
