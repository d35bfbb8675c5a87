from pathlib import Path

import numpy as np
import pytest

from iart.video.frame import Crop
from iart.video.read.borders import find_borders
from tests.video.clips import make_clip, picture, save_image


def film(
    count: int = 60, *, top: int = 10, bottom: int = 8, left: int = 6, right: int = 4,
    noise: float = 0.0, dark: range = range(0),
) -> list[np.ndarray]:  # fmt: skip
    """Pictures of 96×80 with borders; those in `dark` are black all over."""
    random = np.random.default_rng(0)
    images = []
    for index in range(count):
        image = np.zeros((80, 96, 3))
        inside = image[top : 80 - bottom, left : 96 - right]
        if index not in dark:
            inside[:] = picture(index, 96, 80)[: inside.shape[0], : inside.shape[1]]
        image += random.normal(0, noise, (80, 96, 1))
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


EXPECTED = Crop(86, 62, 6, 10)


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_borders_are_found(tmp_path: Path, noise: float, name: str):
    clip = make_clip(tmp_path / name, film(noise=noise), options={"g": "5"})
    assert find_borders(clip) == EXPECTED


def test_dark_scenes_are_no_borders(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mkv", film(dark=range(50)), options={"g": "5"})
    assert find_borders(clip) == EXPECTED
    black = make_clip(tmp_path / "b.mkv", film(10, dark=range(10)))
    assert find_borders(black) is None


def test_the_largest_picture_counts(tmp_path: Path):
    """A film that is letterboxed for most of its time."""
    images = film(50, left=0, right=0, top=20, bottom=20) + film(
        10, top=4, bottom=4, left=0, right=0
    )
    clip = make_clip(tmp_path / "a.mkv", images, options={"g": "5"})
    assert find_borders(clip) == Crop(96, 72, 0, 4)


def test_a_picture_without_borders(tmp_path: Path):
    assert find_borders(make_clip(tmp_path / "a.mkv")) is None


def test_turned_as_shown(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", film(10), rotation=90)
    # clockwise: left becomes top, bottom becomes left
    assert find_borders(clip) == Crop(62, 86, 8, 6)


def test_images(tmp_path: Path):
    for index, image in enumerate(film(50, dark=range(45))):
        save_image(tmp_path / f"{index}.png", image, pixel_format="rgb24")
    assert find_borders(tmp_path) == EXPECTED
