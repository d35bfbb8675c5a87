"""Image files of several pictures: all of them at their times, or refused by name."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iart.errors import InputError
from iart.video.open import open_video
from tests.video import clips

_MILLISECONDS = [100, 100, 300, 100, 200]


def animation(path: Path, **more: Any) -> Path:
    images = [Image.fromarray(clips.picture(index)) for index in range(5)]
    images[0].save(path, save_all=True, append_images=images[1:], **more)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.apng"])
def test_animated_png_gives_every_picture_at_its_time(tmp_path: Path, name: str):
    path = animation(tmp_path / name, format="png", duration=_MILLISECONDS, loop=0)
    with open_video(path) as reader:
        frames = list(reader)
        assert not reader.losses
    starts = [Fraction(sum(_MILLISECONDS[:index]), 1000) for index in range(5)]
    assert [frame.time for frame in frames] == starts
    for index, frame in enumerate(frames):
        shown = (frame.data * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown, clips.picture(index))


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "a.tiff"])
@pytest.mark.parametrize("alone", [True, False])
def test_other_images_of_several_pictures_are_refused(tmp_path: Path, name: str, alone: bool):
    more: dict[str, Any] = {} if name == "a.tiff" else {"duration": _MILLISECONDS}
    path = animation(tmp_path / name, **more)
    kind = name[2:].upper()
    with pytest.raises(InputError, match=rf"'{name}': it holds 5 pictures \({kind}, animated"):
        open_video(path if alone else tmp_path)


def test_previews_are_not_pictures(tmp_path: Path):
    images = [Image.fromarray(clips.picture(0)), Image.fromarray(clips.picture(0, 16, 12))]
    path = tmp_path / "a.tiff"
    images[0].save(path, save_all=True, append_images=images[1:])
    with open_video(path) as reader:
        assert len(list(reader)) == 1
