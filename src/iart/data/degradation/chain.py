"""The chain itself: moments of ground truth to frames of low resolution.

Truth of a frame is one moment: of pictures made of two fields the one of the field that is kept,
of film the one of the film frame that was put together again.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.clips import there_and_back
from iart.data.degradation.analogue import add_grain, play_tape, sharpen
from iart.data.degradation.codec import (
    Packed,
    code,
    pack,
    packed_planes,
    planes,
    to_ycc,
    unpack,
)
from iart.data.degradation.parameters import FILM, GRID, Degradation, Reduction, Scan
from iart.data.pairs import SCALE
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.resize import bicubic, resampling
from iart.video.fields.bwdif import Bwdif
from iart.video.fields.telecine import Decimator, Film
from iart.video.fields.treat import Treatment, treated
from iart.video.read.decode import Picture

_WIDTH_STEP = 0.05
# A film frame other than the one that the cadence says must be so much more like the picture.
_CLEARLY = 0.6


def degrade(
    clip: Float[Tensor, "m 3 h w"], how: Degradation, frames: int
) -> tuple[UInt8[Tensor, "n 3 h//4 w//4"], tuple[int, ...]]:
    """Frames of low resolution, and the moment that each of them shows.

    Args:
        clip: `how.moments(frames)` moments in [0, 1]; sides are multiples of 64 (bicubic: of 4).
        how: all parameters; equal ones give equal frames.
        frames: how many are wanted.

    Raises:
        DataError: FFmpeg refuses to code the pictures.
    """
    if how.kind == "bicubic":
        return degrade_bi(to_uint8(clip[:frames])), tuple(range(frames))
    rng = np.random.default_rng(how.noise_seed)
    first = how.codings[0].size if how.codings else 1.0
    height, width = clip.shape[-2] // SCALE, clip.shape[-1] // SCALE
    luma, chroma = to_ycc(reduce(clip, how.reduction, _sides(height, width, first)))
    if how.sharpening:
        luma = sharpen(luma, how.sharpening)
    if how.grain:
        luma = add_grain(luma, how.grain, rng)
    if how.tape:
        luma, chroma = play_tape(luma, chroma, how.tape, rng)
    fields = how.fields(frames)
    pictures = pack(luma, chroma, fields)
    for coding in how.codings:
        pictures = _resized(pictures, _sides(height, width, coding.size))
        pictures = code(pictures, coding, how.scan, rng)
    pictures = _resized(pictures, (height, width))
    if how.scan.kind == "progressive":
        kept = slice(how.lead, how.lead + frames)
        moments = [top for top, _ in fields[kept]]
        pictures = pictures[kept]
    elif how.scan.kind == "interlaced":
        pictures, moments = _deinterlaced(pictures, how, frames)
    else:
        pictures, moments = _film(pictures, luma, how, frames)
    return to_uint8(unpack(pictures)), tuple(moments)


def reduce(
    clip: Float[Tensor, "*b h w"], how: Reduction, sides: tuple[int, int]
) -> Float[Tensor, "*b h2 w2"]:
    """To `sides` by the kernel of a scaler."""
    width_x, width_y = (round(w / _WIDTH_STEP) * _WIDTH_STEP for w in (how.width_x, how.width_y))
    rows = resampling(clip.shape[-2], sides[0], how.kernel, width_y)
    columns = resampling(clip.shape[-1], sides[1], how.kernel, width_x)
    return columns.columns(rows.rows(clip))


def _sides(height: int, width: int, factor: float) -> tuple[int, int]:
    """Of a coded picture: whole macroblocks."""
    high, wide = (max(round(side * factor / GRID), 1) * GRID for side in (height, width))
    return high, wide


def _resized(pictures: Packed, sides: tuple[int, int]) -> Packed:
    height, width = pictures.shape[1] * 2 // 3, pictures.shape[2]
    if (height, width) == sides:
        return pictures
    luma, chroma = planes(pictures)
    return packed_planes(bicubic(luma, *sides), bicubic(chroma, sides[0] // 2, sides[1] // 2))


def _treated(pictures: Packed, treatment: Treatment) -> Packed:
    """As the pictures of a file are made frames, see `iart.video.fields`."""
    images = (av.VideoFrame.from_ndarray(picture, "yuv420p") for picture in pictures)
    given = treated((Picture(image, i, 1) for i, image in enumerate(images)), treatment)
    return np.stack([picture.image.to_ndarray() for picture in given])


def _deinterlaced(pictures: Packed, how: Degradation, frames: int) -> tuple[Packed, list[int]]:
    scan = how.scan
    given = _treated(pictures, Bwdif(scan.top_first, 1, per_field=scan.per_field))
    # moments are numbered as fields are: the first of picture i is 2·i
    step = 1 if scan.per_field else 2
    kept = given[how.lead : how.lead + frames]
    return kept, [how.before + step * i for i in range(frames)]


def _film(
    pictures: Packed, luma: Float[Tensor, "m h w"], how: Degradation, frames: int
) -> tuple[Packed, list[int]]:
    treatment = Film(how.scan.top_first, Decimator(Fraction(1), 0, always=True))
    first = how.lead + FILM  # a cycle to run up
    kept = _treated(pictures, treatment)[first : first + frames]
    luma = bicubic(luma, kept.shape[1] * 2 // 3, kept.shape[2]) * 219 + 16
    moments = []
    for frame, usual in zip(planes(kept)[0], range(how.before, how.before + frames), strict=True):
        # Where other fields were put together than should be, truth is what is most like it.
        near = range(usual - 2, min(usual + 3, len(luma)))
        distances = {moment: float((frame - luma[moment]).abs().mean()) for moment in near}
        nearest = min(near, key=distances.__getitem__)
        clear = distances[nearest] < _CLEARLY * distances[usual]
        moments.append(nearest if clear else usual)
    return kept, moments


def degrade_frames(
    read: Callable[[Sequence[int]], Float[Tensor, "m 3 h w"]],
    chosen: range,
    count: int,
    how: Degradation,
) -> UInt8[Tensor, "n 3 h w"]:
    """Successive frames of a whole clip, each of which has the moment of its ground truth.

    Fields are those of successive frames, and every one becomes a frame again. Frames that the
    chain needs before and after are those of the clip; at its ends time runs back.

    Args:
        read: the frames of given numbers, of a clip whose sides are multiples of 4.
        chosen: numbers of the frames.
        count: frames of the clip.
        how: the clip's degradation.

    Raises:
        DataError: FFmpeg refuses to code the pictures.
    """
    scan = how.scan.model_copy(update={"per_field": True})
    how = how.model_copy(update={"scan": scan, "noise_seed": how.noise_seed + chosen.start})
    while True:
        first = chosen.start - how.before
        clip = read(there_and_back(range(first, first + how.moments(len(chosen))), count))
        height, width = (side // SCALE for side in clip.shape[-2:])
        if how.kind != "bicubic":
            # encoders repeat the last rows and columns up to whole macroblocks
            below, right = (-side % GRID * SCALE for side in (height, width))
            clip = F.pad(clip, (0, right, 0, below), mode="replicate")
        low, moments = degrade(clip, how, len(chosen))
        if moments == tuple(range(how.before, how.before + len(chosen))):
            return low[..., :height, :width].contiguous()
        # film that could not be put together again would not fit its ground truth
        how = how.model_copy(update={"scan": Scan()})
