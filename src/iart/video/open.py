"""Opening a source: the one place that decides what kind of input a name stands for."""

import glob
import stat
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

from iart.errors import InputError
from iart.files.images import is_animation, is_image
from iart.files.names import numbered_name
from iart.video.dvd.disc import find_title
from iart.video.frame import Crop
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader


def open_video(
    source: str | Path | Sequence[str | Path],
    *,
    rate: Fraction = Fraction(25),
    scenes: bool = True,
    deinterlace: str = "auto",
    crop: Crop | None = None,
    start_seconds: Fraction | None = None,
    end_seconds: Fraction | None = None,
) -> VideoReader | ImageReader:
    """A reader for a video file, a folder, a glob or a list of images.

    Args:
        source: what exists under its name is taken as it is; otherwise * ? [ make it a glob,
            and %03d in the name of an image stands for a number.
            An animated PNG is a video, whatever its ending.
            A DVD's folder or file stands for a title, see `iart.video.dvd.disc`.
        rate: frames per second, for images; a video brings its own.
        scenes: mark the first frame of each new scene by `cut`.
        deinterlace: what to do about fields, see `VideoReader`; images are taken as they are.
        crop: the part of the picture to give, as shown; None for all of it.
        start_seconds: give the frames whose `time` lies in [start_seconds, end_seconds), the
            same as without these limits; None from the first one.
        end_seconds: None to the last one.

    Raises:
        InputError: see `VideoReader` and `ImageReader`.
        OptionsError: likewise.
    """
    images = partial(
        ImageReader,
        rate=rate,
        scenes=scenes,
        crop=crop,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
    if not isinstance(source, str | Path):
        return images(source)
    if not str(source):
        raise InputError("cannot read '': the name is empty. Pass a file or a folder of images")
    title = find_title(source)
    path = Path(source) if title is None else title.files[0]
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0  # nothing of that name
    if stat.S_ISREG(mode) and is_image(path) and not is_animation(path):
        return images([path])
    is_pattern = glob.has_magic(str(path)) or (is_image(path) and numbered_name(path))
    if stat.S_ISDIR(mode) or (not mode and is_pattern):
        return images(source)
    return VideoReader(
        path,
        scenes=scenes,
        deinterlace=deinterlace,
        crop=crop,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
