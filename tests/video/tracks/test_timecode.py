"""Time codes: the number of the frame that comes first in the output."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.video.tracks.plan import move_timecode
from iart.video.write.muxer import FilmPlan
from tests.video.clips import picture

PAL, NTSC, FILM = Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("label", "elapsed", "rates", "expected"),
    [
        ("10:00:00:00", Fraction(2), (PAL, PAL), "10:00:02:00"),
        ("23:59:59:24", Fraction(1, 25), (PAL, PAL), "00:00:00:00"),
        ("01:00:00:00", Fraction(1001, 1000), (NTSC, FILM), "01:00:01:00"),
        ("01:00:00:15", Fraction(0), (NTSC, FILM), "01:00:00:12"),
        ("01:00:00;02", Fraction(0), (NTSC, 2 * NTSC), "01:00:00;04"),
        # two numbers are left out after 00:59;29, none at ten minutes
        ("00:00:59;29", Fraction(1001, 30000), (NTSC, NTSC), "00:01:00;02"),
        ("00:09:59;29", Fraction(1001, 30000), (NTSC, NTSC), "00:10:00;00"),
        ("00:00:00;00", 107_892 / NTSC, (NTSC, NTSC), "01:00:00;00"),
        ("by hand", Fraction(1), (PAL, PAL), "by hand"),
    ],
)
def test_the_number_of_the_first_frame(label, elapsed, rates, expected):
    assert move_timecode(label, elapsed, *rates) == (expected, ())


def test_every_number_of_an_hour_is_reached_once():
    labels = [
        move_timecode("00:00:00;00", index / NTSC, NTSC, NTSC)[0] for index in range(0, 107_892, 7)
    ]
    assert len(set(labels)) == len(labels)
    assert not [text for text in labels if text[6:] in ("00;00", "00;01") and text[4] != "0"]


def make_timed(path: Path, label: str, rate: Fraction) -> Path:
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata["timecode"] = label
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def planned(source: Path, output: Path, **more: Any) -> tuple[str | None, list[str]]:
    with plan_upscale(UpscaleRequest(source, output, **more)) as plan:
        notes = [note for note in plan.notes if note.startswith("timecode")]
        assert isinstance(plan.target, FilmPlan)
        return plan.target.tracks.video_metadata.get("timecode"), notes


@pytest.mark.parametrize("given", ["in.mov", "in.mkv"])
def test_a_range_begins_at_its_own_number(tmp_path: Path, given: str):
    source = make_timed(tmp_path / given, "10:00:00:00", PAL)
    assert planned(source, tmp_path / "o.mov") == ("10:00:00:00", [])
    assert planned(source, tmp_path / "o.mp4", start_seconds=Fraction(2)) == ("10:00:02:00", [])
    source = make_timed(tmp_path / given, "00:00:59;00", NTSC)
    assert planned(source, tmp_path / "o.mkv", start_seconds=1 / NTSC * 30) == ("00:01:00;02", [])


def test_counting_that_the_rate_does_not_have_is_told(tmp_path: Path):
    code, (note,) = planned(
        make_timed(tmp_path / "in.mkv", "01:00:00;00", FILM), tmp_path / "o.mov"
    )
    assert code == "01:00:00:00"
    assert "drop-frame 01:00:00;00 goes on as 01:00:00:00" in note
