"""One image file to a picture: decoding, the way it is up, and its size."""

import io
import warnings
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from PIL import Image

from iart.errors import InputError
from iart.video.orientation import Orientation, orientation_of
from iart.video.probe import cannot_read, codec_name

_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True, rotation=180),
    4: Orientation(mirror_y=True),
    5: Orientation(True),
    6: Orientation(True, mirror_x=True, rotation=90),
    7: Orientation(True, mirror_x=True, mirror_y=True),
    8: Orientation(True, mirror_y=True, rotation=270),
}


def decode_image(path: Path) -> tuple[av.VideoFrame, str]:
    """The picture in a file and the name of its codec."""
    try:
        # from memory: FFmpeg would take a % in a file's name for a pattern
        return _first_picture(io.BytesIO(path.read_bytes()), None, {})
    except FFmpegError:
        return _first_picture(str(path), "image2", {"pattern_type": "none"})


def _first_picture(
    source: io.BytesIO | str, form: str | None, options: dict[str, str]
) -> tuple[av.VideoFrame, str]:
    opened: InputContainer = av.open(source, mode="r", format=form, options=options)
    with opened as container:
        for stream in container.streams.video[:1]:
            for frame in container.decode(stream):
                return frame, codec_name(stream)
    raise InputError("it holds no picture")


def image_orientation(path: Path, decoded: av.VideoFrame) -> Orientation:
    """How the picture becomes upright: what its header says, else what FFmpeg found."""
    header = _header(path)
    return header[1] if header is not None else orientation_of(decoded)


def _header(path: Path) -> tuple[tuple[int, int], Orientation] | None:
    """Size as stored, and orientation, without decoding; None if Pillow cannot tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and of odd metadata
            with Image.open(path) as image:
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
                return image.size, _ORIENTATIONS.get(orientation, Orientation())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def common_size(paths: list[Path]) -> tuple[int, int]:
    """(width, height) as shown of all images; those that cannot be read are left to iteration."""
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        size = _shown_size(path)
        if size is None:
            continue
        if first is None:
            first = (path, size)
        elif size != first[1]:
            raise sizes_differ(*first, path, size)
    if first is None:
        raise cannot_read(paths[0], "no image can be decoded. Pass images such as PNG or JPEG")
    return first[1]


def _shown_size(path: Path) -> tuple[int, int] | None:
    header = _header(path)
    if header is not None:
        (width, height), orientation = header
        return orientation.size(width, height)
    try:
        decoded, _ = decode_image(path)
    except (FFmpegError, InputError, OSError):
        return None
    return orientation_of(decoded).size(decoded.width, decoded.height)


def sizes_differ(
    first: Path, first_size: tuple[int, int], other: Path, other_size: tuple[int, int]
) -> InputError:
    """The error of two images whose (width, height) differ."""
    sizes = "'{}' is {}x{}, '{}' is {}x{}".format(first.name, *first_size, other.name, *other_size)
    return InputError(
        f"cannot read '{first.parent.name}': images of different sizes ({sizes})."
        " Pass images of one size"
    )
