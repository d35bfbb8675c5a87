"""Sizes of outputs, shapes of pixels, and resampling to them."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from iart.errors import OptionsError
from iart.model.bicubic import Bicubic
from iart.pictures.resize import lanczos
from iart.upscaling.clip import upscale
from iart.upscaling.film.conform import Geometry, plan_conform, plan_size
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.frame import Frame, VideoInfo
from iart.video.open import open_video
from tests.video.clips import make_clip, picture
from tests.video.outputs import images

NTSC, WIDE_NTSC = Fraction(8, 9), Fraction(32, 27)
PAL, WIDE_PAL = Fraction(16, 15), Fraction(64, 45)


def source(width: int, height: int, aspect: Fraction = Fraction(1)) -> VideoInfo:
    return replace(images(Path("in")), width=width, height=height, sample_aspect=aspect)


@pytest.mark.parametrize(
    ("width", "height", "aspect", "size", "expected"),
    [
        (720, 480, NTSC, None, Geometry(2880, 1920, NTSC)),
        (720, 480, NTSC, "1080p", Geometry(1440, 1080)),
        (720, 480, WIDE_NTSC, "1080p", Geometry(1920, 1080)),
        (720, 576, PAL, "1080p", Geometry(1440, 1080)),
        (720, 576, WIDE_PAL, "1080p", Geometry(1920, 1080)),
        (720, 576, WIDE_PAL, "2160p", Geometry(3840, 2160)),
        (720, 576, PAL, "1440p", Geometry(1920, 1440)),
        (854, 480, Fraction(1), "1080p", Geometry(1920, 1080)),
        (1920, 800, Fraction(1), "1080p", Geometry(1920, 800)),
        (480, 854, Fraction(1), "1080p", Geometry(1080, 1922 - 2)),
        (480, 720, 1 / WIDE_NTSC, "1080p", Geometry(1080, 1920)),
        (63, 47, Fraction(1), "720p", Geometry(966, 720)),
        (720, 480, WIDE_NTSC, "4K", Geometry(3840, 2160)),
        (320, 240, Fraction(1), "480p", Geometry(640, 480)),
        (720, 480, WIDE_NTSC, "1920:1080", Geometry(1920, 1080)),
        (720, 480, WIDE_NTSC, "2x", Geometry(1440, 960, WIDE_NTSC)),
        (63, 47, Fraction(1), "3x", Geometry(188, 140)),
        (720, 480, WIDE_NTSC, "1920x1080", Geometry(1920, 1080)),
        (720, 480, NTSC, "1920x1080", Geometry(1920, 1080, Fraction(3, 4))),
        (720, 576, PAL, "720x576", Geometry(720, 576, PAL)),
        (853, 480, Fraction(1), "1920x1080", Geometry(1920, 1080)),
    ],
)
def test_sizes(width, height, aspect, size, expected):
    assert plan_size(source(width, height, aspect), size=size) == expected


@pytest.mark.parametrize(
    ("width", "height", "aspect", "size", "expected"),
    [
        (720, 480, NTSC, None, (2560, 1920)),
        (720, 480, WIDE_NTSC, None, (3414, 1920)),
        (720, 576, PAL, None, (3072, 2304)),
        (720, 576, WIDE_PAL, "2x", (2048, 1152)),
        (64, 48, Fraction(1), None, (256, 192)),
    ],
)
def test_square_pixels(width, height, aspect, size, expected):
    info = source(width, height, aspect)
    assert plan_size(info, size=size, square_pixels=True) == Geometry(*expected)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("1080", "unknown size '1080'; pass 720p, 1080p"),
        ("0x100", "unknown size"),
        ("5x", "unknown size '5x'"),
        ("8x8", "the output would be 8x8; sides are from 16 to 16384"),
        ("100x20000", "the output would be 100x20000"),
    ],
)
def test_impossible_sizes(size: str, words: str):
    with pytest.raises(OptionsError, match=words):
        plan_size(source(720, 480), size=size)


def test_square_pixels_and_a_size_of_another_shape():
    with pytest.raises(OptionsError, match="with square pixels 1440x1080 fits into it"):
        plan_size(source(720, 480, NTSC), size="1920x1080", square_pixels=True)


def test_more_than_four_times_is_said():
    asked = UpscaleRequest("in.mkv", "out.mkv", size="1080p", color="keep")
    conform = plan_conform(source(320, 180), asked)
    assert conform.notes == (
        "size: 1920x1080 is more than 4 times 320x180; the rest is interpolation",
    )
    assert not plan_conform(source(480, 270), asked).notes


@pytest.mark.parametrize(("height", "width"), [(27, 36), (48, 40), (100, 130), (47, 64)])
def test_lanczos_is_its_formula(height: int, width: int):
    image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weights(size: int, outputs: int) -> torch.Tensor:
        stretch = min(1.0, outputs / size)
        at = (torch.arange(outputs, dtype=torch.float64) + 0.5) * size / outputs - 0.5
        reach = range(-3 * size, 4 * size)
        x = stretch * (at[:, None] - torch.tensor(reach))
        kernel = torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)
        matrix = torch.zeros(outputs, size, dtype=torch.float64)
        for column, place in enumerate(reach):
            inside = place % (2 * size)
            matrix[:, min(inside, 2 * size - 1 - inside)] += kernel[:, column]
        return matrix / matrix.sum(1, keepdim=True)

    expected = weights(48, height) @ image @ weights(64, width).T
    torch.testing.assert_close(lanczos(image, height, width), expected, atol=1e-12, rtol=0)


def test_lanczos_brings_a_picture_back():
    image = torch.from_numpy(picture(0, 128, 96)).permute(2, 0, 1) / 255
    back = lanczos(lanczos(image, 216, 288), 96, 128)
    torch.testing.assert_close(back, image, atol=0.01, rtol=0)


def test_frames_of_the_right_size_are_not_touched():
    conform = plan_conform(source(16, 12), UpscaleRequest("in.mkv", "out.mkv"))
    frame = Frame(torch.rand(3, 48, 64), 0, Fraction(1, 25))
    assert conform.after(frame) is frame
    smaller = replace(conform, geometry=Geometry(40, 30)).after(frame)
    assert smaller.data.shape == (3, 30, 40)
    assert 0 <= smaller.data.min() <= smaller.data.max() <= 1


@pytest.mark.parametrize("name", ["out.mkv", "out"])
def test_a_film_gets_its_size(tmp_path: Path, name: str):
    clip = make_clip(tmp_path / "in.mkv", frames=3, sample_aspect=WIDE_NTSC)
    upscale_video(clip, tmp_path / name, Bicubic(), size="2x", square_pixels=True)
    with open_video(clip) as reader:
        small = torch.stack([frame.data for frame in reader])
    with open_video(tmp_path / name) as reader:
        info, frames = reader.info, torch.stack([frame.data for frame in reader])
    assert (info.width, info.height, info.sample_aspect) == (152, 96, 1)
    expected = lanczos(upscale(small, Bicubic()), 96, 152).clamp(0, 1)
    assert (frames - expected).abs().mean() < 0.02


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize(("size", "square_pixels"), [(None, False), ("2x", False), (None, True)])
def test_a_turned_film_keeps_its_shape(tmp_path, rotation, size, square_pixels):
    clip = make_clip(
        tmp_path / "in.mp4", frames=2, width=63, height=47, pixel_format="yuv444p",
        rotation=rotation, sample_aspect=WIDE_PAL,
    )  # fmt: skip
    output = tmp_path / "out.mkv"
    upscale_video(clip, output, Bicubic(), size=size, square_pixels=square_pixels, codec="ffv1")
    shown = []
    for path in (clip, output):
        with open_video(path) as reader:
            shown.append(
                Fraction(reader.info.width, reader.info.height) * reader.info.sample_aspect
            )
    assert shown[1] == shown[0] or abs(shown[1] / shown[0] - 1) < Fraction(1, 40)
    if size is None and not square_pixels:
        assert shown[1] == shown[0]
    assert (shown[0] < 1) == (rotation == 90)
    if square_pixels:
        with open_video(output) as reader:
            assert reader.info.sample_aspect == 1
