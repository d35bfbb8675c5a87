import errno
import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from iart.errors import InputError
from iart.video.dvd.disc import find_title, find_titles, one_per_title
from iart.video.dvd.ifo import read_sheet
from iart.video.open import open_video
from iart.video.read.describe import describe
from iart.video.tracks.choose import open_source, plan_tracks, read_start
from iart.video.write.codecs import CONTAINERS
from tests.video.clips import make_plain
from tests.video.discs import (
    SECTOR,
    insert,
    make_ifo,
    make_navigation,
    make_subtitle_sector,
    make_vob,
    scramble,
)

STEP = 3600  # of 25 frames/s, in ticks of 1/90000 s


def touch(folder: Path, *names: str) -> Path:
    """Files in which only names and sizes count."""
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).write_bytes(b"x" * (20 if name.startswith("VTS_02") else 10))
    return folder


def times_and_sound(path: Path) -> tuple[list[int], list[int]]:
    """Presentation times of frames and of packets of sound, in ticks."""
    with open_video(path) as reader:
        frames = [frame.pts for frame in reader]
        assert reader.losses == []
    with open_source(path) as container:
        sound = [p.pts for p in container.demux(container.streams.audio[0]) if p.pts is not None]
    return frames, sound


def test_clocks_that_start_again_go_on(tmp_path: Path):
    first, second = make_vob(tmp_path / "1.vob"), make_vob(tmp_path / "2.vob", 30)
    alone = [times_and_sound(path) for path in (first, second)]
    assert abs(alone[1][0][0] - alone[0][0][0]) < STEP
    first.rename(tmp_path / "VTS_01_1.VOB")
    second.rename(tmp_path / "VTS_01_2.VOB")
    frames, sound = times_and_sound(tmp_path / "VTS_01_1.VOB")
    assert [b - a for a, b in pairwise(frames)] == [STEP] * 59
    # sound of the second part lies as before against its pictures
    moved = frames[30] - alone[1][0][0]
    assert sound == alone[0][1] + [time + moved for time in alone[1][1]]


def test_clocks_that_start_again_inside_a_file_go_on(tmp_path: Path):
    parts = [make_vob(tmp_path / f"{i}.vob", 20 * i, 20) for i in range(3)]
    path = tmp_path / "home.vob"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = times_and_sound(path)
    assert [b - a for a, b in pairwise(frames)] == [STEP] * 59


def test_navigation_says_when_pictures_end(tmp_path: Path):
    late = 9000  # the unit is said to end later than its last picture
    for part in (1, 2):
        path = make_vob(tmp_path / "part.vob", 20 * part, 20)
        start = times_and_sound(path)[0][0]
        insert(path, 0, make_navigation(0, start, start + 20 * STEP + late))
        path.rename(tmp_path / f"VTS_01_{part}.VOB")
    with open_video(tmp_path / "VTS_01_1.VOB") as reader:
        frames = [frame.pts for frame in reader]
    assert frames[20] - frames[0] == 20 * STEP + late


def test_times_that_go_on_are_left_alone(tmp_path: Path):
    path = make_vob(tmp_path / "one.vob")
    with open_video(path) as reader, av.open(str(path)) as plain:
        decoded = [frame.pts for frame in plain.decode(video=0)]
        assert [frame.pts for frame in reader] == decoded


def test_which_title_a_name_stands_for(tmp_path: Path):
    folder = touch(
        tmp_path / "disc" / "VIDEO_TS", "VIDEO_TS.IFO", "VIDEO_TS.VOB", "VTS_01_0.IFO",
        "VTS_01_0.BUP", "VTS_01_0.VOB", "VTS_01_1.VOB", "VTS_01_2.VOB", "VTS_01_3.VOB",
        "VTS_02_0.VOB", "VTS_02_1.VOB",
    )  # fmt: skip
    films = [[f.name for f in title.files] for title in find_titles(folder)]
    assert films == [["VTS_01_1.VOB", "VTS_01_2.VOB", "VTS_01_3.VOB"], ["VTS_02_1.VOB"]]
    for name in (
        "", "..", "VIDEO_TS.IFO", "VTS_01_0.IFO", "VTS_01_1.VOB", "VTS_01_2.VOB", "VTS_01_*.VOB",
    ):  # fmt: skip
        title = find_title(f"{folder}/{name}")
        assert title is not None
        assert [f.name for f in title.files] == films[0]
        assert [f.name for f in title.sheets] == ["VTS_01_0.IFO", "VTS_01_0.BUP"]
    other = find_title(folder / "VTS_02_1.VOB")
    menu = find_title(folder / "VTS_01_0.VOB")
    assert other is not None
    assert other.files == (folder / "VTS_02_1.VOB",)
    assert menu is not None
    assert menu.files == (folder / "VTS_01_0.VOB",)
    assert not menu.sheets
    assert find_title(tmp_path / "none.vob") is None
    assert find_title(make_plain(tmp_path / "a.mkv")) is None
    assert find_title(tmp_path) is None


