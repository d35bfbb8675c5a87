"""The chain itself: moments of ground truth to frames of low resolution.

Truth of a frame is one moment: of pictures made of two fields the one of the field that is kept,
of film the one of the film frame that was put together again.

Convention of what is analogue: luma `m h w` and chroma `m 2 h w` in units of [0, 1] and ±0.5, of
`m` moments.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.clips import there_and_back
from iart.data.degradation.codec import Packed, code, pack, packed_planes, planes, to_ycc, unpack
from iart.data.degradation.parameters import (
    FILM,
    GRID,
    Degradation,
    Grain,
    Reduction,
    Scan,
    Sharpening,
    Tape,
)
from iart.data.pairs import SCALE
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.resize import bicubic, resampling
from iart.video.fields.bwdif import Bwdif
from iart.video.fields.telecine import Decimator, Film
from iart.video.fields.treat import Treatment, treated
from iart.video.read.decode import Picture

# ---- before a picture is digital: edge enhancement, grain, and a video recorder


Luma = Float[Tensor, "m h w"]
Chroma = Float[Tensor, "m 2 h w"]

# A line of 720 samples is 4/3 of the picture's height; two samples hold one period.
_CYCLES_PER_LINE = 4 / 3 / 2 / 720
# NTSC's colour carrier, 3.58 MHz at 13.5 MHz; half a period later in every line and picture.
_CARRIER = 3.579545 / 13.5


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Noise of standard deviation 1."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def blurred_rows(image: Float[Tensor, "*b h w"], sigma: float) -> Float[Tensor, "*b h w"]:
    """Along the width, by a Gaussian."""
    size = image.shape[-1]
    return resampling(size, size, "gauss", max(round(sigma, 2), 0.05)).columns(image)


def blurred_columns(image: Float[Tensor, "*b h w"], sigma: float) -> Float[Tensor, "*b h w"]:
    """Along the height, by a Gaussian."""
    size = image.shape[-2]
    return resampling(size, size, "gauss", max(round(sigma, 2), 0.05)).rows(image)


def sharpen(luma: Luma, how: Sharpening) -> Luma:
    """Edge enhancement, which leaves halos."""
    across, down = torch.zeros(()), torch.zeros(())
    if how.amount_x:
        across = how.amount_x * (luma - blurred_rows(luma, how.radius))
    if how.amount_y:
        down = how.amount_y * (luma - blurred_columns(luma, how.radius))
    return luma + across + down


def add_grain(luma: Luma, how: Grain, rng: np.random.Generator) -> Luma:
    """Noise of film: none in black, least in white."""
    noise = normal(rng, *luma.shape)
    if how.size:
        noise = blurred_columns(blurred_rows(noise, how.size), how.size)
        noise = noise / noise.std().clamp(min=1e-3)
    middle = (4 * luma * (1 - luma)).clamp(0, 1).sqrt()
    return luma + how.strength / 255 * noise * (0.3 + 0.7 * middle)


def low_pass(image: Float[Tensor, "*b h w"], lines: float) -> Float[Tensor, "*b h w"]:
    """Along the width, so that a period of `lines` per picture height has half its height left."""
    cutoff = lines * _CYCLES_PER_LINE
    return blurred_rows(image, math.sqrt(math.log(2) / 2) / (math.pi * cutoff))


def shifted_rows(
    image: Float[Tensor, "*b h w"], shift: Float[Tensor, "*b h"]
) -> Float[Tensor, "*b h w"]:
    """Every line moved to the right by its own number of pixels, linearly interpolated."""
    width = image.shape[-1]
    place = torch.arange(width) - shift[..., None]
    whole = place.floor()
    left = whole.long().clamp(0, width - 1)
    right = (whole.long() + 1).clamp(0, width - 1)
    return torch.lerp(image.gather(-1, left), image.gather(-1, right), place - whole)


def dots(chroma: Chroma) -> Luma:
    """What a decoder leaves of the colour carrier in luma, where colours change.

    Composite video adds colours to luma on a carrier. A comb filter takes the mean of two lines,
    in which it is opposite, a notch takes its frequency out: neither takes all where colours end.
    """
    m, _, h, w = chroma.shape
    y, x = torch.arange(h)[:, None], torch.arange(w)
    phase = 2 * math.pi * _CARRIER * x + math.pi * (y + torch.arange(m)[:, None, None])
    carried = chroma[:, 0] * phase.sin() + chroma[:, 1] * phase.cos()
    comb = (carried + carried.roll(1, -2)) / 2
    comb[:, 0] = 0
    change = (chroma[..., 1:] - chroma[..., :-1]).abs().sum(dim=1)
    edge = blurred_rows(torch.cat((change, change[..., -1:]), dim=-1), 2.0)
    return comb + phase.sin() * edge


def play_tape(
    luma: Luma, chroma: Chroma, how: Tape, rng: np.random.Generator
) -> tuple[Luma, Chroma]:
    """Record and play: bandwidth, delay, noise, jitter, dot crawl, and torn rows at the bottom."""
    m, h, w = luma.shape
    crawl = how.dot_crawl * dots(chroma) if how.dot_crawl else torch.zeros(())
    luma, chroma = low_pass(luma, how.luma_lines), low_pass(chroma, how.chroma_lines)
    if how.luma_noise:
        noise = blurred_rows(normal(rng, m, h, w), 0.8)
        luma = luma + how.luma_noise / 255 * noise / noise.std()
    if how.chroma_noise:
        noise = blurred_rows(normal(rng, m, 2, h, w), 5.0)
        chroma = chroma + how.chroma_noise / 255 * noise / noise.std()
    luma = luma + crawl
    jitter = how.jitter * normal(rng, m, h)
    if how.head_switching:
        rows = min(how.head_switching, h)
        tear = torch.linspace(0, 1, rows) ** 2 * (8 + 24 * abs(float(normal(rng, 1))))
        jitter[:, h - rows :] += tear
    luma = shifted_rows(luma, jitter)
    delay = (jitter + how.chroma_delay_x)[:, None].expand(m, 2, h)
    chroma = shifted_rows(chroma, delay)
    if how.chroma_delay_y:
        down = torch.full((m, 2, w), how.chroma_delay_y)
        chroma = shifted_rows(chroma.mT, down).mT
    return luma, chroma


# ---- the chain


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
