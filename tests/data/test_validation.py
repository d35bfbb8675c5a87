from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from iart.data.sets import inspect
from iart.data.validation import open_validation_set
from iart.errors import DataError
from iart.pictures.degrade import degrade_bi
from tests.data.made import make_pairs
from tests.video.clips import pictures


def val_options(root: Path, **changes: Any) -> SimpleNamespace:
    known: dict[str, Any] = {
        "type": "VideoRecurrentTestDataset",
        "dataroot_gt": root / "GT",
        "dataroot_lq": root / "LQ",
        "meta_info_file": None,
        "num_frame": -1,
        "cache_data": False,
    }
    return SimpleNamespace(**{**known, **changes})


def test_whole_clips(tmp_path: Path):
    make_pairs(tmp_path, {"000": 3, "011": 4})
    clips = open_validation_set(val_options(tmp_path))
    assert (len(clips), clips.names) == (2, ("000", "011"))
    clip = clips[1]
    assert (clip.name, clip.scored) == ("011", (0, 1, 2, 3))
    assert clip.lq.shape == (4, 3, 8, 8)
    assert clip.lq.repeat_interleave(4, -1).repeat_interleave(4, -2).equal(clip.gt)
    assert [c.name for c in clips] == ["000", "011"]
    short = open_validation_set(val_options(tmp_path, num_frame=2))[1]
    assert short.lq.equal(clip.lq[:2])
    assert short.gt.equal(clip.gt[:2])


def test_clips_in_memory_are_read_once(tmp_path: Path):
    make_pairs(tmp_path, {"000": 3})
    kept = open_validation_set(val_options(tmp_path, cache_data=True))
    read = open_validation_set(val_options(tmp_path))
    first = kept[0]
    (tmp_path / "GT" / "000" / "00000001.png").unlink()
    assert kept[0] is first
    (problem,) = inspect(kept)
    assert "00000001.png" in problem
    with pytest.raises(DataError, match=r"00000001\.png"):
        _ = read[0]


def test_of_vimeo_the_frame_in_the_middle_is_scored(tmp_path: Path):
    make_pairs(tmp_path, {"1/1": 7, "1/2": 7}, template="im{}.png", first=1)
    (tmp_path / "list.txt").write_text("1/2 7 (32,32,3)\n")
    options = val_options(
        tmp_path, type="VideoTestVimeo90KDataset", meta_info_file=tmp_path / "list.txt"
    )
    (clip,) = open_validation_set(options)
    assert (clip.name, clip.scored, len(clip.lq), len(clip.gt)) == ("1/2", (3,), 7, 1)
    assert clip.gt[0, 2].unique().tolist() == [3]


def test_scenes_make_their_low_resolution(tmp_path: Path):
    (tmp_path / "a").mkdir()
    for i, image in enumerate(pictures(9, 70, 50)):
        Image.fromarray(image).save(tmp_path / "a" / f"{i}.png")
    options = SimpleNamespace(
        type="SceneDataset", dataroot_gt=tmp_path, include=("*",), exclude=(), reduce=(1.5, 2.5),
        degradation=None,
    )  # fmt: skip
    (clip,) = open_validation_set(options)
    assert clip.gt.shape == (7, 3, 24, 32)
    assert clip.lq.equal(degrade_bi(clip.gt))
    assert clip.scored == tuple(range(7))


def test_clips_that_do_not_pair(tmp_path: Path):
    make_pairs(tmp_path, {"000": 3})
    (tmp_path / "LQ" / "000" / "00000002.png").unlink()
    with pytest.raises(DataError, match="3 frames of ground truth, but 2 of low resolution"):
        open_validation_set(val_options(tmp_path))
