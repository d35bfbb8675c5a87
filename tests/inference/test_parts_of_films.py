"""A range of a film, a preview of it, and a look at what would be done."""

import contextlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iart.errors import IARTError, OptionsError, OutputError
from iart.inference import tiling
from iart.inference.dry_run import dry_run
from iart.inference.job import Job
from iart.inference.order import Order
from iart.inference.preview import PIECE_FRAMES, PIECES, preview_video
from iart.inference.reading import Reading
from iart.inference.tiling import Tiling
from iart.inference.video import upscale_video
from iart.model.bicubic import Bicubic
from iart.video.images import open_video
from iart.video.pending import Place
from tests.video.clips import make_clip, picture
from tests.video.outputs import contents

MILLISECOND = Fraction(1, 1000)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(
        tmp_path_factory.mktemp("film") / "in.mkv",
        [picture(i, 32, 32, scene=i // 50) for i in range(150)],
        audio=["eng"], subtitles=["eng"],
        chapters=[(0, 1, "one"), (1, 3, "two"), (3, 6, "three")],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_a_range_with_its_sound_and_chapters(film: Path, tmp_path: Path, name: str):
    start, end, output = Fraction(5, 4), Fraction(15, 4), tmp_path / name
    upscale_video(film, output, Bicubic(), start_seconds=start, end_seconds=end, preset="ultrafast")
    with open_video(film) as reader:
        wanted = [frame.time - start for frame in reader if start <= frame.time < end]
    with open_video(output) as reader:
        got = [frame.time for frame in reader]
    assert len(got) == len(wanted)
    assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= Fraction(1, 25)

    source, result = contents(film).of("audio")[0], contents(output).of("audio")[0]
    heard = [
        (time - start, payload)
        for time, payload in zip(source.times, source.payloads, strict=True)
        if start <= time < end
    ]
    assert result.payloads == [payload for _, payload in heard]
    late = [a - b for a, (b, _) in zip(result.times, heard, strict=True)]
    assert max(late) - min(late) <= MILLISECOND
    assert abs(late[0] - (got[0] - wanted[0])) <= MILLISECOND

    chapters = contents(output).chapters
    assert [title for *_, title in chapters] == ["two", "three"]
    assert chapters[0][0] == 0
    assert abs(chapters[0][1] - (3 - start)) <= Fraction(1, 25)
    assert abs(chapters[1][1] - (end - start)) <= Fraction(1, 25)


def test_subtitles_of_a_range(film: Path, tmp_path: Path):
    """One line is shown for [0, 0.2) s."""
    for start, lines in ((Fraction(1, 8), 1), (Fraction(1), 0)):
        output = tmp_path / f"{lines}.mkv"
        upscale_video(
            film, output, Bicubic(), start_seconds=start, end_seconds=start + 1, preset="ultrafast"
        )
        subtitles = contents(output).of("subtitle")[0]
        assert len(subtitles.payloads) == lines
        assert all(abs(time) <= Fraction(1, 25) for time in subtitles.times)


def test_an_empty_range(film: Path, tmp_path: Path):
    for start, end, told in (
        (Fraction(2), Fraction(1), "the end"),
        (Fraction(100), None, "no frame in the range"),
    ):
        with pytest.raises(IARTError, match=told):
            upscale_video(
                film,
                tmp_path / "out.mkv",
                Bicubic(),
                start_seconds=start,
                end_seconds=end,
            )
        assert list(tmp_path.iterdir()) == []


def test_a_preview_shows_pieces_of_the_whole_film(film: Path, tmp_path: Path):
    order = Order.to(tmp_path / "out.mp4", Reading(film))
    seen = []
    made = preview_video(order, Bicubic(), progress=seen.append)
    assert (made.video, made.sheet) == (
        tmp_path / "out.preview.mp4",
        tmp_path / "out.preview.png",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.preview.mp4",
        "out.preview.png",
    ]
    with open_video(made.video) as reader:
        frames = list(reader)
        assert [track.kind for track in reader.info.tracks] == ["video"]
    assert len(frames) == made.frames == len(seen) == PIECES * PIECE_FRAMES
    assert {b.time - a.time for a, b in pairwise(frames)} == {Fraction(1, 25)}
    # each piece is from its own part of the film
    with open_video(film) as reader:
        small = list(reader)
    for number in range(PIECES):
        first = frames[number * PIECE_FRAMES].data
        errors = [
            float((frame.data.mean() - first.mean()).abs() + (frame.data.std() - first.std()).abs())
            for frame in small
        ]
        assert number * 150 / PIECES <= int(np.argmin(errors)) < (number + 1) * 150 / PIECES
    with Image.open(made.sheet) as sheet:
        assert sheet.size == (2 * 128, PIECES * 128)
        both = np.asarray(sheet).astype(int)
    assert abs(both[:, :128] - both[:, 128:]).max() <= 1  # the model is the interpolation
    preview_video(order, Bicubic())  # replaces the one before


def test_a_preview_of_a_short_film(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=6)
    made = preview_video(Order.to(tmp_path / "out", Reading(source)), Bicubic())
    assert 0 < made.frames <= 6
    assert made.video.name == "out.preview.mkv"


def test_previews_of_two_folders_have_names_of_their_own(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=6)
    for name in ("shot.1", "shot.2"):
        made = preview_video(Order.to(f"{tmp_path}/{name}/", Reading(source)), Bicubic())
        assert made.video.name == f"{name}.preview.mkv"
        assert made.sheet.name == f"{name}.preview.png"


def test_a_sheet_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(self: Image.Image, file: Any, *rest: object) -> None:
        with contextlib.ExitStack() as stack:
            if not hasattr(file, "write"):
                file = stack.enter_context(Path(file).open("wb"))
            file.write(b"half")
            raise OSError(28, "No space left on device")

    source = make_clip(tmp_path / "in.mkv", frames=6)
    order = Order.to(tmp_path / "out.mkv", Reading(source))
    sheet = preview_video(order, Bicubic()).sheet
    before = sheet.read_bytes()
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        preview_video(order, Bicubic())
    assert sheet.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_dry_run_checks_and_writes_nothing(film: Path, tmp_path: Path):
    order = Order.to(tmp_path / "out.mp4", Reading(film, start_seconds=Fraction(1)))
    lines = dict(dry_run(order, Bicubic()))
    assert lines["output"].endswith("out.mp4, 128x128")
    assert lines["codec"].startswith("libx264, yuv420p")
    assert lines["subtitle 2 (subrip, eng)"] == "to mov_text"
    assert lines["begins"].startswith("at frame 0 of 1")
    assert list(tmp_path.iterdir()) == []
    folder = Order.to(tmp_path / "frames", Reading(film))
    assert dict(dry_run(folder, Bicubic()))["output"].endswith("frames, 128x128, PNG")
    (tmp_path / "out.mp4").touch()
    with pytest.raises(OutputError, match="it exists"):
        dry_run(order, Bicubic())
    with pytest.raises(OptionsError, match="window"):
        Order.to("out.mkv", Reading(film), window=0)


def test_a_dry_run_foretells_what_the_network_is_shown(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tiling, "free_memory", lambda _: 20 * 10**6)
    order, model = Order.to(tmp_path / "out.mkv", Reading(film)), Bicubic()
    assert "8 frames at once" in dict(dry_run(order, model))["network"]
    assert "4 frames at once" in dict(dry_run(order, model, processes=2))["network"]
    with Job(Place(order.output), order.identity(model), overwrite=False) as job:
        job.tiling(lambda: Tiling(16, 3, 32))
        assert "16 frames at once" in dict(dry_run(order, model))["network"]
