"""Notes before the work on what an output does not keep of its source."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.packet import Packet
from PIL import Image, ImageCms

from iart.model.bicubic import Bicubic
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.frame import Crop
from iart.video.write.matroska import chapters_not_read
from tests.video.clips import make_clip, picture
from tests.video.outputs import contents

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _notes(source: Path, output: Path, **options: Any) -> str:
    with plan_upscale(UpscaleRequest(source, output, **options)) as plan:
        return "\n".join(plan.notes)


def _images(folder: Path, numbers: list[int], profiles: list[bytes]) -> Path:
    folder.mkdir()
    for number, profile in zip(numbers, profiles, strict=True):
        image = Image.fromarray(picture(number))
        image.save(folder / f"shot_{number:04d}.png", icc_profile=profile)
    return folder


def test_profiles_of_images_go_along_into_images_and_are_lost_in_videos(tmp_path):
    source = _images(tmp_path / "in", [0, 1], [PROFILE] * 2)
    upscale_video(source, tmp_path / "out", Bicubic())
    for name in ("00000000.png", "00000001.png"):
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.info["icc_profile"] == PROFILE
    assert "ICC profile" not in _notes(source, tmp_path / "other")
    assert "ICC profile is lost" in _notes(source, tmp_path / "out.mkv")
    assert "ICC profile is lost" in _notes(source, tmp_path / "other", color="bt2020")


def test_profiles_that_differ_are_lost_with_a_note(tmp_path):
    source = _images(tmp_path / "in", [0, 1], [PROFILE, b""])
    assert "ICC profiles of the images differ" in _notes(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("numbers", "missing"), [([7, 8, 9, 12, 13, 15], "3 of 9"), ([10, 20, 30], None), ([1], None)]
)
def test_numbers_that_are_left_out_are_told(tmp_path, numbers, missing):
    source = _images(tmp_path / "in", numbers, [b""] * len(numbers))
    notes = _notes(source, tmp_path / "out.mkv")
    assert (f"{missing} are missing" in notes) if missing else "images" not in notes


def test_subtitles_that_are_pictures_keep_the_place_of_the_whole_picture(tmp_path):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        text = output.add_mux_stream("hdmv_pgs_subtitle")
        output.start_encoding()
        packet = Packet(b"\x16\x00\x00\x80\x00\x00")
        packet.stream, packet.pts, packet.dts, packet.duration = text, 0, 0, 100
        output.mux(packet)
        for index in range(3):
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        output.mux(video.encode(None))
    place = "placed for the whole picture"
    assert place not in _notes(path, tmp_path / "out.mkv")
    assert place in _notes(path, tmp_path / "out.mkv", crop=Crop(40, 40, 8, 4))


def test_languages_of_chapters_are_told(tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=3, chapters=[(0.0, 0.05, "Eins")])
    assert "chapters" not in _notes(source, tmp_path / "out.mkv")
    data = source.read_bytes()
    assert data.count(b"\x43\x7c\x83und") == 1
    source.write_bytes(data.replace(b"\x43\x7c\x83und", b"\x43\x7c\x83ger"))
    assert "chapters: languages (ger) are lost" in _notes(source, tmp_path / "out.mkv")


@pytest.mark.parametrize("late", [0, 96000])
def test_chapters_of_days_and_of_films_that_begin_late_are_kept_in_mp4(tmp_path, late):
    """In the clock of the sound, the ticks of such a chapter go beyond the 32 bits that it has."""
    marks = [(late, 95_000 + late, "Eins"), (95_000 + late, 95_001 + late, "Zwei")]
    ms = Fraction(1, 1000)
    source = make_clip(
        tmp_path / "in.mkv",
        frames=3,
        pts=[1000 * late + 40 * i for i in range(3)],
        time_base=ms,
        chapters=marks,
        audio=["eng"],
        audio_seconds=0.1,
    )
    notes, moved = _notes(source, tmp_path / "out.mp4"), "chapters: the first begins at 0 in mp4"
    assert (moved in notes) if late else ("chapters" not in notes)
    assert "chapters" not in _notes(source, tmp_path / "out.mkv")
    upscale_video(source, tmp_path / "out.mp4", Bicubic())
    chapters = contents(tmp_path / "out.mp4").chapters
    expected = [(0, "Eins"), (95_000 + late, "Zwei")]
    for (start, _, title), (wanted, name) in zip(chapters, expected, strict=True):
        assert abs(start - wanted) <= ms
        assert title == name


def _element(number: str, *payload: bytes) -> bytes:
    body = b"".join(payload)
    return bytes.fromhex(number) + (len(body) | 1 << 28).to_bytes(4) + body


def test_editions_and_further_names_of_chapters_are_told(tmp_path):
    name = _element("80", _element("85", b"Eins"), _element("437c", b"ger"))
    other = _element("80", _element("85", b"One"), _element("437c", b"eng"))
    edition = _element("45b9", _element("b6", name, other))
    path = tmp_path / "in.mkv"
    chapters = _element("1043a770", edition, edition)
    path.write_bytes(_element("1a45dfa3") + _element("18538067", chapters))
    assert chapters_not_read(path) == (
        "chapters: 2 editions are read as one; of several names of a chapter the first is kept;"
        " languages (eng, ger) are lost",
    )
    path.write_bytes(path.read_bytes()[:40])
    assert isinstance(chapters_not_read(path), tuple)
