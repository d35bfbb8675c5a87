"""Series of images as a video: folders, globs and lists, in natural order."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch
from av.error import FFmpegError

from iart.errors import InputError, OptionsError
from iart.files.images import ImageHeader, decode_image, image_header, is_image, natural_key
from iart.files.names import numbered_name
from iart.pictures.color_tags import SRGB
from iart.video.frame import Crop, Frame, Loss, VideoInfo
from iart.video.read.probe import cannot_read
from iart.video.read.reader import limited
from iart.video.read.scenes import CutDetector

_PROFILES_DIFFER = "colour: ICC profiles of the images differ, and are lost; numbers count as sRGB"
_RATES = (Fraction(1, 1000), Fraction(1000))


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The images of a folder, a glob, a numbered name ("f%03d.png") or a list, in natural order.

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
                files = _matches(folder)
        except (OSError, ValueError) as error:  # not allowed; "**" inside a name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read {where}: {reason}") from error
        images = [f for f in files if is_image(f) and not f.name.startswith(".")]
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
            if not is_image(image):
                raise cannot_read(image, "it is no image. Pass images only, or one video")
    return sorted(images, key=lambda path: (natural_key(path), str(path)))


def _matches(pattern: Path) -> list[Path]:
    """Files of a glob, or of a name with a number in it as FFmpeg writes it: "f%03d.png"."""
    anchor, names = pattern.anchor, numbered_name(pattern)
    if names is None or pattern.exists():
        return list(Path(anchor).glob(str(pattern.relative_to(anchor))))
    return [file for file in pattern.parent.iterdir() if names.pattern.fullmatch(file.name)]


class ImageReader(AbstractContextManager["ImageReader"]):
    """Iterates over images as frames at a constant rate; like `VideoReader` otherwise.

    Images of 16 bits keep them; grey ones become RGB; orientation (EXIF) is applied. An image that
    cannot be decoded is recorded as a loss, and its time is left free.

    Attributes:
        info: of the first image; `path` is the folder.
        losses: met by the current or last iteration.
        device: to which frames are brought; may be set before an iteration.
    """

    device = torch.device("cpu")
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
        self._headers = _read_headers(self._paths)
        self._size = self._headers[0].size
        self.info = limited(self._read_info(), crop, start_seconds, end_seconds)

    def __exit__(self, *_: object) -> None:
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
                decoded = decode_image(path)
                image, alpha = decoded.rgb(), decoded.alpha() if self.info.alpha else None
            except (FFmpegError, InputError, OSError) as error:
                if index >= first:
                    reason = getattr(error, "strerror", None) or error
                    reason = f"'{path.name}' cannot be decoded: {reason}"
                    self.losses.append(Loss(index / self._rate, (index + 1) / self._rate, reason))
                continue
            if decoded.size != self._size:
                raise _sizes_differ(self._paths[0], self._size, path, decoded.size)
            # images of one series may differ in format, which is no cut
            cut = detector is not None and detector.is_cut(decoded.stored.reformat(format="gray"))
            if index >= first:
                if self._crop is not None:
                    image = self._crop.cut(image)
                    alpha = None if alpha is None else self._crop.cut(alpha)
                yield Frame(image.to(self.device), index, 1 / self._rate, 1, cut, alpha)

    def _range(self) -> tuple[int, int]:
        """Indices [first, last) of the images that are asked for."""
        start, end = self._start_seconds, self._end_seconds
        first = 0 if start is None else max(0, math.ceil(start * self._rate))
        last = len(self._paths) if end is None else max(0, math.ceil(end * self._rate))
        return first, min(last, len(self._paths))

    def _read_info(self) -> VideoInfo:
        reason: Exception | None = None
        for path in self._paths:
            try:
                decoded = decode_image(path)
            except (FFmpegError, InputError, OSError) as error:
                reason = reason or error
                continue
            width, height = self._size
            profiles = {header.profile for header in self._headers}
            notes = (_PROFILES_DIFFER,) if len(profiles) > 1 else ()
            return VideoInfo(
                path=self._paths[0].parent,
                container="images",
                codec=decoded.codec,
                width=width,
                height=height,
                rate=self._rate,
                time_base=1 / self._rate,
                frame_count=len(self._paths),
                duration_seconds=len(self._paths) / self._rate,
                start_seconds=Fraction(0),
                pixel_format=decoded.stored.format.name,
                bit_depth=max(component.bits for component in decoded.stored.format.components),
                color=SRGB,
                rotation=decoded.orientation.rotation,
                variable_rate=False,
                alpha=any(header.alpha for header in self._headers),
                profile=next(iter(profiles)) if len(profiles) == 1 else b"",
                notes=(*_missing(self._paths), *notes),
            )
        text = getattr(reason, "strerror", None) or reason
        raise cannot_read(self._paths[0], f"no image can be decoded ({text})")


def _checked_rate(rate: Fraction) -> Fraction:
    rate = Fraction(rate)
    if not _RATES[0] <= rate <= _RATES[1] or rate.denominator >= 2**31:
        raise OptionsError(f"rate must be {_RATES[0]} to {_RATES[1]} frames per second of images")
    return rate


def _read_headers(paths: list[Path]) -> list[ImageHeader]:
    """What is known of the images; of those that cannot be read nothing: iteration meets them.

    Raises:
        InputError: sizes differ, or none can be read.
    """
    read = [(path, header) for path in paths if (header := image_header(path)) is not None]
    if not read:
        raise cannot_read(paths[0], "no image can be decoded. Pass images such as PNG or JPEG")
    first = (read[0][0], read[0][1].size)
    for path, header in read:
        if header.size != first[1]:
            raise _sizes_differ(*first, path, header.size)
    return [header for _, header in read]


def _missing(paths: list[Path]) -> tuple[str, ...]:
    """A note on numbers that are left out in names which otherwise count by one."""
    numbered = [re.fullmatch(r"(.*?)(\d+)\D*", path.name) for path in paths]
    steps = [
        int(after[2]) - int(before[2])
        for before, after in pairwise(numbered)
        if before and after and before[1] == after[1]
    ]
    gaps = [step - 1 for step in steps if step > 1]
    if not gaps or 2 * len(gaps) > len(steps):
        return ()
    return (
        f"images: by their numbers {sum(gaps)} of {sum(gaps) + len(paths)} are missing; the others"
        " follow each other without a gap in time",
    )


def _sizes_differ(
    first: Path, first_size: tuple[int, int], other: Path, other_size: tuple[int, int]
) -> InputError:
    """The error of two images whose (width, height) differ."""
    sizes = "'{}' is {}x{}, '{}' is {}x{}".format(first.name, *first_size, other.name, *other_size)
    return InputError(
        f"cannot read '{first.parent.name}': images of different sizes ({sizes})."
        " Pass images of one size"
    )
