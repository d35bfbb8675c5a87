"""RGB to planes of 8-bit YUV 4:2:0, through a codec of FFmpeg and back, in memory.

Planes are as `iart.pictures.color` converts single pictures of BT.601 in limited range, chroma at
the left; of pictures made of two fields, the chroma of each field is made of its own lines. Codecs
have one thread and bit-exact transforms: the same pictures come back every time, for one build of
PyAV on one kind of processor.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
import torch
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.degradation.parameters import RATE, CodecName, Coding, Scan
from iart.errors import DataError
from iart.pictures.chroma import downsample_chroma, upsample_chroma
from iart.pictures.color import BT601, luma_and_chroma
from iart.video.filters import FilterChain

_STEP = (2, 2)

Packed = UInt8[np.ndarray, "_ _ _"]
"""Pictures `p 3·h/2 w`, as FFmpeg packs them: luma, then Cb, then Cr, each row by row."""


def to_ycc(clip: Float[Tensor, "m 3 h w"]) -> tuple[Tensor, Tensor]:
    """Luma `m h w` in [0, 1] and chroma `m 2 h w` in ±0.5."""
    ycc = torch.einsum("ij,mjhw->mihw", luma_and_chroma(BT601).float(), clip)
    return ycc[:, 0], ycc[:, 1:]


def pack(
    luma: Float[Tensor, "m h w"],
    chroma: Float[Tensor, "m 2 h w"],
    fields: Sequence[tuple[int, int]],
) -> Packed:
    """Pictures of which each takes its even rows from one moment and its odd rows from another."""
    small = _subsampled(chroma, fields)
    tops, bottoms = ([pair[i] for pair in fields] for i in (0, 1))
    woven = luma[tops]
    woven[:, 1::2] = luma[bottoms][:, 1::2]
    return packed_planes(woven * 219 + 16, small * 224 + 128)


def packed_planes(luma: Float[Tensor, "p h w"], chroma: Float[Tensor, "p 2 h2 w2"]) -> Packed:
    """Planes of numbers from 0 to 255, rounded."""
    flat = torch.cat((luma.flatten(1), chroma.flatten(1)), dim=1)
    rounded = flat.round_().clamp_(0, 255).to(torch.uint8)
    return rounded.view(len(luma), -1, luma.shape[-1]).numpy()


def _subsampled(
    chroma: Float[Tensor, "m 2 h w"], fields: Sequence[tuple[int, int]]
) -> Float[Tensor, "p 2 h2 w2"]:
    if all(top == bottom for top, bottom in fields):
        return _halved(chroma)[[top for top, _ in fields]]
    halves = [_halved(chroma[..., parity::2, :]) for parity in (0, 1)]
    rows = [half[[pair[i] for pair in fields]] for i, half in enumerate(halves)]
    return torch.stack(rows, dim=3).flatten(2, 3)


def _halved(chroma: Float[Tensor, "m 2 h w"]) -> Float[Tensor, "m 2 h2 w2"]:
    return downsample_chroma(chroma.flatten(0, 1), _STEP, "left").unflatten(0, (-1, 2))


def planes(pictures: Packed) -> tuple[Tensor, Tensor]:
    """Numbers of luma `p h w` and of chroma `p 2 h/2 w/2`, float32."""
    count, rows, width = pictures.shape
    height = rows * 2 // 3
    flat = torch.from_numpy(pictures.reshape(count, -1)).float()
    luma = flat[:, : height * width].view(count, height, width)
    return luma, flat[:, height * width :].reshape(count, 2, height // 2, width // 2)


def unpack(pictures: Packed) -> Float[Tensor, "p 3 h w"]:
    """RGB in [0, 1], as the pictures of a decoded file are read."""
    luma, chroma = planes(pictures)
    size = (luma.shape[1], luma.shape[2])
    small = (chroma.flatten(0, 1) - 128) / 224
    full = upsample_chroma(small, size, _STEP, "left").unflatten(0, (-1, 2))
    ycc = torch.cat((((luma - 16) / 219)[:, None], full), dim=1)
    inverse = torch.linalg.inv(luma_and_chroma(BT601)).float()
    return torch.einsum("ij,pjhw->pihw", inverse, ycc).clamp_(0, 1)


def split(pictures: Packed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three planes, `p h w` and twice `p h/2 w/2`."""
    count, rows, width = pictures.shape
    height = rows * 2 // 3
    flat = pictures.reshape(count, -1)
    luma, blue, red = np.split(flat, [height * width, height * width * 5 // 4], axis=1)
    small = (count, height // 2, width // 2)
    return luma.reshape(count, height, width), blue.reshape(small), red.reshape(small)


def join(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> Packed:
    """The inverse of `split`."""
    count, _, width = luma.shape
    flat = [plane.reshape(count, -1) for plane in (luma, blue, red)]
    return np.concatenate(flat, axis=1).reshape(count, -1, width)


# ---- through a codec


_LARGEST = 31
"""Of the quantisers of MPEG and H.263."""
_DV = (576, 720)
_DECODERS: dict[CodecName, str] = {"libx264": "h264"}
# A decoder's own smoothing of block edges is left off where it is an option.
_INTERLACED = {
    "mpeg2video": {"flags": "+ildct+ilme", "alternate_scan": "1"},
    "mpeg4": {"flags": "+ildct+ilme"},
    "dvvideo": {"flags": "+ildct"},
    "libx264": {"x264-params": "interlaced=1"},
}


def code(pictures: Packed, how: Coding, scan: Scan, rng: np.random.Generator) -> Packed:
    """What a decoder gives of pictures that were coded.

    Args:
        pictures: of sides that are multiples of 16.
        how: the codec, its quantiser and its groups of pictures.
        scan: whether pictures hold two fields, and which is first.
        rng: moves the quantiser from picture to picture.

    Raises:
        DataError: FFmpeg refuses.
    """
    try:
        if how.codec == "dvvideo":
            return _through_dv(pictures, scan)
        decoded = _transcode(_frames(pictures, scan), how, scan, rng)
    except FFmpegError as error:
        raise DataError(f"cannot degrade pictures by {how.codec}: {error}") from error
    if len(decoded) != len(pictures):
        raise DataError(
            f"cannot degrade pictures by {how.codec}: of {len(pictures)}, {len(decoded)} came back"
        )
    return np.stack(decoded)


def _frames(pictures: Packed, scan: Scan) -> list[av.VideoFrame]:
    frames = [av.VideoFrame.from_ndarray(picture, "yuv420p") for picture in pictures]
    if scan.kind != "progressive":
        # PyAV's frames cannot be told that they are interlaced; encoders look at them alone.
        mark = FilterChain([("setfield", "mode=tff" if scan.top_first else "mode=bff")])
        frames = [image for i, frame in enumerate(frames) for _, image in mark.push(frame, i)]
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, 1 / RATE
    return frames


def _transcode(
    frames: list[av.VideoFrame], how: Coding, scan: Scan, rng: np.random.Generator
) -> list[np.ndarray]:
    encoder = _encoder(frames[0], how, scan)
    decoder: VideoCodecContext = av.CodecContext.create(_DECODERS.get(how.codec, how.codec), "r")  # pyright: ignore[reportAssignmentType]
    decoder.thread_count = 1
    decoder.flags |= Flags.bitexact
    if how.codec in ("flv", "h263p"):
        decoder.width, decoder.height = encoder.width, encoder.height
    decoded: list[np.ndarray] = []
    packets = _packets(encoder, frames, how, rng)
    for packet in packets:
        decoded += [image.to_ndarray() for image in decoder.decode(packet)]
    return decoded + [image.to_ndarray() for image in decoder.decode(None)]


def _packets(
    encoder: VideoCodecContext, frames: list[av.VideoFrame], how: Coding, rng: np.random.Generator
) -> Iterator[av.Packet]:
    drift = 0.0
    for frame in frames:
        if how.swing:
            drift = 0.7 * drift + 0.7 * float(rng.normal())
            quantiser = how.quantiser * (1 + how.swing) ** drift
            encoder.qmin = encoder.qmax = min(max(round(quantiser), 1), _LARGEST)
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _encoder(frame: av.VideoFrame, how: Coding, scan: Scan) -> VideoCodecContext:
    encoder: VideoCodecContext = av.CodecContext.create(how.codec, "w")  # pyright: ignore[reportAssignmentType]
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base, encoder.framerate = 1 / RATE, Fraction(RATE)
    encoder.thread_count = 1
    encoder.gop_size, encoder.max_b_frames = how.group, how.b_pictures
    options = dict(how.options)
    if scan.kind != "progressive":
        options |= _INTERLACED.get(how.codec, {})
    if how.codec == "libx264":
        options |= {"qp": str(round(how.quantiser)), "threads": "1"}
    else:
        # Tables are made for quantisers from the least on, when the encoder is opened.
        encoder.qmin, encoder.qmax = 1, _LARGEST
    options["flags"] = options.get("flags", "") + "+bitexact"
    encoder.options = options
    encoder.open()
    if how.codec != "libx264":
        encoder.qmin = encoder.qmax = round(how.quantiser)
    return encoder


def _through_dv(pictures: Packed, scan: Scan) -> Packed:
    """DV codes pictures of one size, each for itself: many small ones are laid into one.

    What is left over is filled by mirroring.
    """
    count, rows, width = pictures.shape
    down, across = _DV[0] // (rows * 2 // 3), _DV[1] // width
    if not (down and across):
        raise DataError(
            f"cannot degrade {width}×{rows * 2 // 3} by DV: its pictures have {_DV[1]}×{_DV[0]}. "
            "Use smaller clips, or leave DV out"
        )
    sheets = -(-count // (down * across))
    missing = sheets * down * across - count
    tiles = np.concatenate([pictures, pictures[-1:].repeat(missing, axis=0)])
    laid = (
        _laid(plane, (sheets, down, across), (_DV[0] // step, _DV[1] // step))
        for plane, step in zip(split(tiles), (1, 2, 2), strict=True)
    )
    how = Coding(codec="dvvideo", group=1)
    back = _transcode(_frames(join(*laid), scan), how, scan, np.random.default_rng(0))
    cut = (
        _cut(plane, (down, across), (rows * 2 // 3 // step, width // step))
        for plane, step in zip(split(np.stack(back)), (1, 2, 2), strict=True)
    )
    return join(*cut)[:count]


def _laid(
    tiles: UInt8[np.ndarray, "n h w"], grid: tuple[int, int, int], size: tuple[int, int]
) -> UInt8[np.ndarray, "sheets h2 w2"]:
    """Tiles beside and below each other in pictures of `size`."""
    sheets, down, across = grid
    _, height, width = tiles.shape
    laid = tiles.reshape(sheets, down, across, height, width).swapaxes(2, 3)
    laid = laid.reshape(sheets, down * height, across * width)
    missing = size[0] - laid.shape[1], size[1] - laid.shape[2]
    return np.pad(laid, ((0, 0), (0, missing[0]), (0, missing[1])), mode="symmetric")


def _cut(
    sheets: UInt8[np.ndarray, "sheets h2 w2"], grid: tuple[int, int], size: tuple[int, int]
) -> UInt8[np.ndarray, "n h w"]:
    """The inverse of `_laid`."""
    (down, across), (height, width) = grid, size
    tiles = sheets[:, : down * height, : across * width]
    tiles = tiles.reshape(-1, down, height, across, width).swapaxes(2, 3)
    return tiles.reshape(-1, height, width)
