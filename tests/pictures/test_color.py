from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Interpolation

from iart.errors import OptionsError
from iart.pictures.chroma import downsample_chroma, upsample_chroma
from iart.pictures.color import (
    Color,
    _stored,
    color_for,
    from_rgb,
    is_supported,
    layout_of,
    plane_numbers,
    to_rgb,
)
from iart.pictures.color_tags import (
    SRGB,
    ColorTags,
    color_name,
    convert_primaries,
    resolve_color,
)
from iart.pictures.resize import lanczos
from tests.video.clips import picture

PLANAR = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
MATRICES = [1, 5, 9]


def _yuv(pixel_format: str, luma: np.ndarray, cb: int, cr: int) -> av.VideoFrame:
    """A frame with the given luma numbers and constant chroma."""
    layout = layout_of(pixel_format)
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.dtype("u1" if layout.depth == 8 else "<u2")
    for plane, values in zip(frame.planes, (luma, cb, cr), strict=True):
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = values
    return frame


def _numbers(frame: av.VideoFrame) -> list[np.ndarray]:
    dtype = np.dtype("u1" if layout_of(frame.format.name).depth == 8 else "<u2")
    return [
        np.frombuffer(memoryview(p), dtype).reshape(p.height, -1)[:, : p.width].astype(int)
        for p in frame.planes
    ]


@pytest.mark.parametrize("pixel_format", PLANAR)
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True])
def test_a_ramp_comes_back_exactly(pixel_format: str, matrix: int, full: bool):
    depth = layout_of(pixel_format).depth
    unit = 2 ** (depth - 8)
    low, high = (0, 2**depth - 1) if full else (16 * unit, 235 * unit)
    ramp = np.tile(np.arange(low, high + 1), (4, 1))
    given = _yuv(pixel_format, ramp, 128 * unit, 128 * unit)
    color = Color(1, 1, matrix, full)
    again = from_rgb(to_rgb(given, color), pixel_format, color)
    for before, after in zip(_numbers(given), _numbers(again), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le", "yuvj420p", "nv12", "p010le"])
def test_black_white_and_grey_keep_their_numbers(pixel_format: str):
    full = layout_of(pixel_format).jpeg
    image = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(8).expand(3, 8, 24)
    frame = from_rgb(image, pixel_format, Color(1, 1, 1, full))
    torch.testing.assert_close(
        to_rgb(frame, Color(1, 1, 1, full)), image, atol=0.6 / 219, rtol=0, check_stride=False
    )


@pytest.mark.parametrize(
    ("matrix", "expected"),
    # 8-bit limited red: Y = 16 + 219 Kr, Cb = 128 − 112 Kr / (1 − Kb), Cr = 128 + 112
    [(1, (63, 102, 240)), (6, (81, 90, 240)), (9, (74, 97, 240))],
)
def test_red_has_the_numbers_of_the_standard(matrix: int, expected: tuple[int, int, int]):
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 4)
    frame = from_rgb(red, "yuv444p", Color(1, 1, matrix, full_range=False))
    assert tuple(int(plane[0, 0]) for plane in _numbers(frame)) == expected
    back = to_rgb(frame, Color(1, 1, matrix, full_range=False))
    torch.testing.assert_close(back, red.contiguous(), atol=0.01, rtol=0)


