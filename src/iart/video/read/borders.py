"""Black borders: what of the picture is never lit, over samples of the whole film."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.reformatter import ColorRange
from jaxtyping import Bool, Float

from iart.pictures.orientation import orientation_of
from iart.video.frame import Crop, VideoInfo
from iart.video.open import open_video
from iart.video.read.image_series import ImageReader, find_images
from iart.video.read.probe import opened
from iart.video.read.reader import VideoReader
from iart.video.read.timing import rewind

SAMPLES = 40
"""Pictures that are looked at, evenly spread."""

_BLACK = 0.08
"""Brightest that a line of a border gets (its brightest hundredth): code 33 of 16 to 235, which
leaves room for the noise of analogue sources."""

_LEAST_LEFT = 0.4
"""A picture of which less than this is left in height or width has no borders: it is dark."""


def find_borders(source: str | Path | Sequence[str | Path]) -> Crop | None:
    """The part of the picture that is lit in any sample; None if that is all of it.

    A border counts only where every sample has it: films of several shapes keep their largest, and
    dark scenes have no say.

    Args:
        source: as `iart.video.open.open_video` takes it.

    Raises:
        InputError: the source cannot be read.
    """
    with open_video(source, scenes=False, deinterlace="off") as reader:
        info = reader.info
        is_video = isinstance(reader, VideoReader)
        pictures = _of_video(info) if is_video else _of_images(source)
        lit = [_lit(picture) for picture in pictures if picture.shape == (info.height, info.width)]
    if not lit:
        return None
    top, bottom = _extent(np.any([rows for rows, _ in lit], axis=0))
    left, right = _extent(np.any([columns for _, columns in lit], axis=0))
    height, width = bottom - top, right - left
    if height < _LEAST_LEFT * info.height or width < _LEAST_LEFT * info.width:
        return None
    if (width, height) == (info.width, info.height):
        return None
    return Crop(width, height, left, top)


def _lit(luma: Float[np.ndarray, "h w"]) -> tuple[Bool[np.ndarray, " h"], Bool[np.ndarray, " w"]]:
    """Rows and columns of a picture that are more than black."""
    return _brightest(luma) > _BLACK, _brightest(luma.T) > _BLACK


def _brightest(lines: Float[np.ndarray, "n length"]) -> Float[np.ndarray, " n"]:
    """What one in a hundred points of each line exceeds: a speck of dirt lights no line."""
    return np.quantile(lines, 0.99, axis=1, method="higher")


def _extent(lit: Bool[np.ndarray, " n"]) -> tuple[int, int]:
    """[first, last + 1) of what is lit; all of it if nothing is."""
    places = np.flatnonzero(lit)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, len(lit))


def _of_images(source: str | Path | Sequence[str | Path]) -> Iterator[np.ndarray]:
    images = find_images(source)
    with ImageReader(images[:: -(-len(images) // SAMPLES)], scenes=False) as reader:
        yield from (frame.data.mean(0).numpy() for frame in reader)


def _of_video(info: VideoInfo) -> Iterator[np.ndarray]:
    """Pictures at key frames near evenly spread times; files that cannot seek give their start."""
    duration = info.duration_seconds or Fraction(0)
    with opened(info.path) as container:
        stream = container.streams[info.stream_index]
        assert isinstance(stream, av.VideoStream)
        seen: set[int | None] = set()
        for number in range(SAMPLES):
            time = info.start_seconds + duration * (2 * number + 1) / (2 * SAMPLES)
            try:
                if number == 0:
                    rewind(container)
                else:
                    container.seek(round(time / info.time_base), stream=stream)
                frame = next(container.decode(stream), None)
            except (FFmpegError, OSError):
                continue
            if frame is not None and frame.pts not in seen:
                seen.add(frame.pts)
                yield _luma(frame, info)


def _luma(frame: av.VideoFrame, info: VideoInfo) -> Float[np.ndarray, "h w"]:
    """Brightness alone: colour leaks over the edge of a border where it is subsampled."""
    level = ColorRange.JPEG if info.color.full_range else ColorRange.MPEG
    grey = frame.reformat(format="gray", src_color_range=level, dst_color_range=ColorRange.JPEG)
    image = torch.from_numpy(grey.to_ndarray().astype(np.float32) / 255)
    upright = orientation_of(frame).upright(image.expand(3, -1, -1))
    aperture = info.marks.aperture
    return (upright if aperture is None else aperture.cut(upright))[0].numpy()
