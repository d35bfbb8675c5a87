from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iart.errors import InputError, OptionsError
from iart.files.images import natural_key
from iart.pictures.color_tags import SRGB
from iart.video.open import open_video
from iart.video.read.image_series import ImageReader, find_images
from iart.video.read.reader import VideoReader
from tests.video import clips
from tests.video.clips import make_clip, picture, save_image


def make_folder(folder: Path, names: list[str]) -> Path:
    """Images whose pictures follow the order of `names`."""
    folder.mkdir()
    for index, name in enumerate(names):
        save_image(folder / name, picture(index), pixel_format="rgb24")
    return folder


def shown(frame) -> np.ndarray:
    return (frame.data.permute(1, 2, 0) * 255).round().numpy()


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png", "11.png", "100.png"],
        ["a1b2.png", "a1b10.png", "a2b1.png"],
        ["Frame_001.png", "frame_002.png", "Frame_003.png"],
        ["f 1.PNG", "f 2.png", "f%03d.png"],
    ],
)
def test_natural_order(tmp_path: Path, names: list[str]):
    folder = make_folder(tmp_path / "in", names)
    assert [path.name for path in find_images(folder)] == names
    frames = list(ImageReader(folder))
    assert len(frames) == len(names)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(shown(frame), picture(index))


def test_numbers_compare_by_value_across_folders():
    paths = [Path("s10/1.png"), Path("s2/10.png"), Path("s2/9.png")]
    assert sorted(paths, key=natural_key) == [paths[2], paths[1], paths[0]]


def test_times_and_info(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["1.png", "2.png", "3.png"])
    rate = Fraction(24000, 1001)
    with ImageReader(folder, rate=rate) as reader:
        frames = list(reader)
    assert [frame.time for frame in frames] == [0, 1 / rate, 2 / rate]
    assert all(frame.duration * frame.time_base == 1 / rate for frame in frames)
    info = reader.info
    assert (info.path, info.container, info.codec, info.tracks) == (folder, "images", "png", ())
    assert (info.width, info.height, info.rate, info.frame_count) == (64, 48, rate, 3)
    assert info.duration_seconds == 3 / rate
    assert info.color == SRGB
    assert [f.pts for f in reader] == [0, 1, 2]


def test_glob_and_list(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["a1.png", "a2.png", "a10.png"])
    make_other = folder / "b1.png"
    save_image(make_other, picture(0, 32, 32), pixel_format="rgb24")
    assert len(list(open_video(f"{folder}/a*.png"))) == 3
    frames = list(open_video([folder / "a10.png", str(folder / "a2.png")]))
    np.testing.assert_array_equal(shown(frames[1]), picture(2))
    assert len(list(open_video(folder / "a1.png"))) == 1


def test_other_files_are_ignored(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["1.png", "2.png"])
    (folder / "notes.txt").write_text("hello")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "3.png").mkdir()
    reader = ImageReader(folder)
    assert len(list(reader)) == 2
    assert reader.losses == []


