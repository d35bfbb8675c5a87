"""The alpha channel: enlarged beside the picture and carried, or lost with a note."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from iart.model.bicubic import Bicubic
from iart.pictures.color import alpha_of, set_alpha
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.frame import Crop
from iart.video.open import open_video
from tests.video.clips import WIDTH, picture


def _transparent_left(index: int) -> np.ndarray:
    """RGBA of 48×64 that is opaque from a column on that moves right."""
    opaque = np.arange(WIDTH)[None, :, None] >= WIDTH // 2 + 2 * index
    alpha = np.broadcast_to(np.where(opaque, 255, 0), (48, WIDTH, 1)).astype(np.uint8)
    return np.concatenate([picture(index), alpha], axis=-1)


def _clip(path: Path, codec: str, pixel_format: str) -> Path:
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, 48, pixel_format
        if codec == "prores_ks":
            stream.options = {"profile": "4444"}
        if pixel_format == "yuva420p":
            stream.metadata["alpha_mode"] = "1"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(_transparent_left(index), format="rgba")
            output.mux(stream.encode(frame.reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    return path


def _images(folder: Path) -> Path:
    folder.mkdir()
    for index in range(3):
        Image.fromarray(_transparent_left(index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("alpha")
    return {
        "prores": _clip(folder / "in.mov", "prores_ks", "yuva444p10le"),
        "vp9": _clip(folder / "in.webm", "libvpx-vp9", "yuva420p"),
        "images": _images(folder / "images"),
    }


@pytest.mark.parametrize("kind", ["prores", "vp9", "images"])
def test_readers_give_the_channel_upright_and_cropped(sources, kind):
    with open_video(sources[kind], crop=Crop(40, 20, 20, 8)) as reader:
        assert reader.info.alpha
        frames = list(reader)
    for index, frame in enumerate(frames):
        assert frame.alpha is not None
        assert frame.alpha.shape == (1, 20, 40)
        edge = 12 + 2 * index
        assert frame.alpha[..., : edge - 2].max() < 0.1
        assert frame.alpha[..., edge + 2 :].min() > 0.9


@pytest.mark.parametrize(
    ("kind", "name", "options", "pixel_format"),
    [
        ("prores", "out.mkv", {"codec": "ffv1"}, "yuva420p10le"),
        ("vp9", "out.mkv", {"codec": "ffv1"}, "yuva420p"),
        ("images", "out.mkv", {"codec": "ffv1", "pixel_format": "bgra"}, "bgra"),
        ("vp9", "out.mov", {"codec": "prores", "preset": "4444"}, "yuva444p12le"),
        ("prores", "pictures", {}, "rgba64be"),
        ("images", "pictures", {"size": "2x"}, "rgba"),
    ],
)
def test_it_is_carried_where_the_output_holds_it(
    sources, tmp_path, kind, name, options, pixel_format
):
    output = tmp_path / name
    result = upscale_video(sources[kind], output, Bicubic(), **options)
    assert not any(note.startswith("alpha") for note in result.notes)
    assert not any("--pixel-format yuv4" in note for note in result.notes)  # it would lose it
    with open_video(output) as reader:
        assert (reader.info.pixel_format, reader.info.alpha) == (pixel_format, True)
        frames = list(reader)
    assert len(frames) == 3
    for index, frame in enumerate(frames):
        assert frame.alpha is not None
        factor = frame.data.shape[-1] // WIDTH
        edge = factor * (WIDTH // 2 + 2 * index)
        assert frame.alpha[..., : edge - 3 * factor].max() < 0.1
        assert frame.alpha[..., edge + 3 * factor :].min() > 0.9


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mp4", {}),
        ("out.mkv", {"codec": "x265"}),
        ("out.webm", {"codec": "libvpx-vp9"}),
        ("out.mkv", {"codec": "ffv1", "pixel_format": "yuv420p"}),
        ("pictures", {"pixel_format": "rgb24"}),
    ],
)
def test_other_outputs_lose_it_with_a_note(sources, tmp_path, name, options):
    with plan_upscale(UpscaleRequest(sources["prores"], tmp_path / name, **options)) as plan:
        assert any("the alpha channel is not carried" in note for note in plan.notes)


def test_opaque_pictures_of_a_palette_have_none(tmp_path):
    Image.fromarray(picture(0)).quantize(16).save(tmp_path / "0.png")
    with open_video(tmp_path / "0.png") as reader:
        assert not reader.info.alpha
        assert next(iter(reader)).alpha is None


@pytest.mark.parametrize("name", ["rgba", "bgra", "rgba64be", "yuva420p", "yuva444p10le", "gbrap"])
def test_numbers_come_back_as_they_were_set(name):
    alpha = torch.rand(1, 5, 7)
    picture = set_alpha(av.VideoFrame(7, 5, name), alpha)
    assert picture.format.name == name
    step = 1 / 255 if "64" not in name and "10" not in name else 1 / 1023
    torch.testing.assert_close(alpha_of(picture), alpha, atol=0.51 * step, rtol=0)
