"""Colours from one end of the tool to the other."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from iart.errors import InputError, OptionsError
from iart.model.bicubic import Bicubic
from iart.pictures.color import Color, from_rgb, to_rgb
from iart.pictures.color_tags import convert_primaries
from iart.upscaling.film.conform import check_hdr, plan_color
from iart.upscaling.film.run import upscale_video
from iart.video.open import open_video
from iart.video.write.film import mastering_of
from tests.video.clips import make_clip
from tests.video.outputs import images

BT601, BT709 = Color(6, 6, 6, False), Color(1, 1, 1, False)
PAL = Color(5, 5, 5, False)
HD, SD = (2880, 1920), (640, 480)
PQ = Color(9, 16, 9, False)


@pytest.mark.parametrize(
    ("source", "size", "choice", "expected"),
    [
        (BT601, HD, "auto", BT709),
        (PAL, HD, "auto", BT709),
        (replace(PAL, full_range=True), HD, "auto", Color(1, 1, 1, True)),
        (BT601, SD, "auto", BT601),
        (BT709, HD, "auto", BT709),
        (Color(1, 13, 6, True), HD, "auto", Color(1, 13, 6, True)),
        (Color(4, 4, 6, False), HD, "auto", Color(4, 4, 6, False)),
        (PQ, HD, "auto", PQ),
        (BT601, HD, "keep", BT601),
        (BT601, SD, "bt709", BT709),
        (BT709, HD, "bt601", Color(5, 6, 5, False)),
        (BT709, HD, "bt2020", Color(9, 14, 9, False)),
        (Color(1, 13, 0, True), HD, "bt709", Color(1, 13, 0, True)),
    ],
)
def test_which_colours(source: Color, size, choice: str, expected: Color):
    assert plan_color(replace(images(Path("in")), color=source), size, choice) == expected


def test_images_keep_their_colours():
    info = replace(images(Path("in")), color=BT601)
    assert plan_color(info, HD, is_folder=True) == BT601


@pytest.mark.parametrize(("color", "choice"), [(PQ, "bt709"), (Color(4, 4, 6, False), "bt709")])
def test_colours_that_cannot_be_converted(color: Color, choice: str):
    with pytest.raises(OptionsError, match="cannot be converted to bt709; pass --color keep"):
        plan_color(replace(images(Path("in")), color=color), HD, choice)
    with pytest.raises(OptionsError, match="unknown color 'srgb'; pass auto"):
        plan_color(images(Path("in")), HD, "srgb")


def test_sd_becomes_bt709_in_hd(tmp_path: Path):
    """Colours as shown stay: decoded by their own tags, in one set of primaries."""
    patches = np.repeat([[60, 120, 180], [150, 90, 70], [110, 160, 90]], 40, axis=0)
    image = np.broadcast_to(patches.astype(np.uint8), (150, 120, 3)).copy()
    clip = make_clip(tmp_path / "in.mkv", [image] * 2, color=(6, 6, 6, 1), codec="ffv1", options={})
    shown = {}
    for name, choice in (("auto", "auto"), ("keep", "keep")):
        output = tmp_path / f"{name}.mkv"
        upscale_video(clip, output, Bicubic(), codec="ffv1", color=choice)
        with open_video(output) as reader:
            info, frame = reader.info, next(iter(reader))
        assert info.color == (BT709 if choice == "auto" else BT601)
        shown[name] = convert_primaries(frame.data, info.color.primaries, 1, 1)
    middles = (..., slice(20, 460, 20))
    difference = (shown["auto"] - shown["keep"])[middles].abs()
    assert difference.max() < 2 / 255
    # without the conversion, the same numbers would be other colours
    untouched = to_rgb(_first(tmp_path / "keep.mkv"), BT709)
    assert (shown["auto"] - untouched)[middles].abs().max() > 6 / 255


def _first(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    kind = np.uint16 if "10" in frame.format.name else np.uint8
    return [
        np.frombuffer(memoryview(plane), kind)
        .reshape(plane.height, -1)[:, : plane.width]
        .astype(int)
        for plane in frame.planes
    ]


def _bars_and_ramp(color: Color) -> torch.Tensor:
    """Bars of 75% above, a ramp of greys 16–235 below, exact in limited range."""
    bars = torch.tensor(
        [[3, 3, 3], [3, 3, 0], [0, 3, 3], [0, 3, 0], [3, 0, 3], [3, 0, 0], [0, 0, 3], [0, 0, 0]]
    )
    upper = (bars * 0.25).T.repeat_interleave(28, 1)[:, None].expand(3, 32, 224)
    codes = torch.arange(224).clamp(2, 221) - 2  # 0 … 219: the numbers 16 … 235
    ramp = (codes + 16) / 255 if color.full_range else codes / 219
    return torch.cat([upper, ramp.expand(3, 16, 224)], dim=1)


def _step(pixel_format: str) -> tuple[int, int]:
    """Pixels (down, right) per chroma sample."""
    return (2 if "420" in pixel_format else 1), (1 if "444" in pixel_format else 2)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [(1, 1, 1), (6, 6, 6), (9, 14, 9)], ids=["709", "601", "2020"])
def test_bars_and_ramp_come_back(tmp_path: Path, pixel_format: str, full: bool, matrix):
    color = Color(matrix[0], matrix[1], matrix[2], full)
    _check_bars_and_ramp(tmp_path, color, pixel_format, pixel_format)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("yuv420p", "yuv444p10le"),
        ("yuv420p", "yuv420p10le"),
        ("yuv422p", "yuv420p10le"),
        ("yuv444p", "yuv420p"),
        ("yuv420p10le", "yuv422p"),
        ("yuv422p10le", "yuv444p"),
        ("yuv444p10le", "yuv420p"),
    ],
)
def test_bars_and_ramp_come_back_in_another_format(tmp_path, given: str, wanted: str, full: bool):
    _check_bars_and_ramp(tmp_path, Color(6, 6, 6, full), given, wanted)


def _check_bars_and_ramp(folder: Path, color: Color, given: str, wanted: str) -> None:
    """×4 by bicubic and FFV1: within 1 of the numbers, 2 chroma samples or more from any edge."""
    source = from_rgb(_bars_and_ramp(color), given, color)
    clip, output = _write(folder / "in.mkv", source, color), folder / "out.mkv"
    upscale_video(clip, output, Bicubic(), codec="ffv1", pixel_format=wanted, color="keep")
    with open_video(output) as reader:
        assert (reader.info.color, reader.info.pixel_format) == (color, wanted)
    expected = from_rgb(to_rgb(source, color), wanted, color)
    down, right = (max(a, b) for a, b in zip(_step(given), _step(wanted), strict=True))
    for plane, (before, after) in enumerate(
        zip(_planes(expected), _planes(_first(output)), strict=True)
    ):
        step_y, step_x = _step(wanted) if plane else (1, 1)
        blocks = after.reshape(before.shape[0], 4, before.shape[1], 4)
        for top, bottom, is_bars in ((0, 32, True), (32, 48, False)):
            margin = 2 * down + 2
            rows = range(-(-(top + margin) // step_y), (bottom - margin) // step_y)
            places = [(x, x * step_x) for x in range(before.shape[1])]
            edge = 2 * right + 2
            if is_bars:
                columns = [x for x, at in places if edge <= at % 28 < 28 - edge]
            else:
                columns = [x for x, at in places if 2 + edge <= at < 222 - edge]
            small = before[np.ix_(rows, columns)][:, None, :, None]
            large = blocks[rows][:, :, columns]
            if not is_bars:  # the ramp goes on inside of a block
                large = large.mean(axis=(1, 3), keepdims=True)
            assert np.abs(large - small).max() <= 1, (plane, top)


def _write(path: Path, frame: av.VideoFrame, color: Color) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        context = stream.codec_context
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        context.colorspace, context.color_range = color.matrix, 2 if color.full_range else 1
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(params=[16, 18], ids=["PQ", "HLG"])
def hdr_clip(tmp_path: Path, request) -> Path:
    return make_clip(
        tmp_path / "in.mkv", frames=2, codec="libx265", pixel_format="yuv420p10le",
        color=(9, request.param, 9, 1),
        options={"x265-params": "log-level=none:pools=1:qp=4:max-cll=1000,400:master-display="
                 "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"},
    )  # fmt: skip


def test_hdr_is_refused(tmp_path: Path, hdr_clip: Path):
    with pytest.raises(InputError, match=r"in.mkv' is HDR \((PQ|HLG)\).*--hdr passthrough"):
        upscale_video(hdr_clip, tmp_path / "out.mkv", Bicubic())
    with pytest.raises(OptionsError, match="images cannot say that they are HDR"):
        upscale_video(hdr_clip, tmp_path / "out", Bicubic(), hdr="passthrough")
    with pytest.raises(OptionsError, match="HDR needs 10 bits, yuv420p has fewer"):
        upscale_video(hdr_clip, tmp_path / "out.mkv", Bicubic(), hdr="passthrough", codec="x264")


@pytest.mark.parametrize(
    ("ending", "codec", "preset"),
    [("mkv", "hevc", "ultrafast"), ("mp4", "hevc", "ultrafast"), ("webm", "av1", "12")],
)
def test_hdr_passes_through(tmp_path: Path, hdr_clip: Path, ending: str, codec: str, preset: str):
    output = tmp_path / f"out.{ending}"
    result = upscale_video(hdr_clip, output, Bicubic(), hdr="passthrough", preset=preset, size="2x")
    assert any(note.startswith("hdr:") for note in result.notes)
    with open_video(hdr_clip) as before, open_video(output) as after:
        assert after.info.color == before.info.color
        assert (after.info.codec, after.info.bit_depth) == (codec, 10)
    assert _light(output) == pytest.approx(_light(hdr_clip), abs=1e-4)


def _light(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        found = mastering_of(next(container.decode(video=0)))
    points = [float(value) for point in found.chromaticities for value in point]
    numbers = [*points, *map(float, found.luminance), *map(float, found.content_light)]
    assert len(numbers) == 12
    return numbers


def test_hdr_choices():
    info = replace(images(Path("in")), color=PQ)
    with pytest.raises(OptionsError, match="unknown hdr 'tonemap'"):
        check_hdr(info, "tonemap", "yuv420p10le")
    assert check_hdr(replace(info, color=BT709), "refuse", "yuv420p") == ()
