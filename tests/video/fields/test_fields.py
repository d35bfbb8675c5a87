"""Fields and film: each kind is made of known moments, found out, and taken apart again."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from iart.errors import InputError, OptionsError
from iart.pictures.color import Color, to_rgb
from iart.video.frame import Frame
from iart.video.read.describe import describe
from iart.video.read.reader import VideoReader
from tests.video import clips, fielded
from tests.video.fielded import FILM, VIDEO, Moment, moments
from tests.video.read.test_reader import read

PAL = Fraction(25)


def psnr(frame: Frame, expected: Moment, border: int = 0) -> float:
    picture = to_rgb(fielded.as_frame(expected), Color(5, 6, 5, full_range=False))
    inner = slice(border, -border or None)
    error = (frame.data - picture)[:, inner, inner].square().mean().item()
    return 99.0 if error == 0 else -10 * np.log10(error)


def fields(reader: VideoReader) -> str:
    assert reader.info.fields is not None
    return reader.info.fields.describe()


def assert_evenly_timed(frames: list[Frame], rate: Fraction, tolerance: Fraction) -> None:
    start = frames[0].time
    for index, frame in enumerate(frames):
        assert abs(frame.time - start - index / rate) <= tolerance
        assert abs(frame.duration * frame.time_base - 1 / rate) <= tolerance


# What nothing is done to


def test_whole_frames_stay_as_they_are(tmp_path: Path):
    film = moments(40)
    reader, frames = read(fielded.write(tmp_path / "a.mkv", film))
    assert fields(reader) == "progressive"
    assert reader.info.rate == VIDEO
    assert all(psnr(f, m) == 99 for f, m in zip(frames, film, strict=True))


def test_whole_frames_marked_as_interlaced_stay_as_they_are(tmp_path: Path):
    marked = {"qp": "4", "x264-params": "tff=1", "preset": "ultrafast"}
    path = fielded.write(tmp_path / "a.mp4", moments(40), codec="libx264", options=marked)
    off, stored = read(path, deinterlace="off")
    assert off.info.interlaced
    assert off.info.fields is None
    reader, frames = read(path)
    assert fields(reader) == "progressive"
    assert not reader.info.interlaced
    for frame, other in zip(frames, stored, strict=True):
        assert torch.equal(frame.data, other.data)


def test_what_does_not_move_shows_no_fields(tmp_path: Path):
    path = fielded.write(tmp_path / "a.mkv", [fielded.moment(0)] * 20)
    reader, frames = read(path)
    assert "no motion" in fields(reader)
    assert len(frames) == 20
    assert dict(describe(reader.info))["fields"] == fields(reader)


@pytest.mark.parametrize("ending", ["mkv", "mpg"])
def test_soft_telecine_is_film_with_its_times(tmp_path: Path, ending: str):
    film = moments(48)
    path = fielded.soft_telecined(tmp_path / f"a.{ending}", film)
    reader, frames = read(path)
    assert fields(reader) == "soft telecine, film at 23.976 frames/s"
    assert reader.info.rate == FILM
    assert reader.info.variable_rate
    assert len(frames) == 48
    assert reader.losses == []
    start = frames[0].time
    for index, (frame, picture) in enumerate(zip(frames, film, strict=True)):
        shown_fields = index // 2 * 5 + index % 2 * 2
        assert abs(frame.time - start - shown_fields / (2 * VIDEO)) <= Fraction(1, 1000)
        assert psnr(frame, picture) >= 40
    if ending == "mkv":
        assert abs((reader.info.frame_count or 0) - 48) <= 1


# Interlaced


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("kind", ["unmarked", "marked", "10 bits"])
def test_interlaced_gives_one_frame_each(tmp_path: Path, top_first: bool, kind: str):
    moved = moments(80)
    woven = fielded.interlaced(moved, top_first=top_first)
    if kind == "marked":  # as top field first, which may be wrong
        path = fielded.write(tmp_path / "a.mpg", woven, rate=PAL, codec="mpeg2video",
                             options=fielded.MPEG2_INTERLACED)  # fmt: skip
    else:
        path = fielded.write(tmp_path / "a.mkv", woven, rate=PAL, deep=kind == "10 bits")
    reader, frames = read(path)
    order = "top" if top_first else "bottom"
    assert fields(reader) == f"interlaced, {order} field first"
    assert dict(describe(reader.info))["fields"].endswith("→ interpolated, a frame of each picture")
    assert not reader.info.interlaced
    assert reader.info.rate == PAL
    assert len(frames) == 40
    assert_evenly_timed(frames, PAL, Fraction(0 if kind == "marked" else 1, 1000))
    for index in range(2, 38):
        shown = psnr(frames[index], moved[2 * index], 4)
        assert shown > 33
        assert shown > psnr(frames[index], moved[2 * index + 1], 4) + 6
    _, off = read(path, deinterlace="off")
    assert psnr(off[10], moved[20], 4) < 27


@pytest.mark.parametrize("top_first", [True, False])
def test_a_frame_of_every_field(tmp_path: Path, top_first: bool):
    moved = moments(60)
    path = fielded.write(
        tmp_path / "a.mp4",
        fielded.interlaced(moved, top_first=top_first),
        rate=PAL,
        codec="libx264",
        options={"qp": "2", "preset": "ultrafast"},
    )
    reader, frames = read(path, deinterlace="bwdif-field")
    assert reader.info.rate == 2 * PAL
    assert reader.info.frame_count == len(frames) == 60
    assert_evenly_timed(frames, 2 * PAL, Fraction(0))
    assert all(psnr(frames[i], moved[i], 4) > 33 for i in range(4, 56))


def test_fields_are_treated_before_the_picture_is_turned(tmp_path: Path):
    moved = moments(40)
    woven = fielded.interlaced(moved, top_first=True)
    upright, expected = read(fielded.write(tmp_path / "a.mp4", woven, codec="libx264"))
    reader, frames = read(fielded.write(tmp_path / "b.mp4", woven, codec="libx264", rotation=90))
    assert fields(reader) == fields(upright) == "interlaced, top field first"
    for frame, other in zip(frames, expected, strict=True):
        assert torch.equal(frame.data, other.data.rot90(-1, (1, 2)))


def test_cuts_of_interlaced_scenes_are_marked_once(tmp_path: Path):
    dark, bright = moments(31, speed=0.5), moments(29, speed=0.5, seed=1)
    moved = [*dark, *(_brighter(picture) for picture in bright)]
    path = fielded.write(tmp_path / "a.mkv", fielded.interlaced(moved, top_first=True))
    _, frames = read(path)
    assert [i for i, frame in enumerate(frames) if frame.cut] in ([15], [16])


def _brighter(picture: Moment) -> Moment:
    luma, blue, red = picture
    return np.uint8(255) - luma // 2, blue, red


# Film in fields


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(
    "codec", ["mpeg2video", "ffv1, 10 bits", pytest.param("ffv1", marks=pytest.mark.slow)]
)
def test_hard_telecine_comes_back_as_film(tmp_path: Path, top_first: bool, codec: str):
    film = moments(120)
    woven = fielded.telecined(film, top_first=top_first)
    if codec == "mpeg2video":
        path = fielded.write(tmp_path / "a.mpg", woven, codec=codec,
                             options=fielded.MPEG2_INTERLACED)  # fmt: skip
    else:
        path = fielded.write(tmp_path / "a.mkv", woven, deep="10" in codec)
    reader, frames = read(path)
    order = "top" if top_first else "bottom"
    assert fields(reader) == f"hard telecine, film at 23.976 frames/s, {order} field first"
    assert reader.info.rate == FILM
    assert abs((reader.info.frame_count or 0) - 120) <= 2
    assert len(frames) == 120
    assert reader.losses == []
    assert_evenly_timed(frames, FILM, Fraction(2, 1000))
    assert frames[-1].time - frames[0].time == pytest.approx(119 / FILM, abs=0.002)
    # an edge of the file may hold half of a film frame
    scores = [psnr(frame, picture) for frame, picture in zip(frames, film, strict=True)]
    assert min(scores[1:-2]) >= 40


def test_film_that_starts_in_mid_cycle_stands_still_and_lacks_pictures(tmp_path: Path):
    film = [*moments(40), *[fielded.moment(39)] * 20, *moments(60, first=39)]
    woven = fielded.telecined(film)[3:]
    path = fielded.write(tmp_path / "a.mkv", woven, options={"g": "1"})
    lacking = clips.remux(path, tmp_path / "b.mkv", lambda i, p: None if 92 <= i < 99 else p)
    reader, frames = read(lacking)
    assert fields(reader).startswith("hard telecine")
    start, end = frames[0].time, frames[-1].time + frames[-1].duration * frames[-1].time_base
    assert abs(end - start - len(woven) / VIDEO) <= 1 / VIDEO  # in time with sound to the end
    assert all(a.time < b.time for a, b in pairwise(frames))
    # every frame shows the film of its time, to within a frame of video
    for frame in frames[2:-2]:
        at = (frame.time - start + 3 / VIDEO) * FILM
        near = [film[i] for i in range(int(at) - 1, int(at) + 3) if 0 <= i < len(film)]
        assert max(psnr(frame, picture) for picture in near) >= 35


@pytest.mark.parametrize("top_first", [True, False])
def test_film_shifted_by_a_field_is_put_together(tmp_path: Path, top_first: bool):
    film = moments(50)
    woven = [fielded.weave(a, b) if top_first else fielded.weave(b, a) for a, b in pairwise(film)]
    reader, frames = read(fielded.write(tmp_path / "a.mkv", woven, rate=PAL))
    order = "top" if top_first else "bottom"
    assert fields(reader) == f"shifted film, {order} field first"
    assert len(frames) == 49
    assert_evenly_timed(frames, PAL, Fraction(1, 1000))
    scores = [psnr(frames[i], film[i]) for i in range(1, 48)]
    assert min(scores) >= 40


# Kinds mixed


def test_whole_and_interlaced_pictures_mixed(tmp_path: Path):
    whole, moved = moments(60), moments(120, first=60)
    woven = [*whole, *fielded.interlaced(moved, top_first=True)]
    path = fielded.write(tmp_path / "a.mkv", woven, rate=PAL)
    reader, frames = read(path)
    assert fields(reader) == "mixed: 50 % progressive, 50 % interlaced, top field first"
    assert len(frames) == 120
    assert_evenly_timed(frames, PAL, Fraction(1, 1000))
    assert all(psnr(frames[i], whole[i]) == 99 for i in range(52))
    assert all(psnr(frames[60 + i], moved[2 * i], 4) > 33 for i in range(2, 58))


def test_film_and_interlaced_pictures_mixed(tmp_path: Path):
    film, moved = moments(80), moments(120, first=80, speed=2.5)
    woven = [*fielded.telecined(film), *fielded.interlaced(moved, top_first=True)]
    reader, frames = read(fielded.write(tmp_path / "a.mkv", woven))
    assert fields(reader).startswith("mixed: ")
    assert {"hard telecine", "interlaced"} == set(reader.info.fields.shares)  # pyright: ignore[reportOptionalMemberAccess]
    assert reader.info.variable_rate
    assert abs(len(frames) - 140) <= 2
    assert abs((reader.info.frame_count or 0) - 140) <= 4
    end = frames[-1].time + frames[-1].duration * frames[-1].time_base
    assert abs(end - frames[0].time - 160 / VIDEO) <= Fraction(2, 1000)
    assert min(psnr(frames[i], film[i]) for i in range(1, 76)) >= 40
    assert_evenly_timed(frames[:76], FILM, Fraction(2, 1000))
    assert_evenly_timed(frames[84:], VIDEO, Fraction(2, 1000))


def test_fields_in_both_orders_are_refused_by_name(tmp_path: Path):
    moved = moments(120)
    woven = [
        *fielded.interlaced(moved[:60], top_first=True),
        *fielded.interlaced(moved[60:], top_first=False),
    ]
    path = fielded.write(tmp_path / "a.mkv", woven)
    with pytest.raises(InputError, match=r"% .*both orders.*--deinterlace bwdif"):
        VideoReader(path)
    assert len(read(path, deinterlace="bwdif")[1]) == 60
    assert len(read(path, deinterlace="off")[1]) == 60


# Parts, damage, options


@pytest.mark.parametrize(
    ("kind", "deinterlace"),
    [
        ("interlaced", "bwdif-field"),
        ("hard telecine", "auto"),
        ("mixed", "auto"),
        pytest.param("interlaced", "auto", marks=pytest.mark.slow),
        pytest.param("hard telecine", "bwdif-field", marks=pytest.mark.slow),
    ],
)
def test_a_range_gives_the_frames_of_a_whole_pass(tmp_path: Path, kind: str, deinterlace: str):
    woven = {
        "interlaced": lambda: fielded.interlaced(moments(300), top_first=True),
        "hard telecine": lambda: fielded.telecined(moments(120)),
        "mixed": lambda: [
            *fielded.telecined(moments(60)),
            *fielded.interlaced(moments(150), top_first=True),
        ],
    }[kind]()
    path = fielded.write(tmp_path / "a.mkv", woven, codec="mpeg2video",
                         options=fielded.MPEG2_INTERLACED)  # fmt: skip
    whole, frames = read(path, deinterlace=deinterlace)
    for first, last in ((0, 9), (83, 91), (110, 117)):
        start, end = frames[first].time, frames[last].time
        _, part = read(path, deinterlace=deinterlace, start_seconds=start, end_seconds=end)
        assert [f.pts for f in part] == [f.pts for f in frames[first:last]]
        assert part[0].time_base == whole.info.time_base
        for frame, other in zip(part, frames[first:last], strict=True):
            assert torch.equal(frame.data, other.data)
            assert frame.cut == other.cut


def test_damaged_film_goes_on_in_time(tmp_path: Path):
    film = moments(120)
    path = fielded.write(tmp_path / "a.mkv", fielded.telecined(film), codec="mpeg2video",
                         options=fielded.MPEG2_INTERLACED)  # fmt: skip
    damaged = clips.remux(
        path, tmp_path / "b.mkv", lambda i, p: clips.spoiled(p, 4) if 60 <= i < 72 else p
    )
    reader, frames = read(damaged)
    assert reader.losses
    assert all(a.time < b.time for a, b in pairwise(frames))
    end = frames[-1].time + frames[-1].duration * frames[-1].time_base
    assert abs(end - frames[0].time - 120 / FILM) <= 1 / VIDEO
    assert psnr(frames[-4], film[-4]) >= 40


def test_an_unknown_way_is_refused(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mp4")
    with pytest.raises(OptionsError, match=r"deinterlace must be one of auto, off, .*'yadif'"):
        VideoReader(path, deinterlace="yadif")