FORMATS = ["yuv420p", "yuvj420p", "yuv411p", "yuv422p10le", "gray10le", "gbrp", "gbrpf32le"]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_what_a_gpu_computes_needs_no_numbers_of_the_cpu(pixel_format: str):
    """As tensors without numbers show, which cannot be mixed with those of the CPU, nor looked at.

    What is stored of a whole picture, as on a GPU, is what its strips are on the CPU.
    """
    image = torch.rand(3, 38, 46, generator=torch.Generator().manual_seed(2))
    color, meta = Color(5, 6, 6, full_range=False), torch.device("meta")
    frame = from_rgb(image, pixel_format, color)
    there = to_rgb(frame, color, device=meta)
    assert (there.device, there.shape) == (meta, image.shape)
    there = lanczos(convert_primaries(there, 5, 1, 6), 20, 36)
    layout, written = layout_of(pixel_format), color_for(pixel_format, color)
    planes = _stored(there, 0, 20, layout, written)
    assert {plane.device for plane in planes} == {meta}
    assert sum(plane.shape == (20, 36) for plane in planes) >= 1

    whole = _stored(image, 0, 38, layout, written)
    tops = range(0, 38, 4)
    for index, plane in enumerate(whole):
        strips = [_stored(image, y, min(y + 4, 38), layout, written)[index] for y in tops]
        torch.testing.assert_close(torch.cat(strips), plane, rtol=0, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_gpu_gives_the_same_colours(pixel_format: str):
    image = torch.rand(3, 38, 46, generator=torch.Generator().manual_seed(2))
    color = Color(5, 6, 6, full_range=False)
    frame = from_rgb(image, pixel_format, color)
    there = to_rgb(frame, color, device=torch.device("cuda"))
    torch.testing.assert_close(there.cpu(), to_rgb(frame, color), rtol=0, atol=1e-6)
    layout = layout_of(pixel_format)
    for ours, theirs in zip(
        from_rgb(image.cuda(), pixel_format, color).planes, frame.planes, strict=True
    ):
        wide = (plane_numbers(x, layout).astype(np.float64) for x in (ours, theirs))
        difference = np.abs(next(wide) - next(wide)).max()
        assert difference <= (1e-6 if layout.floating else 1)


def test_ycgco_is_inverted():
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1))
    color = Color(1, 1, 8, full_range=True)
    back = to_rgb(from_rgb(image, "yuv444p10le", color), color)
    torch.testing.assert_close(back, image, atol=2e-3, rtol=0)


def test_agrees_with_swscale_where_swscale_is_exact():
    image = picture(3)
    given = av.VideoFrame.from_ndarray(image, format="rgb24")
    yuv = given.reformat(
        format="yuv444p",
        dst_colorspace=1,
        src_color_range=2,
        dst_color_range=1,
        interpolation=Interpolation.ACCURATE_RND
        | Interpolation.FULL_CHR_H_INT
        | Interpolation.BICUBIC,
    )
    ours = (to_rgb(yuv, Color(1, 1, 1, full_range=False)) * 255).round()
    np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), image, atol=2)


@pytest.mark.parametrize(
    "pixel_format", ["rgb24", "bgr24", "bgr0", "rgba", "gbrp", "gbrp10le", "rgb48le", "gbrpf32le"]
)
def test_rgb_stays_rgb(pixel_format: str):
    layout = layout_of(pixel_format)
    top = 255 if layout.depth == 8 else 1023
    image = torch.randint(0, top + 1, (3, 5, 7), generator=torch.Generator().manual_seed(0)) / top
    frame = from_rgb(image, pixel_format, SRGB)
    assert frame.format.name == pixel_format
    back = to_rgb(frame, SRGB)
    torch.testing.assert_close(back, image, atol=1e-5 if layout.depth > 10 else 1e-6, rtol=0)


@pytest.mark.parametrize(("pixel_format", "top"), [("gray", 255), ("gray10le", 1023)])
def test_grey_becomes_three_equal_channels(pixel_format: str, top: int):
    ramp = np.tile(np.linspace(0, top, 16).round(), (4, 1)).astype("u1" if top == 255 else "<u2")
    frame = av.VideoFrame.from_ndarray(ramp, format=pixel_format)
    rgb = to_rgb(frame, Color(1, 1, 1, full_range=True))
    assert torch.equal(rgb[0], rgb[1])
    assert torch.equal(rgb[0], rgb[2])
    np.testing.assert_allclose(rgb[0].numpy(), ramp / top, atol=1e-6)
    assert torch.equal(
        to_rgb(from_rgb(rgb, pixel_format, Color(1, 1, 1, True)), Color(1, 1, 1, True)), rgb
    )


def test_ten_bits_do_not_pass_through_eight():
    ramp = np.tile(np.arange(512, 576), (4, 1))
    frame = _yuv("yuv420p10le", ramp, 512, 512)
    assert len(to_rgb(frame, Color(1, 1, 1, full_range=False))[0, 0].unique()) == 64


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (2, 3), (48, 64)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv411p", "yuv410p", "yuv440p"])
def test_any_size_is_valid(size: tuple[int, int], pixel_format: str):
    color = Color(1, 1, 1, full_range=False)
    image = torch.full((3, *size), 0.25)
    back = to_rgb(from_rgb(image, pixel_format, color), color)
    torch.testing.assert_close(back, image, atol=0.006, rtol=0)


