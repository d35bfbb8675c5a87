"""What a client may name: everything below the folder, and nothing else."""

from pathlib import Path

import pytest

from iart.errors import InputError, OutputError
from iart.web import views
from iart.web.command import error_of, flags, preview_flags, preview_seconds
from iart.web.folder import Folder
from iart.web.jobs import JobProgress, PageJob

HOSTILE = "<img src=x onerror=alert(1)>.mkv"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "secret.mkv").touch()
    (tmp_path / "films" / "season").mkdir(parents=True)
    for name in ("10.mkv", "9.mkv", HOSTILE, "season/1.mp4", ".hidden.mkv", "notes.txt"):
        (tmp_path / "films" / name).touch()
    (tmp_path / "films" / "link.mkv").symlink_to(tmp_path / "secret.mkv")
    (tmp_path / "films" / "up").symlink_to(tmp_path)
    (tmp_path / "films" / "shot").mkdir()
    (tmp_path / "films" / "shot" / "1.png").symlink_to(tmp_path / "secret.mkv")
    return Folder(tmp_path / "films")


def test_videos_of_the_folder_are_shown_in_natural_order(folder: Folder):
    assert folder.sources() == ["9.mkv", "10.mkv", HOSTILE, "season/1.mp4", "shot"]


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../secret.mkv", "season/../../secret.mkv", "/etc/passwd", "link.mkv"),
        *("up/secret.mkv", ".hidden.mkv", ".iart", "shot", "a\0b", "..\\secret.mkv", "no.mkv"),
    ],
)
def test_nothing_else_is_read(folder: Folder, name: str):
    with pytest.raises(InputError):
        folder.find(name)


@pytest.mark.parametrize(
    "name", ["", "../out.mkv", "/tmp/out.mkv", "up/out.mkv", ".out.mkv", "no/out.mkv", "link.mkv"]
)
def test_nothing_else_is_written(folder: Folder, name: str):
    with pytest.raises(OutputError):
        folder.output(name, "mkv")


def test_names_inside_are_taken(folder: Folder):
    assert folder.find("season/1.mp4") == folder.root / "season" / "1.mp4"
    assert folder.output("season/out", "mkv") == folder.root / "season" / "out.mkv"
    assert folder.output("out.mp4", "mkv") == folder.root / "out.mp4"
    assert folder.model("light") == "light"
    assert folder.model("auto") == "auto"
    with pytest.raises(InputError):
        folder.model("../weights.pth")


def test_uploads_are_videos_and_replace_nothing(folder: Folder):
    for name, kind in (("9.mkv", OutputError), ("page.html", InputError), (".x.mkv", InputError)):
        (file := folder.own / "uploads" / name).touch()
        with pytest.raises(kind):
            folder.take_upload(file)
    (file := folder.own / "uploads" / "new.mkv").write_text("film")
    assert folder.take_upload(file) == "new.mkv"
    assert (folder.root / "new.mkv").read_text() == "film"


def test_values_of_a_form_become_flags_and_never_others():
    values = {"size": "--overwrite", "crop": "auto", "drop": "audio, 3", "square_pixels": True}
    assert flags(values | {"window": "16", "tile": "auto", "overwrite": False}) == [
        *("--crop=auto", "--size=--overwrite", "--square-pixels", "--drop=audio", "--drop=3")
    ]
    with pytest.raises(InputError):
        flags({"size": "x" * 1000})
    with pytest.raises(InputError):
        flags({"size": "a\nb"})
    words = preview_flags(values | {"codec": "ffv1", "start_seconds": "7"}, 3.0, 1.0)
    assert "--start=3.000" in words
    assert "--end=4.000" in words
    assert not [word for word in words if "ffv1" in word or word == "--start=7"]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (0.36, 0.36),
        (3.2, 1.0),  # longer only if that is asked for
        (0.01, 0.05),
        (None, None),
    ],
)
def test_a_preview_is_as_long_as_info_says(told: float | None, seconds: float | None):
    assert preview_seconds(told) == seconds


@pytest.mark.parametrize(
    ("log", "field"),
    [
        ("note: x\nerror: unknown size 'big'; pass 720p\n", "size"),
        ("│ Invalid value for '--crop': a crop is WIDTH:HEIGHT:X:Y, auto or none    │", "crop"),
        ("error: CRF 80 is out of range; x264 takes 0 to 51", "crf"),
        ("error: unknown pixel format 'x'; yuv420p is usual", "pixel_format"),
        ("error: cannot write 'a.mkv': it exists; pass --overwrite to replace it", "overwrite"),
        ("error: cannot read 'a.mkv': no such file. Check the path", None),
        ("Killed", None),
    ],
)
def test_an_error_stands_at_the_field_that_it_is_about(log: str, field: str | None):
    error = error_of(log)
    assert error.field == field
    assert "│" not in str(error)


def test_names_are_text_in_html():
    job = PageJob("0-0", "film", HOSTILE, HOSTILE, ["upscale", HOSTILE])
    pieces = [
        views.jobs_list([(job, JobProgress(state, 3, 9, message=HOSTILE))])
        for state in ("running", "failed", "done")
    ]
    pieces += [views.table([(HOSTILE, HOSTILE)], HOSTILE), views.error(HOSTILE)]
    pieces.append(views.command([HOSTILE]))
    assert not [piece for piece in pieces if "<img src=x" in piece]
