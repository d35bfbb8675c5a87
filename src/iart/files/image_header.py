"""What an image file says before it is decoded."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from iart.pictures.orientation import EXIF_ORIENTATIONS, Orientation

_ORIENTATION = 0x0112
_OF_SEVERAL = ("PNG", "GIF", "WEBP", "AVIF", "TIFF")
_SHALLOW = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits and less."""


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image file before it is decoded.

    Attributes:
        form: name of its format.
        size: (width, height) of the upright picture.
        orientation: how the stored one becomes upright.
        pictures: how many there are to be shown.
        alpha: whether it may be transparent.
        deep: whether it may have more than 8 bits.
        profile: ICC profile; empty without one.
    """

    form: str
    size: tuple[int, int]
    orientation: Orientation
    pictures: int
    alpha: bool
    deep: bool
    profile: bytes = b""


def header_of(image: Image.Image) -> ImageHeader:
    """The header of an image that Pillow has opened and not loaded; raises what Pillow raises."""
    form, size = image.format or "", image.size
    if form == "PNG":
        # Pillow's own `getexif` of PNG decodes the picture to see whether EXIF follows it.
        if "exif" not in image.info and (late := _late_exif(image)):
            image.info["exif"] = late
        exif = Image.Image.getexif(image)
    else:
        exif = image.getexif()
    orientation = EXIF_ORIENTATIONS.get(exif.get(_ORIENTATION, 1), Orientation())
    if isinstance(tags := getattr(image, "tag_v2", None), Mapping):
        size = tags[256], tags[257]  # as stored; Pillow gives the upright size of TIFF
    # Pillow reads 16-bit RGB as 8 bits and cuts the lower ones off; only this tells.
    cut_off = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return ImageHeader(
        form=form,
        size=orientation.size(*size),
        orientation=orientation,
        pictures=_pictures(image),
        alpha=image.has_transparency_data,
        deep=cut_off or image.mode not in _SHALLOW,
        profile=image.info.get("icc_profile") or b"",
    )


def _late_exif(image: Any) -> bytes | None:
    """EXIF that follows the picture in a PNG file."""
    file, place = image.fp, image.fp.tell()
    file.seek(8)
    try:
        while len(start := file.read(8)) == 8:
            length, kind = int.from_bytes(start[:4]), start[4:]
            if kind == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)
    finally:
        file.seek(place)
    return None


def _pictures(image: Image.Image) -> int:
    """How many pictures are to be shown; previews and pictures for the other eye do not count."""
    size, count = image.size, getattr(image, "n_frames", 1)
    if count == 1 or image.format not in _OF_SEVERAL:
        return 1
    image.seek(1)
    alike = image.size == size
    image.seek(0)
    return count if alike else 1


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of Pillow's, about large images and odd metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
