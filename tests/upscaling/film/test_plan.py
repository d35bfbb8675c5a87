"""A range of a film, a preview of it, and a look at what would be done."""

import contextlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from iart.errors import IARTError, OptionsError, OutputError
from iart.files.complete import Destination
from iart.model.bicubic import Bicubic
from iart.upscaling import budget as tiling
from iart.upscaling.budget import Tiling
from iart.upscaling.film.forecast import dry_run
from iart.upscaling.film.job import open_job
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.preview import MOST_FRAMES, PIECES, SECONDS, preview_frames, preview_video
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.open import open_video
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
        with pytest.raises(IARTError, match=told):
            dry_run(
                UpscaleRequest(film, tmp_path / "out.mkv", start_seconds=start, end_seconds=end),
                Bicubic(),
            )
        assert list(tmp_path.iterdir()) == []


def test_a_preview_shows_pieces_of_the_whole_film(film: Path, tmp_path: Path):
    request = UpscaleRequest(film, tmp_path / "out.mp4")
    seen = []
    made = preview_video(request, Bicubic(), frames=MOST_FRAMES, progress=seen.append)
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
    assert len(frames) == made.frames == len(seen) == MOST_FRAMES
    assert {b.time - a.time for a, b in pairwise(frames)} == {Fraction(1, 25)}
    # each piece is from its own part of the film
    with open_video(film) as reader:
        small = list(reader)
    for number in range(PIECES):
        first = frames[number * MOST_FRAMES // PIECES].data
        errors = [
            float((frame.data.mean() - first.mean()).abs() + (frame.data.std() - first.std()).abs())
            for frame in small
        ]
        assert number * 150 / PIECES <= int(np.argmin(errors)) < (number + 1) * 150 / PIECES
    with Image.open(made.sheet) as sheet:
        assert sheet.size == (2 * 128, PIECES * 128)
        both = np.asarray(sheet).astype(int)
    assert abs(both[:, :128] - both[:, 128:]).max() <= 1  # the model is the interpolation
    preview_video(request, Bicubic())  # replaces the one before


def test_a_preview_is_as_long_as_the_machine_is_quick(film: Path, tmp_path: Path):
    seconds = {0.001: 96, 0.5: 50, 2.0: 12, 60.0: 3}
    assert {each: preview_frames(each) for each in seconds} == seconds
    assert all(each * frames <= SECONDS for each, frames in seconds.items() if frames > 3)
    # several pieces only if each has frames enough
    for frames, pieces in ((3, 1), (11, 1), (12, 2), (25, 4)):
        request = UpscaleRequest(film, tmp_path / f"{frames}.mp4")
        made = preview_video(request, Bicubic(), frames=frames)
        assert made.frames == frames // pieces * pieces
        with Image.open(made.sheet) as sheet:
            assert sheet.size == (2 * 128, pieces * 128)
    made = preview_video(UpscaleRequest(film, tmp_path / "own.mp4"), Bicubic())
    assert 3 <= made.frames <= MOST_FRAMES


def test_a_preview_of_a_short_film(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=6)
    made = preview_video(UpscaleRequest(source, tmp_path / "out"), Bicubic())
    assert 0 < made.frames <= 6
    assert made.video.name == "out.preview.mkv"


def test_previews_of_two_folders_have_names_of_their_own(tmp_path: Path):
    source = make_clip(tmp_path / "in.mkv", frames=6)
    for name in ("shot.1", "shot.2"):
        made = preview_video(UpscaleRequest(source, f"{tmp_path}/{name}/"), Bicubic())
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
    request = UpscaleRequest(source, tmp_path / "out.mkv")
    sheet = preview_video(request, Bicubic()).sheet
    before = sheet.read_bytes()
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        preview_video(request, Bicubic())
    assert sheet.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_dry_run_checks_and_writes_nothing(film: Path, tmp_path: Path):
    request = UpscaleRequest(film, tmp_path / "out.mp4", start_seconds=Fraction(1))
    lines = dict(dry_run(request, Bicubic()))
    assert lines["output"].endswith("out.mp4, 128x128")
    assert lines["codec"].startswith("libx264, yuv420p")
    assert lines["subtitle 2 (subrip, eng)"] == "to mov_text"
    assert lines["begins"].startswith("at frame 0 of 1")
    assert list(tmp_path.iterdir()) == []
    folder = UpscaleRequest(film, tmp_path / "frames")
    assert dict(dry_run(folder, Bicubic()))["output"].endswith("frames, 128x128, PNG")
    (tmp_path / "out.mp4").touch()
    with pytest.raises(OutputError, match="it exists"):
        dry_run(request, Bicubic())
    with pytest.raises(OptionsError, match="window"):
        UpscaleRequest(film, "out.mkv", window=0)


def test_a_dry_run_foretells_what_the_network_is_shown(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tiling, "free_memory", lambda _: 20 * 10**6)
    request, model = UpscaleRequest(film, tmp_path / "out.mkv"), Bicubic()
    assert "8 frames at once" in dict(dry_run(request, model))["network"]
    assert "4 frames at once" in dict(dry_run(request, model, processes=2))["network"]
    with plan_upscale(request) as plan:
        identity = plan.identity(model)
    with open_job(Destination(tmp_path / "out.mkv"), identity, overwrite=False) as job:
        job.tiling(lambda: Tiling(16, 3, 32))
        assert "16 frames at once" in dict(dry_run(request, model))["network"]


def test_a_plain_file_is_opened_three_times_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the probe, which surveys the fields too; for the tracks; for the pictures."""
    images = [picture(index, 32, 32) for index in range(4)]
    source = make_clip(tmp_path / "in.mkv", images, audio=["eng"], subtitles=["eng"])
    opened: list[str] = []
    before_frame: list[int] = []
    real = av.open

    def counted(file, *args, **kwargs):
        opened.extend([file] if str(file) == str(source.absolute()) else [])
        return real(file, *args, **kwargs)

    class Watching(Bicubic):
        def forward(self, frames: Tensor) -> Tensor:
            before_frame.append(len(opened))
            return super().forward(frames)

    monkeypatch.setattr(av, "open", counted)
    upscale_video(source, tmp_path / "out.mkv", Watching(), preset="ultrafast")
    assert before_frame == [3]
