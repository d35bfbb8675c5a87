from fractions import Fraction
from typing import Any

import av
import pytest
import torch
from av.filter import Graph, filters_available

from iart.errors import OptionsError
from iart.pictures.color import Color, from_rgb, to_rgb
from iart.pictures.color_tags import can_convert, convert_primaries

BT601 = Color(6, 6, 6, full_range=False)
BT709 = Color(1, 1, 1, full_range=False)


def colors(least: float = 0.2, most: float = 0.8) -> torch.Tensor:
    """A cube of moderate colours as one picture."""
    steps = torch.linspace(least, most, 4)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, 8, 8)


@pytest.mark.parametrize("source", [1, 5, 6, 9, 12, 22])
@pytest.mark.parametrize("target", [1, 5, 6, 9])
def test_greys_keep_their_numbers(source: int, target: int):
    grey = torch.linspace(0, 1, 256).expand(3, 1, 256)
    torch.testing.assert_close(
        convert_primaries(grey, source, target, 1), grey, atol=2e-4, rtol=0, check_stride=False
    )


def test_there_and_back():
    image = colors()
    wide = convert_primaries(image, 1, 9, 1)
    assert (wide - image).abs().max() > 0.03
    torch.testing.assert_close(convert_primaries(wide, 9, 1, 1), image, atol=1e-4, rtol=0)


def test_known_red():
    """SMPTE C's red by its chromaticity: x, y of the light must be those of the standard."""
    red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None, None]
    in_2020 = convert_primaries(red, 6, 9, 1).pow(2.4).flatten()
    # RGB of BT.2020 to XYZ, as the standard's derivation gives it
    to_xyz = torch.tensor(
        [[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0, 0.028073, 1.060985]],
        dtype=torch.float64,
    )
    x, y, z = (to_xyz @ in_2020).tolist()
    assert x / (x + y + z) == pytest.approx(0.630, abs=1e-4)
    assert y / (x + y + z) == pytest.approx(0.340, abs=1e-4)


def test_near_what_ffmpeg_does():
    """The filter mixes light of the camera's curve, not the display's; colours differ little."""
    assert "colorspace" in filters_available
    image = colors(0.3, 0.7)
    frame = from_rgb(image, "yuv444p10le", BT601)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph = Graph()
    given = graph.add_buffer(
        width=8, height=8, format=av.VideoFormat("yuv444p10le"), time_base=Fraction(1, 25)
    )
    change = graph.add("colorspace", "all=bt709:iall=smpte170m:format=yuv444p10")
    sink = graph.add("buffersink")
    given.link_to(change)
    change.link_to(sink)
    graph.configure()
    graph.push(frame)
    pulled: Any = graph.pull()
    theirs = to_rgb(pulled, BT709)
    ours = convert_primaries(image, 6, 1, 6)
    assert (ours - image).abs().max() > 0.015
    torch.testing.assert_close(ours, theirs, atol=0.008, rtol=0)


def test_what_is_not_known_is_refused():
    assert can_convert(11, 11, 16)
    assert not can_convert(11, 1, 1)
    assert not can_convert(9, 1, 16)
    with pytest.raises(OptionsError, match=r"primaries 9 and transfer 16.*--color keep"):
        convert_primaries(colors(), 9, 1, 16)
