from pathlib import Path
from typing import Any

import pytest

from iart.cli.inputs import make_folder, pair_up
from iart.errors import InputError, OptionsError, OutputError
from iart.upscaling.film.job import source_fingerprint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty files: only names count."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mkv", "b.avi", "season/2.mp4", "season/1.mkv", "season/poster.jpg"):
        touch(name)
    for name in ("shot/1.png", "shot/2.png", "shot/making-of.mp4", "disc/VIDEO_TS.IFO", "1.png"):
        touch(name)
    touch("disc/VTS_01_1.VOB")
    return tmp_path


def touch(name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).touch()


@pytest.mark.parametrize("source", ["a.mkv", "shot", "disc", "shot/*.png", "no.mkv", "1.png"])
def test_one_work_is_taken_as_it_is(here: Path, source: str):
    assert pair_up([source], "out.mkv") == [(source, "out.mkv")]


def test_images_are_one_video(here: Path):
    assert pair_up(["shot/1.png", "shot/2.png"], "o.mp4") == [
        (["shot/1.png", "shot/2.png"], "o.mp4")
    ]


def test_videos_go_to_a_folder_each_under_its_name(here: Path):
    pairs = pair_up(["a.mkv", "b.avi", "season", "shot", "no.mkv"], "out/")
    assert [(str(source), str(target)) for source, target in pairs] == [
        ("a.mkv", "out/a.mkv"),
        ("b.avi", "out/b.mkv"),
        ("season/1.mkv", "out/1.mkv"),
        ("season/2.mp4", "out/2.mp4"),
        ("shot", "out/shot.mkv"),
        ("no.mkv", "out/no.mkv"),
    ]
    assert [str(target) for _, target in pair_up(["season"], "out", container="webm")] == [
        "out/1.webm",
        "out/2.webm",
    ]


def test_one_video_goes_to_a_folder_as_many_do(here: Path):
    """A pattern of the shell may match one file only."""
    assert pair_up(["a.mkv"], "out") == [(Path("a.mkv"), Path("out/a.mkv"))]
    assert pair_up(["disc"], "out/") == [(Path("disc"), Path("out/disc.mkv"))]
    assert pair_up(["disc/VTS_01_1.VOB"], "out/") == [
        (Path("disc/VTS_01_1.VOB"), Path("out/VTS_01_1.mkv"))
    ]


@pytest.mark.parametrize("source", ["shot", "shot/*.png", "1.png"])
def test_images_go_to_a_folder_as_images(here: Path, source: str):
    assert pair_up([source], "out/") == [(source, "out/")]


def test_images_of_videos_are_asked_for(here: Path):
    assert pair_up(["a.mkv"], "out/", images=True) == [("a.mkv", "out/")]
    touch("season/3.v2.mkv")
    assert pair_up(["season"], "out", images=True) == [
        (Path(f"season/{name}"), f"out/{Path(name).stem}/")
        for name in ("1.mkv", "2.mp4", "3.v2.mkv")
    ]
    with pytest.raises(OutputError, match=r"'out\.mkv': pass a folder, or leave --images out"):
        pair_up(["a.mkv"], "out.mkv", images=True)
    with pytest.raises(OutputError, match=r"for pictures pass a folder, -o 'f/1/' --images"):
        pair_up(["a.mkv"], "f/1.png")
    with pytest.raises(OutputError, match=r"for pictures pass a folder, -o 'f/' --images"):
        pair_up(["a.mkv"], "f/%03d.jpg")
    with pytest.raises(OptionsError, match="--images for pictures or --container for videos"):
        pair_up(["a.mkv"], "out", images=True, container="mkv")


def test_numbered_images_are_one_output(here: Path):
    for source in ("a.mkv", "shot"):
        assert pair_up([source], "f/%03d.png") == [(source, "f/%03d.png")]
    with pytest.raises(OutputError, match=r"2 videos to 'f/%03d.png': .* 'f/' --images"):
        pair_up(["season"], "f/%03d.png")
    with pytest.raises(OptionsError, match="leave --container out"):
        pair_up(["a.mkv"], "f/%03d.png", container="mkv")


def test_one_video_goes_to_a_folder_on_request(here: Path):
    assert pair_up(["a.mkv"], "out", container="mp4") == [(Path("a.mkv"), Path("out/a.mp4"))]
    assert pair_up(["a.mkv"], "b.mkv", container="mp4") == [("a.mkv", "b.mkv")]


def test_without_an_output_each_goes_beside_its_source(here: Path):
    def names(*sources: str, **options: Any) -> list[str]:
        return [str(target) for _, target in pair_up(sources, None, **options)]

    assert names("a.mkv", "b.avi") == ["a_x4.mkv", "b_x4.mkv"]
    assert names("season", size="4K", container="mp4") == ["season/1_4K.mp4", "season/2_4K.mp4"]
    assert names("a.mkv", size="640:480") == ["a_640x480.mkv"]
    assert names("a.mkv", images=True) == ["a_x4/"]
    assert names("disc") == ["disc_x4.mkv"]
    assert names("shot/*.png") == names("shot/1.png", "shot/2.png") == ["shot_x4/"]
    assert names("shot", container="mkv") == ["shot_x4.mkv"]
    touch("season/1_x4.mkv")
    assert names("season") == ["season/1_x4.mkv", "season/2_x4.mkv"], "no result is made larger"
    touch("a.avi")
    with pytest.raises(OutputError, match="would both become"):
        names("a.mkv", "a.avi")


def test_what_cannot_be_sorted_out_is_refused(here: Path):
    with pytest.raises(OutputError, match=r"cannot write 2 videos to 'out\.mkv': pass a folder"):
        pair_up(["season"], "out.mkv")
    touch("other/a.avi")
    with pytest.raises(OutputError, match=r"'a\.mkv' and 'other/a\.avi' would both become"):
        pair_up(["a.mkv", "other/a.avi"], "out")
    with pytest.raises(InputError, match="images and videos together"):
        pair_up(["a.mkv", "1.png"], "out")
    with pytest.raises(OptionsError, match="unknown container 'avi'; known are mp4"):
        pair_up(["a.mkv"], "out", container="avi")


def test_a_source_is_known_again_by_the_files_that_count(here: Path):
    before = source_fingerprint("disc")
    assert before != source_fingerprint("a.mkv")
    touch("disc/.out.mkv.job/parts/000000.json")
    assert source_fingerprint("disc") == before
    Path("disc/VTS_01_1.VOB").write_text("more")
    assert source_fingerprint("disc") != before


def test_the_folder_is_made(here: Path):
    assert make_folder("out")
    assert not make_folder("out")
    with pytest.raises(OutputError, match="cannot make the folder 'no/out'"):
        make_folder("no/out")