def test_small_letters_are_as_good(tmp_path: Path):
    folder = touch(tmp_path / "video_ts", "vts_01_0.vob", "vts_01_1.vob")
    title = find_title(tmp_path)
    assert title is not None
    assert title.files == (folder / "vts_01_1.vob",)


def test_a_missing_part_is_named(tmp_path: Path):
    touch(tmp_path, "VTS_01_1.VOB", "VTS_01_3.VOB")
    with pytest.raises(InputError, match=r"VTS_01_2\.VOB is missing"):
        open_video(tmp_path)


def test_lists_of_shells_name_each_title_once():
    names = [f"d/VTS_0{title}_{part}.VOB" for title in (1, 2) for part in range(3)]
    assert one_per_title(["a.mkv", *names]) == ["a.mkv", "d/VTS_01_1.VOB", "d/VTS_02_1.VOB"]
    assert one_per_title(["d/VTS_01_0.VOB"]) == ["d/VTS_01_0.VOB"]


@pytest.mark.parametrize("mark", [b"CD001", b"BEA01"])
def test_images_of_discs_are_refused_by_that_name(tmp_path: Path, mark: bytes):
    """In one of them FFmpeg would find the first stream that there is."""
    film = make_vob(tmp_path / "a.vob").read_bytes()
    image = tmp_path / "film.iso"
    image.write_bytes(bytes(16 * SECTOR) + b"\1" + mark.ljust(SECTOR - 1, b"\0") + film)
    with pytest.raises(InputError, match=r"'film.iso': it is the image of a disc\. Mount it"):
        open_video(image)


