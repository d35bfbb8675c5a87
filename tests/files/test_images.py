"""Frames on disk: the same 8-bit RGB from whatever a tool writes, or one line about the file."""

import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from iart.data.stores.folder import FolderFrames
from iart.errors import DataError, OutputError
from iart.files.images import image_size, read_image, write_image
from iart.pictures.degrade import to_uint8
from iart.video.read.image_series import ImageReader
from tests.evaluate.made import picture


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif"])
def test_lossless_files_come_back(tmp_path: Path, name: str):
    frame = picture(0)
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    image.save(tmp_path / name, lossless=True)  # which only WebP asks for
    assert read_image(tmp_path / name).equal(frame)
    assert image_size(tmp_path / name) == (48, 64)


def test_what_is_written_comes_back(tmp_path: Path):
    write_image(tmp_path / "a.png", picture(1))
    assert read_image(tmp_path / "a.png").equal(picture(1))
    with pytest.raises(OutputError, match=r"cannot write '.*b\.png'"):
        write_image(tmp_path / "a.png" / "b.png", picture(1))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_other_kinds_of_image(tmp_path: Path, mode: str):
    grey = Image.fromarray(picture(2).permute(1, 2, 0).numpy()).convert(mode)
    grey.save(tmp_path / "a.png")
    expected = np.array(grey.convert("RGB"))
    assert read_image(tmp_path / "a.png").permute(1, 2, 0).numpy().tolist() == expected.tolist()


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
    assert (read_image(tmp_path / "colour.png") == 101).all()
    save_deep(tmp_path / "grey.png", values[..., 0], "gray16be")
    assert (read_image(tmp_path / "grey.png") == 101).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot identify"), (b"no image", "cannot identify")],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (image_size, read_image):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        image_size(tmp_path / "b.png")


@pytest.mark.parametrize("cut", [30, 60, 200])
def test_a_truncated_image(tmp_path: Path, cut: int):
    path = tmp_path / "a.png"
    write_image(path, picture(3))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path)


def test_a_damaged_image(tmp_path: Path):
    path = tmp_path / "a.png"
    write_image(path, picture(3))
    content = bytearray(path.read_bytes())
    content[80:90] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path)


# ---- one rule for upscaling, tests and training


def assert_alike(folder: Path, expected: np.ndarray, most: int = 0) -> None:
    """The one image of a folder is the same, and as expected, to all that read images."""
    (path,) = folder.iterdir()
    (shown,) = ImageReader(folder)
    frames = FolderFrames(folder, "clip")
    assert frames.size == image_size(path) == expected.shape[:2]
    assert list(frames.problems()) == []
    height, width = frames.size
    part = frames.read([0], 1, 2, height - 1, width - 2)[0]
    seen = [to_uint8(shown.data), read_image(path), read_image(path)]
    seen[2][:, 1:, 2:] = torch.from_numpy(part.copy()).permute(2, 0, 1)
    for image in seen:
        assert image.shape == (3, height, width)
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).max() <= most


UPRIGHT = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_orientation_is_honoured_by_all(tmp_path: Path, orientation: int, ending: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(0).permute(1, 2, 0).numpy()
    image = Image.fromarray(stored)
    image.save(tmp_path / f"1.{ending}", exif=exif, lossless=True)  # which only WebP asks for
    assert_alike(tmp_path, UPRIGHT[orientation](stored))


def test_orientation_that_follows_the_picture(tmp_path: Path):
    """Where programs add EXIF to a PNG file that is there."""
    write_image(tmp_path / "1.png", picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = (len(data) - 4).to_bytes(4) + data + zlib.crc32(data).to_bytes(4)
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert_alike(tmp_path, np.rot90(picture(0).permute(1, 2, 0).numpy(), -1))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_other_kinds_are_alike_to_all(tmp_path: Path, mode: str):
    image = Image.fromarray(picture(2).permute(1, 2, 0).numpy()).convert(mode)
    image.save(tmp_path / "1.png")
    assert_alike(tmp_path, np.asarray(image.convert("RGB")))


def test_grey_photographs_are_alike_to_all(tmp_path: Path):
    image = Image.fromarray(picture(2).permute(1, 2, 0).numpy()).convert("L")
    image.save(tmp_path / "1.jpg", quality=95)
    assert_alike(tmp_path, np.asarray(Image.open(tmp_path / "1.jpg").convert("RGB")), most=1)


@pytest.mark.parametrize("kind", ["rgb48be", "gray16be"])
def test_sixteen_bits_are_rounded_once_by_all(tmp_path: Path, kind: str):
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 12, 3), np.uint16)
    deep = deep if kind == "rgb48be" else deep[..., :1].repeat(3, axis=2)
    save_deep(tmp_path / "1.png", deep if kind == "rgb48be" else deep[..., 0], kind)
    assert_alike(tmp_path, np.floor(deep / 257 + 0.5))


def test_an_animation_is_no_frame(tmp_path: Path):
    frames = [Image.fromarray(picture(i).permute(1, 2, 0).numpy()) for i in range(2)]
    frames[0].save(tmp_path / "1.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"1\.png': it holds 2 pictures \(PNG, animated"):
        read_image(tmp_path / "1.png")
