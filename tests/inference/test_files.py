from pathlib import Path

import pytest

from iart.errors import InputError, OptionsError, OutputError
from iart.inference.files import make_folder, pair_up
from iart.inference.reading import Reading


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


def test_one_video_goes_to_a_folder_on_request(here: Path):
    assert pair_up(["a.mkv"], "out") == [("a.mkv", "out")]
    assert pair_up(["a.mkv"], "out", container="mp4") == [(Path("a.mkv"), Path("out/a.mp4"))]
    assert pair_up(["a.mkv"], "b.mkv", container="mp4") == [("a.mkv", "b.mkv")]


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
    disc, film = Reading("disc"), Reading("a.mkv")
    before = disc.fingerprint()
    assert before != film.fingerprint()
    touch("disc/.out.mkv.job/parts/000000.json")
    assert disc.fingerprint() == before
    Path("disc/VTS_01_1.VOB").write_text("more")
    assert disc.fingerprint() != before


def test_the_folder_is_made(here: Path):
    make_folder("out")
    make_folder("out")
    with pytest.raises(OutputError, match="cannot make the folder 'no/out'"):
        make_folder("no/out")
