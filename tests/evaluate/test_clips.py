"""Folders of clips: complete, the right set, sizes that fit; or one line that says what not."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from iart.errors import DataError, OptionsError, OutputError
from iart.evaluate.clips import find_clips, make_low_resolution
from iart.evaluate.protocol import Protocol, read_protocol
from iart.files.images import read_image, write_image
from iart.pictures.degrade import degrade_bd
from tests.evaluate.made import make_data, make_protocol, picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    return read_protocol(make_protocol(tmp_path / "made.yml"))


def listed(tmp_path: Path, **changes: object) -> Protocol:
    """A protocol whose clips stand in a file, and of which centre frames are scored."""
    keys: dict[str, object] = {
        "clips": None,
        "clip_list": ["set/meta.txt", "set/list.txt"],
        "clip_count": 2,
        "frames": 3,
        "score_frames": "centre",
    }
    return read_protocol(make_protocol(tmp_path / "listed.yml", **(keys | changes)))


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_clips_are_found_in_order(protocol: Protocol, data: Path):
    a, b = find_clips(protocol, data)
    assert (a.name, b.name) == ("a", "b")
    assert a.size == (48, 64)
    assert a.scored == (0, 1, 2)
    assert names(a.gt) == names(a.lq) == ["000.png", "001.png", "002.png"]
    assert a.results == ()
    assert not a.lr_made


def test_frames_belong_together_by_natural_order(protocol: Protocol, data: Path):
    folder = data / "set" / "GT" / "a"
    for old, new in (("000", "frame8"), ("001", "frame9"), ("002", "frame10")):
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    clip = find_clips(protocol, data)[0]
    assert names(clip.gt) == ["frame8.png", "frame9.png", "frame10.png"]


def test_a_limit_is_of_frames(protocol: Protocol, data: Path):
    a, b = find_clips(protocol, data, limit=2)
    assert len(a.gt) == len(a.lq) == len(b.gt) == 2
    assert len(find_clips(protocol, data, limit=50)[0].gt) == 3
    with pytest.raises(OptionsError, match="limit must be at least 1, got 0"):
        find_clips(protocol, data, limit=0)


def test_what_is_missing_is_said_with_the_layout(protocol: Protocol, data: Path):
    shutil.rmtree(data / "set" / "BIx4")
    with pytest.raises(DataError, match=r"set/BIx4'\. made expects a folder of images .*--make-lr"):
        find_clips(protocol, data)
    shutil.rmtree(data / "set" / "GT")
    with pytest.raises(DataError, match=r"set/GT'\. made expects .*clip \(a, b\) in"):
        find_clips(protocol, data)
    with pytest.raises(DataError, match=r"there is no data folder .*--data"):
        find_clips(protocol, data / "nowhere")


def test_another_set_of_clips_is_refused(protocol: Protocol, data: Path):
    shutil.copytree(data / "set" / "GT" / "a", data / "set" / "GT" / "c")
    with pytest.raises(
        DataError, match=r"exactly the 2 clips of made: too many: c. A score of other"
    ):
        find_clips(protocol, data)
    (data / "set" / "GT" / "b").rename(data / "set" / "GT" / "d")
    with pytest.raises(DataError, match="missing b; too many: c, d"):
        find_clips(protocol, data)


def test_hidden_folders_do_not_count(protocol: Protocol, data: Path):
    (data / "set" / "GT" / ".cache").mkdir()
    assert len(find_clips(protocol, data)) == 2


def test_a_wrong_number_of_frames(protocol: Protocol, data: Path):
    extra = data / "set" / "BIx4" / "b" / "002.png"
    shutil.copy(data / "set" / "BIx4" / "b" / "001.png", extra)
    with pytest.raises(DataError, match=r"BIx4/b' holds 3 low-resolution frames, expected 2"):
        find_clips(protocol, data)
    extra.unlink()
    shutil.rmtree(data / "set" / "GT" / "a")
    (data / "set" / "GT" / "a").mkdir()
    with pytest.raises(DataError, match=r"no ground-truth frames in .*no images"):
        find_clips(protocol, data)


def test_sizes_that_do_not_fit(protocol: Protocol, data: Path):
    place = data / "set" / "GT" / "b" / "001.png"
    write_image(place, picture(0, 48, 60))
    with pytest.raises(DataError, match=r"001.png' is 60×48, but '000.png' beside it is 64×48"):
        find_clips(protocol, data)
    for index in range(2):
        write_image(place.with_name(f"{index:03d}.png"), picture(0, 96, 128))
    with pytest.raises(
        DataError, match=r"clip 'b': frames of 128×96 in .* and of 16×12 in .* 4 times"
    ):
        find_clips(protocol, data)


def test_rows_and_columns_that_fill_no_pixel_are_left_out(tmp_path: Path, protocol: Protocol):
    data = make_data(tmp_path / "data")
    for path in (data / "set" / "GT").glob("*/*.png"):
        write_image(path, picture(1, 52, 68)[:, :50, :67])
    assert find_clips(protocol, data)[0].size == (48, 64)


def test_an_image_that_is_none(protocol: Protocol, data: Path):
    (data / "set" / "GT" / "a" / "001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read image '.*GT/a/001.png'"):
        find_clips(protocol, data)


def test_the_first_place_that_exists_counts(tmp_path: Path, data: Path):
    both = make_protocol(tmp_path / "p.yml", lq=["set/BIx4/X4", "set/BIx4"])
    assert find_clips(read_protocol(both), data)[0].lq[0] == data / "set" / "BIx4" / "a" / "000.png"


# ---- lists of clips, centre frames


def test_the_centre_frame_of_listed_clips(tmp_path: Path):
    data = make_data(tmp_path / "data", {"00001/0266": 3, "00002/0001": 3, "00003/0001": 3})
    (data / "set" / "meta.txt").write_text("00002/0001 7 (256,448,3)\n00001/0266 7 (256,448,3)\n\n")
    second, first = find_clips(listed(tmp_path), data)
    assert (second.name, first.name) == ("00002/0001", "00001/0266")
    assert first.scored == (1,)
    assert names(first.gt) == ["001.png"]
    assert len(first.lq) == 3
    assert [c.name for c in find_clips(listed(tmp_path), data, limit=1)] == ["00002/0001"]


def test_a_ground_truth_of_centre_frames_alone(tmp_path: Path):
    data = make_data(tmp_path / "data", {"x/1": 3, "x/2": 3})
    (data / "set" / "list.txt").write_text("x/1\nx/2\n")
    for index in (0, 2):
        (data / "set" / "GT" / "x" / "1" / f"{index:03d}.png").unlink()
    assert names(find_clips(listed(tmp_path), data)[0].gt) == ["001.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x/1\n", "names 1 clips, but listed has 2"),
        ("x/1\nx/1\n", "names a clip twice"),
        ("x/1\n../y\n", "'../y' is no name of a clip"),
        ("x/1\nx/3\n", "missing x/3"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path: Path, text: str, message: str):
    data = make_data(tmp_path / "data", {"x/1": 3, "x/2": 3})
    with pytest.raises(DataError, match=r"no list of clips '.*meta.txt' \(nor .*list.txt\)"):
        find_clips(listed(tmp_path), data)
    (data / "set" / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        find_clips(listed(tmp_path), data)


# ---- frames made elsewhere


def test_results_need_no_low_resolution_frames(tmp_path: Path, protocol: Protocol, data: Path):
    results = tmp_path / "results"
    shutil.copytree(data / "set" / "GT", results)
    shutil.rmtree(data / "set" / "BIx4")
    clip = find_clips(protocol, data, results=results)[0]
    assert clip.lq == ()
    assert clip.results == tuple(results / "a" / name for name in names(clip.gt))


def test_results_that_do_not_fit(tmp_path: Path, protocol: Protocol, data: Path):
    results = tmp_path / "results"
    with pytest.raises(DataError, match=r"no folder .*results' of frames to score"):
        find_clips(protocol, data, results=results)
    shutil.copytree(data / "set" / "BIx4", results)
    with pytest.raises(DataError, match=r"is 16×12, but its ground truth .* is 64×48"):
        find_clips(protocol, data, results=results)
    (results / "a" / "001.png").unlink()
    with pytest.raises(DataError, match="results/a' holds 2 frames to score, expected 3"):
        find_clips(protocol, data, results=results)
    shutil.rmtree(results / "a")
    with pytest.raises(DataError, match=r"no folder .*results/a' of frames to score"):
        find_clips(protocol, data, results=results)


def test_centre_frames_in_one_folder(tmp_path: Path):
    data = make_data(tmp_path / "data", {"x/1": 3, "x/2": 3})
    (data / "set" / "list.txt").write_text("x/1\nx/2\n")
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("x_1", "x_2"):
        write_image(flat / f"{name}.png", picture(7))
    assert find_clips(listed(tmp_path), data, results=flat)[1].results == (flat / "x_2.png",)


# ---- low-resolution frames made here


@pytest.mark.parametrize("degradation", ["bi", "bd"])
def test_low_resolution_frames_are_made_once(tmp_path: Path, data: Path, degradation: str):
    protocol = read_protocol(make_protocol(tmp_path / "p.yml", degradation=degradation))
    published = read_image(data / "set" / "BIx4" / "a" / "001.png")
    shutil.rmtree(data / "set" / "BIx4")
    shown: list[tuple[int, int]] = []
    assert make_low_resolution(protocol, data, progress=lambda *done: shown.append(done))
    assert shown[-1] == (5, 5)
    clip = find_clips(protocol, data)[0]
    assert clip.lr_made
    expected = degrade_bd(read_image(clip.gt[1])) if degradation == "bd" else published
    assert read_image(clip.lq[1]).equal(expected)
    assert sorted(p.name for p in (data / "set").iterdir()) == ["BIx4", "GT"]
    assert sorted(p.name for p in (data / "set" / "BIx4").iterdir()) == ["a", "b"]
    assert not make_low_resolution(protocol, data)


def test_making_low_resolution_frames_goes_on(protocol: Protocol, data: Path):
    (data / "set" / "BIx4").rename(data / "set" / "BIx4.part")
    (data / "set" / "BIx4.part" / "a" / "001.png").unlink()
    assert make_low_resolution(protocol, data)
    assert len(find_clips(protocol, data)) == 2


def test_low_resolution_frames_of_an_incomplete_ground_truth(protocol: Protocol, data: Path):
    shutil.rmtree(data / "set" / "BIx4")
    (data / "set" / "GT" / "a" / "001.png").unlink()
    with pytest.raises(DataError, match="GT/a' holds 2 frames, expected 3"):
        make_low_resolution(protocol, data)
    shutil.rmtree(data / "set" / "GT")
    with pytest.raises(DataError, match=r"there is no folder .*GT'"):
        make_low_resolution(protocol, data)
    assert not (data / "set" / "BIx4.part").exists()


def test_low_resolution_frames_where_nothing_can_be_written(protocol: Protocol, data: Path):
    shutil.rmtree(data / "set" / "BIx4")
    (data / "set" / "BIx4.part").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*BIx4"):
        make_low_resolution(protocol, data)


def test_headers_are_enough(protocol: Protocol, data: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", refuse)
    assert len(find_clips(protocol, data)) == 2
