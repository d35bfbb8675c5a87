"""Image files: found by their endings, read at full depth or as 8 bits, and written.

Names follow in natural order, 2.png before 10.png; hidden files are left out.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from iart.errors import DataError, InputError
from iart.files.complete import complete_file
from iart.pictures.color import alpha_of, to_rgb
from iart.pictures.color_tags import ColorTags, resolve_color
from iart.pictures.degrade import to_uint8
from iart.pictures.orientation import EXIF_ORIENTATIONS, Orientation, orientation_of

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


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


IMAGE_ENDINGS = _endings(
    "png jpg jpeg jpe tif tiff bmp dib webp avif jxl qoi jp2 j2k j2c dpx exr hdr tga sgi ras sun"
    " pcx ppm pgm pbm pnm pam xbm xpm xwd"
)
"""Files with other endings in a folder are not taken for images."""
VIDEO_ENDINGS = _endings(
    "mp4 mkv mov webm avi mpg mpeg m2v m1v mpv vob ts m2ts mts m4v wmv asf flv f4v ogv ogm 3gp 3g2"
    " mxf dv rm rmvb divx y4m nut ivf 264 h264 265 hevc obu"
)
"""Files with other endings in a folder are not taken for videos."""

_SIZE_OF_BT601 = (1, 576)  # images without a description use BT.601, whatever their size
_CENTRED_CHROMA_CODECS = ("mjpeg", "webp")
_READ_AS_VIDEO = ("PNG", "GIF")
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def natural_key(path: PurePath | str) -> list[tuple[int, int | str]]:
    """Sorts numbers inside names by value: "frame2" before "frame10"."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def is_image(path: PurePath | str) -> bool:
    """Whether a file of this name is taken for an image."""
    return PurePath(path).suffix.lower() in IMAGE_ENDINGS


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_shown_image(e.name) and e.is_file()]
    except OSError as error:
        raise DataError(f"cannot read folder '{folder}': {error.strerror or error}") from error
    return sorted(names, key=natural_key)


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
        if any(map(_is_shown_image, files)):
            found[Path(folder).relative_to(root).as_posix()] = Path(folder)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def video_files(root: Path) -> list[Path]:
    """Videos at any depth below a folder."""
    found = (Path(folder) / file for folder, _, files in os.walk(root) for file in files)
    videos = [p for p in found if p.suffix.lower() in VIDEO_ENDINGS and not p.name.startswith(".")]
    return sorted(videos, key=natural_key)


def _is_shown_image(name: str) -> bool:
    return not name.startswith(".") and is_image(name)


