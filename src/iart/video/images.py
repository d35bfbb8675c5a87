"""Series of images as a video: folders, globs and lists, in natural order."""

import glob
import math
import re
import stat
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from av.error import FFmpegError

from iart.errors import InputError, OptionsError
from iart.video.color import to_rgb
from iart.video.dvd import find_title
from iart.video.frame import Crop, Frame, Loss, VideoInfo
from iart.video.image_decode import common_size, decode_image, image_orientation, sizes_differ
from iart.video.probe import cannot_read, color_tags
from iart.video.reader import VideoReader, limited
from iart.video.scenes import CutDetector
from iart.video.tags import SRGB, resolve_color

IMAGE_ENDINGS = frozenset(
    f".{name}"
    for names in (
        ("png", "jpg", "jpeg", "jpe", "tif", "tiff", "bmp", "dib", "webp", "avif", "jxl", "qoi"),
        ("jp2", "j2k", "j2c", "dpx", "exr", "hdr", "tga", "sgi", "ras", "sun", "pcx"),
        ("ppm", "pgm", "pbm", "pnm", "pam", "xbm", "xpm", "xwd"),
    )
    for name in names
)
"""Files with other endings in a folder are not taken for images."""

_SIZE_OF_BT601 = (1, 576)  # images without a description use BT.601, whatever their size