@pytest.mark.parametrize("scenes", [True, False])
def test_cuts_between_images(tmp_path: Path, scenes: bool):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(6):
        image = picture(index, scene=index // 3)
        if index % 2:  # other formats are no cuts
            rgba = np.concatenate([image, np.full((*image.shape[:2], 1), 9, np.uint8)], axis=-1)
            save_image(folder / f"{index}.png", rgba, pixel_format="rgba")
        else:
            save_image(folder / f"{index}.png", image, pixel_format="rgb24")
    frames = list(ImageReader(folder, scenes=scenes))
    assert [frame.cut for frame in frames] == [scenes and i == 3 for i in range(6)]


# Kinds of images


def test_alpha_is_left_out(tmp_path: Path):
    rgba = np.concatenate([picture(0), np.zeros((48, 64, 1), np.uint8)], axis=-1)
    save_image(tmp_path / "1.png", rgba, pixel_format="rgba")
    (frame,) = ImageReader(tmp_path)
    np.testing.assert_array_equal(shown(frame), picture(0))


def test_grey_becomes_rgb(tmp_path: Path):
    grey = picture(0)[..., 0]
    save_image(tmp_path / "1.png", np.ascontiguousarray(grey), pixel_format="gray")
    (frame,) = ImageReader(tmp_path)
    np.testing.assert_array_equal(shown(frame), np.stack([grey] * 3, axis=-1))


def test_sixteen_bits_are_kept(tmp_path: Path):
    ramp = np.zeros((4, 1024, 3), np.uint16)
    ramp[..., 0] = np.arange(20000, 21024)
    save_image(tmp_path / "1.png", ramp, pixel_format="rgb48be")
    reader = ImageReader(tmp_path)
    (frame,) = reader
    assert reader.info.bit_depth == 16
    np.testing.assert_allclose(frame.data[0].numpy() * 65535, ramp[..., 0], atol=0.01)


def test_sixteen_bit_grey(tmp_path: Path):
    ramp = np.tile(np.arange(0, 65536, 64, dtype=np.uint16), (4, 1))
    Image.fromarray(ramp).save(tmp_path / "1.png")
    (frame,) = ImageReader(tmp_path)
    np.testing.assert_allclose(frame.data[1].numpy() * 65535, ramp, atol=0.01)


@pytest.mark.parametrize("ending", ["jpg", "bmp", "tif", "ppm", "tga", "webp", "gray.jpg"])
def test_other_formats(tmp_path: Path, ending: str):
    image = Image.fromarray(picture(0))
    image = image.convert("L") if ending == "gray.jpg" else image
    image.save(tmp_path / f"1.{ending}", quality=98)
    (frame,) = ImageReader(tmp_path)
    expected = np.asarray(image.convert("RGB"), dtype=float)
    assert np.abs(shown(frame) - expected).mean() < 4


def test_palettes_become_rgb(tmp_path: Path):
    image = Image.fromarray(picture(0)).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "1.png")
    (frame,) = ImageReader(tmp_path)
    np.testing.assert_array_equal(shown(frame), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, ending: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"1.{ending}"
    Image.fromarray(picture(0)).save(path, exif=exif, quality=98)
    reader = ImageReader(tmp_path)
    (frame,) = reader
    stored = picture(0)
    upright = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    assert (reader.info.height, reader.info.width) == upright.shape[:2]
    assert np.abs(shown(frame) - upright).mean() < 4


# Damage and refusals


def test_an_image_that_cannot_be_decoded_is_a_loss(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["1.png", "2.png", "3.png"])
    (folder / "2.png").write_bytes(b"not an image")
    reader = ImageReader(folder, rate=Fraction(10))
    frames = list(reader)
    assert [frame.pts for frame in frames] == [0, 2]
    (loss,) = reader.losses
    assert (loss.start_seconds, loss.end_seconds) == (Fraction(1, 10), Fraction(2, 10))
    assert "'2.png' cannot be decoded" in loss.reason


def test_different_sizes_are_refused_by_name(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["1.png", "2.png", "10.png"])
    save_image(folder / "10.png", picture(0, 32, 40), pixel_format="rgb24")
    with pytest.raises(
        InputError,
        match=r"'in': images of different sizes \('1.png' is 64x48, '10.png' is 32x40\)",
    ):
        ImageReader(folder)


def test_a_folder_without_images(tmp_path: Path):
    with pytest.raises(InputError, match=r"no images \(found: nothing\)"):
        open_video(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"no images \(found: files of kind .txt\)"):
        open_video(tmp_path)


def test_nothing_matches(tmp_path: Path):
    with pytest.raises(InputError, match="no images"):
        open_video(f"{tmp_path}/*.png")
    with pytest.raises(InputError, match="it is empty"):
        open_video([])
    with pytest.raises(InputError, match="no such file"):
        open_video([tmp_path / "1.png"])
    with pytest.raises(InputError, match="no such file"):
        open_video(tmp_path / "none.mkv")


def test_no_image_can_be_decoded(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image can be decoded"):
        ImageReader(tmp_path)


def test_a_video_file_gives_a_video_reader(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a[1].mkv", frames=3)
    with open_video(path, scenes=False) as reader:
        assert isinstance(reader, VideoReader)
        assert len(list(reader)) == 3


def test_frames_own_their_memory(tmp_path: Path):
    folder = make_folder(tmp_path / "in", ["1.png", "2.png"])
    first, second = ImageReader(folder)
    assert not torch.equal(first.data, second.data)


def test_a_pattern_that_python_refuses(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read '.*png'"):
        open_video(tmp_path / "**x" / "*.png")


def test_a_list_of_videos_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"'in\.mkv': it is no image"):
        open_video([make_clip(tmp_path / "in.mkv", frames=2)] * 2)


@pytest.mark.parametrize("name", ["", "n" * 300])
def test_names_that_no_file_can_have(name: str):
    with pytest.raises(InputError, match="cannot read"):
        open_video(name)


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(10**9), Fraction(1, 10**9)])
def test_rates_that_no_video_can_state(tmp_path: Path, rate: Fraction):
    save_image(tmp_path / "1.png", picture(0), pixel_format="rgb24")
    with pytest.raises(OptionsError, match="rate must be"):
        open_video(tmp_path, rate=rate)
