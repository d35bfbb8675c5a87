"""Frames on disk: the same 8-bit RGB from whatever a tool writes, or one line about the file."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from iart.errors import DataError, OutputError
from iart.evaluate.pictures import picture_size, read_picture, write_picture
from tests.evaluate.made import picture


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif"])
def test_lossless_files_come_back(tmp_path: Path, name: str):
    frame = picture(0)
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    image.save(tmp_path / name, lossless=True)  # which only WebP asks for
    assert read_picture(tmp_path / name).equal(frame)
    assert picture_size(tmp_path / name) == (48, 64)


def test_what_is_written_comes_back(tmp_path: Path):
    write_picture(tmp_path / "a.png", picture(1))
    assert read_picture(tmp_path / "a.png").equal(picture(1))
    with pytest.raises(OutputError, match="there is no folder"):
        write_picture(tmp_path / "no" / "a.png", picture(1))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_other_kinds_of_image(tmp_path: Path, mode: str):
    grey = Image.fromarray(picture(2).permute(1, 2, 0).numpy()).convert(mode)
    grey.save(tmp_path / "a.png")
    expected = np.array(grey.convert("RGB"))
    assert read_picture(tmp_path / "a.png").permute(1, 2, 0).numpy().tolist() == expected.tolist()


def save_deep(path: Path, values: np.ndarray, kind: str) -> None:
    """A PNG of 16 bits, which Pillow cannot write in colour."""
    frame = av.VideoFrame.from_ndarray(values, format=kind)
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = frame.width, frame.height, kind
    context.time_base = Fraction(1, 25)
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)]))


def test_16_bits_are_rounded_not_cut_off(tmp_path: Path):
    values = np.full((8, 8, 3), 100 * 257 + 200, dtype=np.uint16)  # 100.78
    save_deep(tmp_path / "colour.png", values, "rgb48be")
    assert (read_picture(tmp_path / "colour.png") == 101).all()
    save_deep(tmp_path / "grey.png", values[..., 0], "gray16be")
    assert (read_picture(tmp_path / "grey.png") == 101).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot identify"), (b"no image", "cannot identify")],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (picture_size, read_picture):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        picture_size(tmp_path / "b.png")


@pytest.mark.parametrize("cut", [30, 60, 200])
def test_a_truncated_image(tmp_path: Path, cut: int):
    path = tmp_path / "a.png"
    write_picture(path, picture(3))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.png"):
        read_picture(path)


def test_a_damaged_image(tmp_path: Path):
    path = tmp_path / "a.png"
    write_picture(path, picture(3))
    content = bytearray(path.read_bytes())
    content[80:90] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_picture(path)