_RATES = (Fraction(1, 1000), Fraction(1000))


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sorts numbers inside names by value: "frame2" before "frame10"."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The images of a folder, a glob or a list, in natural order.

    Raises:
        InputError: there is no such folder, or there are no images.
    """
    if isinstance(source, str | Path):
        folder = Path(source)
        is_folder = folder.is_dir()
        where = f"folder '{folder.name or folder}'" if is_folder else f"'{source}'"
        try:
            if is_folder:
                files = [entry for entry in folder.iterdir() if entry.is_file()]
            else:
                anchor = folder.anchor
                files = list(Path(anchor).glob(str(folder.relative_to(anchor))))
        except (OSError, ValueError) as error:  # not allowed; "**" inside a name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read {where}: {reason}") from error
        images = [f for f in files if _is_image(f) and not f.name.startswith(".")]
        if not images:
            others = sorted({f.suffix.lower() or "no ending" for f in files})
            found = f"files of kind {', '.join(others[:5])}" if others else "nothing"
            raise InputError(
                f"cannot read {where}: no images (found: {found}). Pass images such as PNG or JPEG"
            )
    else:
        images = [Path(entry) for entry in source]
        if not images:
            raise InputError("cannot read a list of images: it is empty")
        for image in images:
            if not image.is_file():
                raise cannot_read(image, "no such file. Check the path")
            if not _is_image(image):
                raise cannot_read(image, "it is no image. Pass images only, or one video")
    return sorted(images, key=lambda path: (natural_key(path), str(path)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS


class ImageReader:
    """Iterates over images as frames at a constant rate; like `VideoReader` otherwise.

    Images of 16 bits keep them; grey ones become RGB; an alpha channel is left out; orientation
    (EXIF) is applied. An image that cannot be decoded is recorded as a loss, and its time is left
    free.

    Attributes:
        info: of the first image; `path` is the folder.
        losses: met by the current or last iteration.
    """

    info: VideoInfo
    losses: list[Loss]

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        *,
        rate: Fraction = Fraction(25),
        scenes: bool = True,
        crop: Crop | None = None,
        start_seconds: Fraction | None = None,
        end_seconds: Fraction | None = None,
    ) -> None:
        """Find the images and compare their sizes.

        Args:
            source: a folder, a glob ("frames/*.png"), or a list of files; shown in natural order.
            rate: frames per second.
            scenes: mark the first frame of each new scene by `cut`.
            crop: the part of the picture to give, as shown; None for all of it.
            start_seconds: give the frames whose `time` lies in [start_seconds, end_seconds), the
                same as without these limits; None from the first one.
            end_seconds: None to the last one.

        Raises:
            InputError: there are no images, none can be decoded, or their sizes differ.
            OptionsError: a rate that video files cannot state, a crop outside the picture, or an
                end that is not after the start.
        """
        self._paths = find_images(source)
        self._rate, self._scenes, self._crop = _checked_rate(rate), scenes, crop
        self._start_seconds, self._end_seconds = start_seconds, end_seconds
        self.losses = []
        self._size = common_size(self._paths)
        self.info = limited(self._read_info(), crop, start_seconds, end_seconds)

    def __enter__(self) -> "ImageReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open between images."""

    def close(self) -> None:
        """Nothing is held open between images."""

    def __iter__(self) -> Iterator[Frame]:
        self.losses = []
        detector = CutDetector() if self._scenes else None
        first, last = self._range()
        for index, path in enumerate(self._paths[:last]):
            if index < first - 2:  # two images before the first one tell whether it is a cut
                continue
            try:
                decoded, codec = decode_image(path)
                orientation = image_orientation(path, decoded)
                size = orientation.size(decoded.width, decoded.height)
                color = resolve_color(
                    color_tags(decoded), decoded.format.name, _SIZE_OF_BT601, self._rate
                )
                image = to_rgb(
                    decoded, color, siting="centre" if codec in ("mjpeg", "webp") else "left"
                )
            except (FFmpegError, InputError, OSError) as error:
                if index >= first:
                    self._lose(index, path, error)
                continue
            if size != self._size:
                raise sizes_differ(self._paths[0], self._size, path, size)
            # images of one series may differ in format, which is no cut
            cut = detector is not None and detector.is_cut(decoded.reformat(format="gray"))
            if index >= first:
                image = orientation.upright(image)
                image = image if self._crop is None else self._crop.cut(image)
                yield Frame(image, index, 1 / self._rate, 1, cut)

    def _range(self) -> tuple[int, int]:
        """Indices [first, last) of the images that are asked for."""
        start, end = self._start_seconds, self._end_seconds
        first = 0 if start is None else max(0, math.ceil(start * self._rate))
        last = len(self._paths) if end is None else max(0, math.ceil(end * self._rate))
        return first, min(last, len(self._paths))

    def _lose(self, index: int, path: Path, error: Exception) -> None:
        reason = f"'{path.name}' cannot be decoded: {getattr(error, 'strerror', None) or error}"
        self.losses.append(Loss(index / self._rate, (index + 1) / self._rate, reason))

    def _read_info(self) -> VideoInfo:
        reason: Exception | None = None
        for path in self._paths:
            try:
                decoded, codec = decode_image(path)
            except (FFmpegError, InputError, OSError) as error:
                reason = reason or error
                continue
            width, height = self._size
            return VideoInfo(
                path=self._paths[0].parent,
                container="images",
                codec=codec,
                width=width,
                height=height,
                rate=self._rate,
                time_base=1 / self._rate,
                frame_count=len(self._paths),
                duration_seconds=len(self._paths) / self._rate,
                start_seconds=Fraction(0),
                pixel_format=decoded.format.name,
                bit_depth=max(component.bits for component in decoded.format.components),
                color=SRGB,
                rotation=image_orientation(path, decoded).rotation,
                variable_rate=False,
            )
        text = getattr(reason, "strerror", None) or reason
        raise cannot_read(self._paths[0], f"no image can be decoded ({text})")


def _checked_rate(rate: Fraction) -> Fraction:
    rate = Fraction(rate)
    if not _RATES[0] <= rate <= _RATES[1] or rate.denominator >= 2**31:
        raise OptionsError(f"rate must be {_RATES[0]} to {_RATES[1]} frames per second of images")
    return rate


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
        source: what exists under its name is taken as it is; otherwise * ? [ make it a glob.
            A DVD's folder or file stands for a title, see `iart.video.dvd`.
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

    def images(source: str | Path | Sequence[str | Path]) -> ImageReader:
        return ImageReader(
            source,
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
    if stat.S_ISREG(mode) and _is_image(path):
        return images([path])
    if stat.S_ISDIR(mode) or (not mode and glob.has_magic(str(path))):
        return images(source)
    return VideoReader(
        path,
        scenes=scenes,
        deinterlace=deinterlace,
        crop=crop,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
