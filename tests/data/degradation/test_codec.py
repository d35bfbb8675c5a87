"""Codecs do what they are asked to."""

import struct

import av
import numpy as np
import pytest
import torch

from iart.data.degradation import codec as codec_module
from iart.data.degradation.codec import code, pack, planes, to_ycc
from iart.data.degradation.parameters import Coding, Scan
from iart.errors import DataError
from tests.data.degradation.made import clean, moving, sliding

CODECS = ["mpeg2video", "mpeg4", "flv", "h263p", "libx264"]


def pictures(count: int = 6, side: int = 64) -> np.ndarray:
    """Progressive, packed."""
    luma, chroma = to_ycc(clean(moving(count, side=4 * side)))
    return pack(luma, chroma, [(i, i) for i in range(count)])


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


def coded(given: np.ndarray, scan: Scan | None = None, **how) -> np.ndarray:
    return code(given, Coding(**how), scan or Scan(), np.random.default_rng(0))


@pytest.mark.parametrize("codec", CODECS)
def test_the_quantiser_is_the_one_that_was_asked_for(codec: str):
    given = pictures()
    errors = [error(coded(given, codec=codec, quantiser=q), given) for q in (3, 8, 25)]
    assert errors[0] < errors[1] / 1.5 < errors[2] / 2.5
    assert np.array_equal(
        coded(given, codec=codec, quantiser=8), coded(given, codec=codec, quantiser=8)
    )


def test_mpeg2_has_the_quantiser_of_the_protocols():
    """Twice the quantiser is what FFmpeg's decoder says that it read."""
    given = pictures(8)
    how = Coding(codec="mpeg2video", quantiser=4, b_pictures=2)
    frames = codec_module._frames(given, Scan())
    encoder = codec_module._encoder(frames[0], how, Scan())
    decoder = av.CodecContext.create("mpeg2video", "r")
    decoder.options = {"export_side_data": "venc_params"}
    packets = codec_module._packets(encoder, frames, how, np.random.default_rng(0))
    read = [frame for packet in packets for frame in decoder.decode(packet)]
    kinds = {frame.pict_type for frame in read}
    assert len(kinds) == 3  # I, P and B
    scales = [quantisers(frame) for frame in read if frame.side_data.get("VIDEO_ENC_PARAMS")]
    assert len(scales) >= 6
    assert all((of_picture == 8).all() for of_picture in scales)


def quantisers(frame: av.VideoFrame) -> np.ndarray:
    """Of the blocks of a picture, from FFmpeg's AVVideoEncParams."""
    data = frame.side_data.get("VIDEO_ENC_PARAMS")
    assert data is not None
    raw = bytes(data)
    (count,) = struct.unpack_from("I", raw)
    offset, size, _, common = struct.unpack_from("QQii", raw, 8)
    return np.array(
        [common + struct.unpack_from("i", raw, offset + i * size + 16)[0] for i in range(count)]
    )


def test_the_quantiser_moves_from_picture_to_picture():
    given = pictures(12)
    steady = coded(given, codec="mpeg2video", quantiser=8)
    swinging = coded(given, codec="mpeg2video", quantiser=8, swing=0.4)

    def spread(result: np.ndarray) -> float:
        return float(np.std([error(a, b) for a, b in zip(result, given, strict=True)]))

    assert spread(swinging) > 1.5 * spread(steady)
    # none of the pictures has lost its coefficients
    assert max(error(a, b) for a, b in zip(swinging, given, strict=True)) < 6 * error(steady, given)


@pytest.mark.parametrize("codec", ["mpeg2video", "dvvideo"])
def test_encoders_are_told_of_fields(codec: str):
    """Fields of fast motion are coded well only as fields."""
    luma, chroma = to_ycc(clean(sliding(16, 12.0)))
    woven = pack(luma, chroma, [(2 * i, 2 * i + 1) for i in range(8)])
    interlaced = coded(woven, Scan(kind="interlaced"), codec=codec, quantiser=8)
    for given in split_fields(woven), split_fields(interlaced):
        assert given.shape[1] == 32
    assert error(interlaced, woven) < 150


def split_fields(given: np.ndarray) -> np.ndarray:
    return planes(given)[0][:, ::2].numpy()


def test_dv_of_many_pictures_and_of_any_size():
    given = pictures(5, side=48)
    result = coded(given, codec="dvvideo")
    assert result.shape == given.shape
    assert 0 < error(result, given) < 150
    # intra only: each picture is coded by itself
    assert error(coded(given[:1], codec="dvvideo"), given[:1]) < 150
    many = np.concatenate([pictures(8, side=160)] * 2)
    assert error(coded(many, codec="dvvideo"), many) < 150
    with pytest.raises(DataError, match="its pictures have 720×576"):
        coded(np.zeros((1, 24, 736), np.uint8), codec="dvvideo")


def test_what_ffmpeg_refuses():
    with pytest.raises(DataError, match="cannot degrade pictures by libx264"):
        coded(pictures(2), codec="libx264", options={"preset": "none of these"})


def test_planes_come_back():
    clip = clean(moving(2, side=256))
    grey = clip.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    luma, chroma = to_ycc(grey)
    packed = pack(luma, chroma, [(0, 0), (1, 1)])
    assert packed.shape == (2, 96, 64)
    assert (planes(packed)[0] / 219 - 16 / 219 - luma).abs().max() < 0.6 / 219
    assert (planes(packed)[1] - 128).abs().max() <= 1
    woven = pack(luma, chroma, [(0, 1)])
    assert torch.from_numpy(woven[0, :64:2]).equal(torch.from_numpy(packed[0, :64:2]))
    assert torch.from_numpy(woven[0, 1:64:2]).equal(torch.from_numpy(packed[1, 1:64:2]))