@dataclass(frozen=True)
class ImageFile:
    """An image file that is open: pixels are decoded when they are asked for.

    Attributes:
        name: of the image in messages.
        header: what it says before that.
    """

    name: str
    header: ImageHeader
    _source: Path | io.BytesIO
    _image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        width, height = self.header.size
        return height, width

    @property
    def texts(self) -> Mapping[str | tuple[int, int], object]:
        """Texts and other data that the file carries, by name."""
        return self._image.info

    def read(self, box: tuple[int, int, int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """The upright picture, or its part (left, top, right, bottom), as RGB of 8 bits.

        Grey becomes RGB, alpha is left out, and more than 8 bits are rounded.

        Raises:
            DataError: it is damaged.
        """
        try:
            if self.header.deep:
                left, top, right, bottom = box or (0, 0, *self.header.size)
                rgb = to_uint8(decode_image(self._source).rgb())
                return rgb[:, top:bottom, left:right].permute(1, 2, 0).contiguous().numpy()
            image = self._image
            if self.header.orientation != Orientation():
                image = ImageOps.exif_transpose(image)
            image = image if box is None else image.crop(box)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        except (FFmpegError, InputError, *_UNREADABLE) as error:
            raise _cannot_read(self.name, error) from error


@contextmanager
def opened(source: Path | io.BytesIO, name: str) -> Iterator[ImageFile]:
    """An image whose header was read.

    Args:
        source: the file.
        name: of the image in messages.

    Raises:
        DataError: it is missing, damaged, or holds several pictures.
    """
    try:
        image = Image.open(source)
    except _UNREADABLE as error:
        raise _cannot_read(name, error) from error
    with image:
        try:
            header = header_of(image)
        except _UNREADABLE as error:
            raise _cannot_read(name, error) from error
        if header.pictures > 1:
            raise DataError(_several(name, header))
        yield ImageFile(name, header, source, image)


def _cannot_read(name: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return DataError(f"cannot read image '{name}': {reason}; make or download it again")


def _several(name: str, header: ImageHeader) -> str:
    return (
        f"cannot read '{name}': it holds {header.pictures} pictures ({header.form}, animated or of"
        " several pages). Convert it to a video, or to an image for each"
    )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the header.

    Raises:
        DataError: the file is no image.
    """
    with quiet(), opened(path, str(path)) as image:
        return image.size


def read_image(path: Path) -> UInt8[Tensor, "3 h w"]:
    """An image as RGB of 8 bits, see `ImageFile.read`.

    Raises:
        DataError: the file is no image, or damaged.
    """
    with quiet(), opened(path, str(path)) as image:
        return torch.from_numpy(image.read().copy()).permute(2, 0, 1).contiguous()


def write_image(
    path: Path, picture: UInt8[Tensor, "3 h w"], texts: Mapping[str, str] | None = None
) -> None:
    """Write a PNG, under its name only when complete; missing folders are made.

    Args:
        path: of the file.
        picture: RGB.
        texts: that the file carries, by name.

    Raises:
        OutputError: the operating system refuses.
    """
    note = PngInfo()
    for name, text in (texts or {}).items():
        note.add_text(name, text)
    with complete_file(path, parents=True) as file:
        array = picture.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(file, "png", pnginfo=note)


@dataclass(frozen=True)
class DecodedImage:
    """An image as FFmpeg decodes it, at its full depth.

    Attributes:
        stored: the picture as it is stored.
        codec: FFmpeg's name of its format ("png").
        orientation: how it becomes upright.
    """

    stored: av.VideoFrame
    codec: str
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return self.orientation.size(self.stored.width, self.stored.height)

    def alpha(self) -> Float[Tensor, "1 h w"] | None:
        """Where the upright picture is opaque; None if it says nothing of that."""
        alpha = alpha_of(self.stored)
        return None if alpha is None else self.orientation.upright(alpha)

    def rgb(self) -> Float[Tensor, "3 h w"]:
        """The upright picture in [0, 1]; grey becomes RGB, alpha is left out.

        Raises:
            InputError: the pixel format cannot be converted.
        """
        tags, name = ColorTags.of(self.stored), self.stored.format.name
        color = resolve_color(tags, name, _SIZE_OF_BT601, Fraction(25))
        siting = "centre" if self.codec in _CENTRED_CHROMA_CODECS else "left"
        return self.orientation.upright(to_rgb(self.stored, color, siting=siting))


def decode_image(source: Path | io.BytesIO) -> DecodedImage:
    """The picture in a file; its header says how it becomes upright, else what FFmpeg found.

    Raises:
        InputError: it holds no picture.
        FFmpegError, OSError: it cannot be read.
    """
    # From memory: FFmpeg would take a % in a file's name for a pattern.
    data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    try:
        stored, codec = _first_picture(io.BytesIO(data), None, {})
    except FFmpegError:
        if not isinstance(source, Path):
            raise
        stored, codec = _first_picture(str(source), "image2", {"pattern_type": "none"})
    header = _header(io.BytesIO(data))
    return DecodedImage(
        stored, codec, orientation_of(stored) if header is None else header.orientation
    )


def image_header(path: Path) -> ImageHeader | None:
    """What is known of an image without decoding it, if possible; None if it is unreadable.

    Raises:
        InputError: there are several pictures.
    """
    header = _header(path)
    if header is not None:
        if header.pictures > 1:
            raise InputError(_several(path.name, header))
        return header
    try:
        image = decode_image(path)
    except (FFmpegError, InputError, OSError):
        return None
    alpha = image.alpha() is not None
    return ImageHeader(image.codec, image.size, image.orientation, 1, alpha, deep=True)


def is_animation(path: Path) -> bool:
    """Whether an image file holds several pictures with times that FFmpeg reads as a video."""
    header = _header(path)
    return header is not None and header.pictures > 1 and header.form in _READ_AS_VIDEO


def _first_picture(
    source: io.BytesIO | str, form: str | None, options: dict[str, str]
) -> tuple[av.VideoFrame, str]:
    container: InputContainer = av.open(source, mode="r", format=form, options=options)
    with container:
        for stream in container.streams.video[:1]:
            for frame in container.decode(stream):
                return frame, stream.codec_context.codec.canonical_name
    raise InputError("it holds no picture")


def _header(source: Path | io.BytesIO) -> ImageHeader | None:
    """None if Pillow cannot tell."""
    try:
        with quiet(), Image.open(source) as image:
            return header_of(image)
    except _UNREADABLE:
        return None
