"""What headers say beside colours: refused, applied, carried, or noted before the work."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from iart.errors import InputError
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.video.frame import Crop, DolbyVision, Marks, Spherical
from iart.video.open import open_video
from iart.video.read.borders import find_borders
from iart.video.read.describe import describe
from iart.video.read.probe import read_info
from iart.video.write.writer import VideoWriter
from tests.video import boxes, clips

_CROPPED = Crop(58, 34, 2, 6)
_EQUIRECTANGULAR = Spherical("equirectangular", yaw=Fraction(90), data=bytes(20))


def notes(source: Path, output: Path, **options) -> str:
    with plan_upscale(UpscaleRequest(source, output, **options)) as plan:
        return "\n".join(plan.notes)


def written(source: Path, output: Path) -> Path:
    """The frames of the source as they are, with all that is carried beside them."""
    with open_video(source) as reader, VideoWriter(output, like=reader.info, scale=1) as writer:
        for frame in reader:
            writer.write(frame)
    return output


@pytest.mark.parametrize("hdr", ["refuse", "passthrough"])
def test_dolby_vision_without_usual_colours_is_refused_by_name(tmp_path: Path, hdr: str):
    path = clips.make_ten_bit(tmp_path / "a.mp4")
    boxes.add_box(path, boxes.dolby_vision(5, 0))
    assert read_info(path).marks.dolby_vision == DolbyVision("5", has_base=False)
    with pytest.raises(InputError, match=r"'a.mp4' is HDR \(Dolby Vision, profile 5\)"):
        notes(path, tmp_path / "b.mp4", hdr=hdr)


@pytest.mark.parametrize(("profile", "compatibility", "name"), [(7, 6, "7"), (8, 2, "8.2")])
def test_dolby_vision_over_a_base_layer_is_noted(tmp_path, profile, compatibility, name):
    path = clips.make_ten_bit(tmp_path / "a.mp4")
    boxes.add_box(path, boxes.dolby_vision(profile, compatibility))
    lost = f"dolby vision: profile {name} is lost; its base layer (SDR) is enlarged"
    assert lost in notes(path, tmp_path / "b.mp4")
    assert ("dolby vision", f"profile {name}") in describe(read_info(path))


def cropped_clip(path: Path, **more) -> Path:
    """64×48, of which two columns and six rows at the beginning, four and eight at the end go."""
    clips.make_plain(path, **more)
    if path.suffix == ".mkv":
        numbers = {"left": 2, "right": 4, "top": 6, "bottom": 8}
        return boxes.add_to_video(path, [(boxes.PIXEL_CROP[k], v) for k, v in numbers.items()])
    return boxes.add_box(path, boxes.clean_aperture(58, 34, -2, -2))


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov"])
def test_cropping_that_the_container_states_is_applied(tmp_path: Path, ending: str):
    with open_video(clips.make_plain(tmp_path / f"whole.{ending}")) as reader:
        whole = [frame.data for frame in reader]
    path = cropped_clip(tmp_path / f"a.{ending}")
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (58, 34)
        assert reader.info.marks.aperture == _CROPPED
        for frame, data in zip(reader, whole, strict=True):
            assert torch.equal(frame.data, _CROPPED.cut(data))
    with open_video(path, crop=Crop(10, 8, 3, 5)) as reader:
        assert torch.equal(next(iter(reader)).data, Crop(10, 8, 5, 11).cut(whole[0]))
    assert "the file asks to show 58x34 of its 64x48" in notes(path, tmp_path / "b.mkv")
    assert ("cropping", "of 64x48 as the file asks, applied") in describe(read_info(path))
    assert find_borders(path) is None
    again = read_info(written(path, tmp_path / "c.mkv"))
    assert (again.width, again.height, again.marks.aperture) == (58, 34, None)


def test_cropping_turns_with_the_picture(tmp_path: Path):
    with open_video(clips.make_rotated(tmp_path / "whole.mp4")) as reader:
        whole = next(iter(reader)).data
    path = cropped_clip(tmp_path / "a.mp4", rotation=90)
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (34, 58)
        # what was below is to the left
        assert torch.equal(next(iter(reader)).data, Crop(34, 58, 8, 2).cut(whole))


@pytest.mark.parametrize(("source", "output"), [("mkv", "mkv"), ("mp4", "mkv"), ("mp4", "webm")])
def test_stereo_and_spherical_marks_are_carried(tmp_path: Path, source: str, output: str):
    path = marked_clip(tmp_path / f"a.{source}")
    marks = read_info(path).marks
    assert (marks.stereo, marks.spherical) == ("left_right", _EQUIRECTANGULAR)
    assert "is lost" not in notes(path, tmp_path / f"b.{output}")
    assert read_info(written(path, tmp_path / f"b.{output}")).marks == marks


def marked_clip(path: Path) -> Path:
    mp4 = clips.make_plain(path.with_suffix(".mp4"))
    boxes.add_box(boxes.add_box(mp4, boxes.stereo_3d(2)), boxes.spherical(90))
    return mp4 if path.suffix == ".mp4" else written(mp4, path)


@pytest.mark.parametrize(
    ("output", "crop", "why"),
    [
        ("b.mp4", None, "PyAV cannot write it to mp4; mkv and webm keep it"),
        ("frames", None, "images cannot hold it"),
        ("b.mkv", Crop(32, 32, 0, 0), "a part of the picture was cut out"),
    ],
)
def test_marks_that_cannot_be_carried_are_noted(tmp_path: Path, output: str, crop, why: str):
    text = notes(marked_clip(tmp_path / "a.mkv"), tmp_path / output, crop=crop)
    assert f"spherical: the mark (equirectangular) is lost ({why})" in text
    assert f"stereo: the mark (left right) is lost ({why})" in text
    assert "stereo_mode" not in text


def test_light_that_an_encoder_cannot_state_is_noted(tmp_path: Path):
    light = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"qp=4:log-level=none:pools=1:{light}:max-cll=1000,400"}
    path = clips.make_ten_bit(tmp_path / "a.mkv", options=options)
    assert "light: mastering display" in notes(path, tmp_path / "b.mkv", codec="ffv1")
    assert "light:" not in notes(path, tmp_path / "b.mkv", codec="x265")


def test_a_file_without_marks_has_none(tmp_path: Path):
    assert read_info(clips.make_plain(tmp_path / "a.mp4")).marks == Marks()