def test_subtitles_that_begin_late_are_found_without_a_sheet(tmp_path: Path):
    path = make_vob(tmp_path / "long.vob", count=250)
    sectors = path.stat().st_size // SECTOR
    insert(path, sectors - 2, make_subtitle_sector(9 * 90000, 10 * 90000, 0))
    with open_source(path) as source:
        plans = plan_tracks(read_start(source, 0), CONTAINERS["mkv"])
    assert [plan.codec for plan in plans.carried] == ["ac3", "dvd_subtitle"]
    assert plans.notes == (
        "subtitle 2 (dvd_subtitle): its colours are unknown (the IFO tells them)",
    )


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A film of two VOBs with subtitles late in the second, a sheet, and another title."""
    folder = tmp_path / "VIDEO_TS"
    folder.mkdir()
    make_vob(folder / "VTS_01_1.VOB")
    second = make_vob(folder / "VTS_01_2.VOB", 30)
    insert(second, 3, make_subtitle_sector(60000, 90000, 1))
    make_vob(folder / "VTS_02_1.VOB", 0, 5)
    make_ifo(
        folder / "VTS_01_0.IFO",
        cells=[(0, 19, b"\0\0\1\x45"), (20, 29, b"\0\0\0\x60"), (30, 40, b"\0\0\1\x43")],
        programs=[1, 2],
        subtitles=["fr", "de"],
    )
    return folder


def test_the_sheet_tells_languages_chapters_and_length(disc: Path):
    with open_video(disc) as reader:
        info = reader.info
    start = info.start_seconds
    # 1 s 5 frames, 20 frames, 1 s 3 frames, of 25 frames/s
    assert info.duration_seconds == Fraction(78, 25)
    assert [(t.kind, t.language) for t in info.tracks] == [
        ("video", None), ("audio", "eng"), ("subtitle", "fre"), ("subtitle", "ger"),
    ]  # fmt: skip
    assert [c.title for c in info.chapters] == ["Chapter 01", "Chapter 02"]
    shown = [c.start_seconds - min(start, info.chapters[0].start_seconds) for c in info.chapters]
    assert shown == [0, Fraction(30, 25)]
    lines = dict(describe(info))
    assert lines["title"].startswith("2 VOB")
    assert "VTS_02_1.VOB" in lines["others"]


def test_subtitles_have_the_colours_of_the_sheet(disc: Path):
    with open_source(disc / "VTS_01_1.VOB") as container:
        header = container.streams.subtitles[0].codec_context.extradata
    assert header is not None
    size, palette = header.decode().splitlines()
    assert size == "size: 720x480"
    colours = palette.removeprefix("palette: ").split(", ")
    assert len(colours) == 16
    assert colours[:2] == ["000000", "0c0c0c"]


def test_colours_of_a_sheet_are_those_of_bt601(tmp_path: Path):
    data = bytearray(make_ifo(tmp_path / "VTS_01_0.IFO").read_bytes())
    at = 2 * 2048 + 16 + 0xA4
    for index, color in enumerate(((81, 240, 90), (145, 34, 54), (41, 110, 240), (235, 128, 128))):
        data[at + 4 * index : at + 4 * index + 4] = bytes([0, *color])
    sheet = read_sheet(bytes(data))
    assert sheet is not None
    colours = sheet.subtitle_header.decode().split("palette: ")[1].split(", ")[:4]
    assert colours == ["fe0000", "00ff01", "0000ff", "ffffff"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_sheet_that_is_cut_off_says_nothing(disc: Path, share: float):
    data = (disc / "VTS_01_0.IFO").read_bytes()
    assert read_sheet(data[: round(len(data) * share)]) is None
    (disc / "VTS_01_0.IFO").write_bytes(data[: round(len(data) * share)])
    with open_video(disc) as reader:
        assert reader.info.chapters == ()


def test_the_copy_of_a_sheet_is_as_good(disc: Path):
    (disc / "VTS_01_0.IFO").rename(disc / "VTS_01_0.BUP")
    with open_video(disc) as reader:
        assert len(reader.info.chapters) == 2


def test_scenes_inside_each_other_have_no_chapters(tmp_path: Path):
    path = make_ifo(
        tmp_path / "VTS_01_0.IFO", cells=[(0, 9, b"\0\0\1\x40"), (5, 19, b"\0\0\1\x40")]
    )
    sheet = read_sheet(path.read_bytes())
    assert sheet is not None
    assert sheet.duration_seconds is None
    assert sheet.chapter_starts == ()


def test_ntsc_seconds_are_a_little_longer(tmp_path: Path):
    path = make_ifo(tmp_path / "VTS_01_0.IFO", cells=[(0, 9, b"\x01\x10\0\xc0")])
    sheet = read_sheet(path.read_bytes())
    assert sheet is not None
    assert sheet.duration_seconds == Fraction(4200 * 1001, 1000)


def test_encrypted_films_are_named(disc: Path):
    scramble(disc / "VTS_01_1.VOB")
    with pytest.raises(InputError, match=r"VTS_01_1\.VOB.*encrypted \(CSS\); decrypt it"):
        open_video(disc)


class Scratched(io.BytesIO):
    """A file on a disc some of whose sectors cannot be read; no real file does that on demand."""

    bad = range(1 << 40)

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        if max(at, self.bad.start) < min(at + (size or 0), self.bad.stop):
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def open_scratched(path: Path, mode: str) -> Scratched:
    """Instead of `Path.open`."""
    assert mode == "rb"
    with open(path, mode) as file:  # noqa: PTH123
        return Scratched(file.read())


def test_discs_that_cannot_be_read_are_named(disc: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "open", open_scratched)
    with pytest.raises(InputError, match="damaged, or encrypted"):
        open_source(disc / "VTS_01_1.VOB")


def test_single_sectors_that_cannot_be_read_are_read_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_vob(tmp_path / "one.vob", count=80)
    *_, bad, _ = (at for at, kind in enumerate(path.read_bytes()[17::SECTOR]) if kind == 0xE0)
    monkeypatch.setattr(Scratched, "bad", range(bad * SECTOR, (bad + 1) * SECTOR))
    monkeypatch.setattr(Path, "open", open_scratched)
    with open_video(path) as reader:
        assert 60 < len(list(reader)) < 80
        assert reader.losses


def test_pictures_without_a_time_are_counted(tmp_path: Path):
    first, second = (make_vob(tmp_path / f"VTS_01_{i + 1}.VOB", 30 * i) for i in range(2))
    data = bytearray(second.read_bytes())
    packet = data.index(b"\0\0\1\xe0")
    data[packet + 7] = 0  # no time, nor anything else in its header
    second.write_bytes(data)
    with open_video(first) as reader:
        frames = [frame.pts for frame in reader]
    assert len(frames) == 60
    assert frames[-1] - frames[0] == 59 * STEP