@pytest.mark.parametrize("siting", ["left", "centre"])
@pytest.mark.parametrize("step", [(2, 2), (1, 2), (1, 4)])
def test_chroma_samples_lie_where_the_convention_says(siting, step: tuple[int, int]):
    height, width = 16, 32
    down, right = step
    top, left = (down - 1) / 2, 0.0 if siting == "left" else (right - 1) / 2
    slope = torch.arange(width) * 2.0 + torch.arange(height)[:, None] * 3.0
    small = downsample_chroma(slope[None], step, siting)
    rows = torch.arange(height // down) * down + top
    columns = torch.arange(width // right) * right + left
    expected = columns * 2.0 + rows[:, None] * 3.0
    inner = (
        (slice(None), slice(2, -3), slice(2, -3))
        if down > 1
        else (slice(None), slice(None), slice(2, -3))
    )
    torch.testing.assert_close(small[inner], expected[None][inner])
    large = upsample_chroma(expected[None], (height, width), step, siting)
    edge = 2 * max(step)
    torch.testing.assert_close(large[0, edge:-edge, edge:-edge], slope[edge:-edge, edge:-edge])


def test_smooth_colour_survives_subsampling():
    color = Color(1, 1, 1, full_range=False)
    image = torch.from_numpy(picture(0, 128, 96)).permute(2, 0, 1) / 255
    back = to_rgb(from_rgb(image, "yuv420p10le", color), color)
    difference = (back - image).abs()
    assert difference.mean() < 0.003
    assert difference[:, 3:-3, 3:-3].max() < 0.02


def test_the_frame_says_how_it_is_coloured():
    frame = from_rgb(torch.zeros(3, 4, 4), "yuv420p10le", Color(9, 16, 9, full_range=False))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)
    assert frame.color_range == 1


def test_color_for_moves_between_rgb_and_yuv():
    assert color_for("yuv420p", SRGB) == Color(1, 13, 1, full_range=False)
    assert color_for("yuv420p", Color(9, 16, 0, True)) == Color(9, 16, 9, full_range=False)
    assert color_for("gbrp", Color(6, 6, 6, False)) == Color(6, 6, 0, full_range=True)
    assert color_for("yuvj420p", Color(6, 6, 6, False)) == Color(6, 6, 6, full_range=True)
    assert color_for("yuv420p", Color(6, 6, 6, True)) == Color(6, 6, 6, full_range=True)


def test_what_cannot_be_converted_is_named():
    assert not is_supported(14)
    with pytest.raises(OptionsError, match="matrix 14"):
        from_rgb(torch.zeros(3, 4, 4), "yuv420p", Color(9, 16, 14, full_range=False))
    with pytest.raises(OptionsError, match="yuv421p"):
        from_rgb(torch.zeros(3, 4, 4), "yuv421p", SRGB)


@pytest.mark.parametrize(
    ("size", "rate", "expected"),
    [
        ((1920, 1080), Fraction(25), Color(1, 1, 1, False)),
        ((1280, 536), Fraction(24), Color(1, 1, 1, False)),
        ((720, 576), Fraction(25), Color(5, 6, 5, False)),
        ((720, 480), Fraction(30000, 1001), Color(6, 6, 6, False)),
        ((704, 432), Fraction(25), Color(5, 6, 5, False)),
        ((640, 360), Fraction(30), Color(6, 6, 6, False)),
    ],
)
def test_unspecified_colour_follows_the_source_size(size, rate: Fraction, expected: Color):
    assert resolve_color(ColorTags(), "yuv420p", size, rate) == expected


def test_known_tags_decide_the_unknown_ones():
    sd, rate = (720, 576), Fraction(25)
    assert resolve_color(ColorTags(matrix=1), "yuv420p", sd, rate) == Color(1, 1, 1, False)
    assert resolve_color(ColorTags(primaries=9, transfer=16), "yuv420p10le", sd, rate) == Color(
        9, 16, 9, False
    )
    assert resolve_color(ColorTags(matrix=0, range=2), "yuv420p", sd, rate).matrix == 5
    assert resolve_color(ColorTags(range=2), "yuv420p", sd, rate).full_range
    assert resolve_color(ColorTags(), "yuvj420p", sd, rate).full_range
    assert resolve_color(ColorTags(), "gray", sd, rate).full_range
    assert resolve_color(ColorTags(matrix=5), "bgr0", sd, rate) == SRGB
    assert ColorTags(matrix=1).over(ColorTags(5, 5, 5, 2)) == ColorTags(5, 5, 1, 2)


def test_colour_has_a_name():
    assert color_name(Color(1, 1, 1, False)) == "bt709, limited range"
    assert color_name(Color(9, 16, 9, False)).startswith("bt2020 (transfer smpte2084")
