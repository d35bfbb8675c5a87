"""Frames of benchmarks on disk: 8-bit RGB, read whole or only measured, written in one piece.

Grey images become RGB, an alpha channel is left out, 16 bits are rounded to 8.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from iart.data.degrade import to_uint8
from iart.errors import DataError, InputError
from iart.video.images import ImageReader
from iart.weights.tensorfile import atomic_file

SHALLOW = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""What Pillow calls images of 8 bits and less."""


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding.

    Raises:
        DataError: the file is no image.
    """
    with _opened(path) as image:
        return image.height, image.width


def is_made_here(path: Path) -> bool:
    """Whether a low-resolution frame was made by `iart.data.prepare.degrade_folder`."""
    with _opened(path) as image:
        return "iart-degradation" in image.info


def read_picture(path: Path) -> UInt8[Tensor, "3 h w"]:
    """One frame.

    Raises:
        DataError: the file is no image, or damaged.
    """
    with _opened(path) as image:
        # Pillow reads 16-bit RGB as 8 bits and cuts the lower ones off; only this tells.
        if image.mode in SHALLOW and not any(
            "16" in str(tile[3]) for tile in getattr(image, "tile", ())
        ):
            pixels = np.array(image.convert("RGB"))
            return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    try:
        for frame in ImageReader([path], scenes=False):
            return to_uint8(frame.data)
    except InputError as error:
        raise DataError(str(error)) from error
    raise DataError(f"cannot read '{path}': it cannot be decoded; make or download it again")


def write_picture(path: Path, picture: UInt8[Tensor, "3 h w"]) -> None:
    """One frame as PNG, under its name only when complete.

    Raises:
        OutputError: the operating system refuses.
    """
    with atomic_file(path) as file:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file, "png")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and of odd metadata
            with Image.open(path) as image:
                yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(
            f"cannot read '{path}': {reason}; make or download the image again"
        ) from error
