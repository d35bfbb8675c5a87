"""Lists that other tools wrote, in their columns and encodings; all commands read them alike."""

import json
import re
from pathlib import Path

import pytest
import yaml

from iart.data.pairs import read_clip_list
from iart.data.sets import open_training_set
from iart.data.stores.lmdb import LmdbStore, make_lmdb
from iart.data.stores.video import read_video_list
from iart.errors import DataError
from iart.evaluate.clips import find_clips
from iart.evaluate.protocol import read_protocol
from iart.train.options.read import read_options
from tests.data.made import make_pairs, train_options
from tests.train.tiny import tree

ENCODINGS = pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])


@pytest.mark.parametrize(
    ("text", "clips"),
    [
        ("001 10 (128,160,3)\n240 10 (128,160,3)\n", {"001": 10, "240": 10}),
        ("001 10 (128,160,3) 00000000\n240 10 (128,160,3) 00000000\n", {"001": 10, "240": 10}),
        ("00001/0266 (128, 160, 3)\n", {"00001/0266": None}),
        ("001 10 (128,160)\n", {"001": 10}),
        ("00001/0001\n\n00001/0002\n", {"00001/0001": None, "00001/0002": None}),
        ("a film (1999) 7\nanother film\n", {"a film (1999)": 7, "another film": None}),
    ],
    ids=["BasicSR", "KAIR", "mmagic", "no channels", "names", "spaces"],
)
def test_columns_are_no_part_of_names(tmp_path: Path, text: str, clips: dict[str, int | None]):
    path = tmp_path / "list.txt"
    path.write_text(text, newline="\r\n")
    assert read_clip_list(path) == clips


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("001\n001/00000000.png (128, 160, 3)\n", "line 2: '001/00000000.png' is an image"),
        ("001 10 (128;160;3)\n", "line 1: '001 10 (128;160;3)' is no name of a clip, or has col"),
        ("001\n\n/etc\n", "line 3: '/etc' is no name of a clip"),
        ("001\n002\n001 3\n", "names a clip twice: '001' in lines 1 and 3"),
    ],
)
def test_a_line_that_names_no_clip_is_shown(tmp_path: Path, text: str, said: str):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        read_clip_list(path)
    assert str(path) in str(error.value)


@ENCODINGS
def test_training_and_test_read_one_list(tmp_path: Path, encoding: str):
    make_pairs(tmp_path, {"001": 4, "002": 4, "003": 4})
    meta = tmp_path / "list.txt"
    meta.write_text("002 4 (32,32,3) 00000000\n001 (32, 32, 3)\n", encoding, newline="\r\n")
    options = train_options("DVDRecurrentDataset", tmp_path, meta_info_file=meta)
    assert [pair.name for pair in open_training_set(options).pairs] == ["002", "001"]
    keys = {
        "description": "made", "gt": "GT", "lq": "LQ", "degradation": "bi", "colour": "y",
        "clip_list": "list.txt", "frames": 4,
    }  # fmt: skip
    (tmp_path / "made.yml").write_text(yaml.safe_dump(keys), encoding, newline="\r\n")
    protocol = read_protocol(tmp_path / "made.yml")
    assert [clip.name for clip in find_clips(protocol, tmp_path)] == ["002", "001"]


@ENCODINGS
def test_encodings_of_databases_videos_and_options(tmp_path: Path, encoding: str):
    pytest.importorskip("lmdb")
    make_pairs(tmp_path, {"001": 4})
    make_lmdb(tmp_path / "GT", tmp_path / "GT.lmdb")
    meta = tmp_path / "GT.lmdb" / "meta_info.txt"
    meta.write_text(meta.read_text(), encoding, newline="\r\n")
    assert LmdbStore(tmp_path / "GT.lmdb").names() == ["001"]
    videos = tmp_path / "videos.json"
    (tmp_path / "ä.mkv").touch()
    entry = {"name": "ä", "gt_video": "ä.mkv", "lq_video": "ä.mkv", "frame_count": 1}
    videos.write_text(json.dumps([entry], ensure_ascii=False), encoding)
    assert [pair.name for pair in read_video_list(videos, None, None)] == ["ä"]
    (tmp_path / "run.yml").write_text(yaml.safe_dump(tree()), encoding, newline="\r\n")
    assert read_options(tmp_path / "run.yml").name == "tiny"
