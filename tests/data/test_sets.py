"""Sets that option files name: to train and to validate with."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from iart.data.loader import Loader
from iart.data.sets import TrainingSet, inspect, open_training_set, open_validation_set
from iart.errors import DataError
from iart.pictures.degrade import degrade_bi
from iart.train.options.data import SceneOptions, TrainingSetOptions, ValidationSetOptions
from tests.data.made import make_pairs, train_options
from tests.video.clips import pictures


def clips_of(training_set: TrainingSet) -> set[str]:
    return {training_set.sample(i, i, 0).origin.clip for i in range(len(training_set))}


REDS = {"000": 4, "001": 5, "011": 4, "015": 4, "020": 4, "240": 4}


def write_list(root: Path, clips: dict[str, int]) -> Path:
    path = root / "meta_info.txt"
    path.write_text("".join(f"{name} {count} (32,32,3)\n" for name, count in clips.items()))
    return path


def test_reds_leaves_the_validation_clips_out(tmp_path: Path):
    meta = write_list(tmp_path, REDS)
    make_pairs(tmp_path, REDS)

    def opened(**changes) -> TrainingSet:
        options = train_options("REDSRecurrentDataset", tmp_path, meta_info_file=meta, **changes)
        return open_training_set(options)

    assert clips_of(opened()) == {"001", "240"}
    assert len(opened()) == 9
    assert clips_of(opened(val_partition="official")) == set(REDS) - {"240"}
    assert clips_of(opened(test_mode=True)) == {"000", "011", "015", "020"}
    assert inspect(opened()) == []


def test_dvd_takes_every_clip_of_its_list_or_its_folder(tmp_path: Path):
    make_pairs(tmp_path, {"000": 4, "disc 1/title": 5})
    options = train_options("DVDRecurrentDataset", tmp_path)
    assert clips_of(open_training_set(options)) == {"000", "disc 1/title"}
    options.meta_info_file = write_list(tmp_path, {"disc 1/title": 5})
    assert clips_of(open_training_set(options)) == {"disc 1/title"}
    options.meta_info_file.write_text("disc 1/title\n")
    assert clips_of(open_training_set(options)) == {"disc 1/title"}


def test_dvd_in_several_sizes(tmp_path: Path):
    make_pairs(tmp_path)
    options = train_options(
        "DVDMultiScaleDataset", tmp_path, patch_sizes=(8, 16), patch_probs=(0.5, 0.5)
    )
    with Loader(open_training_set(options), batch_size=4, seed=0, workers=1) as loader:
        sizes = {tuple(batch.gt.shape) for batch, _ in zip(loader, range(12), strict=False)}
    assert sizes == {(4, 3, 3, 8, 8), (4, 3, 3, 16, 16)}
    options.patch_sizes = None
    assert open_training_set(options).sample(0, 0, 0).gt.shape[-1] == 16


def test_vimeo_takes_whole_clips(tmp_path: Path):
    make_pairs(tmp_path, {"00001/0001": 7, "00001/0002": 7}, template="im{}.png", first=1)
    (tmp_path / "list.txt").write_text("00001/0002 7 (32,32,3)\n\n00001/0001 7 (32,32,3)\n")
    options = train_options(
        "Vimeo90KRecurrentDataset", tmp_path, num_frame=-1, flip_sequence=True,
        meta_info_file=tmp_path / "list.txt",
    )  # fmt: skip
    training_set = open_training_set(options)
    assert len(training_set) == 2
    sample = training_set.sample(0, 0, 0)
    assert sample.origin.clip == "00001/0002"
    assert sample.origin.frames == (*range(7), *range(6, -1, -1))
    assert sample.lq.shape == (14, 3, 4, 4)
    options.num_frame, options.flip_sequence = 5, False
    assert open_training_set(options).sample(1, 0, 0).origin.frames == (1, 2, 3, 4, 5)


def test_scenes(tmp_path: Path):
    (tmp_path / "a").mkdir()
    for i, image in enumerate(pictures(4, 48, 40)):
        Image.fromarray(image).save(tmp_path / "a" / f"{i}.png")
    options = train_options(
        "SceneDataset", tmp_path, dataroot_gt=tmp_path, include=("*",), exclude=(),
        reduce=(1.0, 2.0), still_share=0.5,
    )  # fmt: skip
    training_set = open_training_set(options)
    assert len(training_set) == 1
    samples = [training_set.sample(0, i, 0) for i in range(20)]
    assert {sample.gt.shape for sample in samples} == {(3, 3, 16, 16)}
    assert {sample.lq.shape for sample in samples} == {(3, 3, 4, 4)}
    assert {"still" in sample.origin.augmentation for sample in samples} == {True, False}
    assert training_set.sample(0, 3, 0).gt.equal(samples[3].gt)
    assert inspect(training_set) == []


# ---- lists of clips


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000 4 (32,32,3)\n001 many\n", "cannot read folder"),
        ("\n", "is empty"),
        ("999 4 (32,32,3)\n", "cannot read folder"),
        ("000 5 (32,32,3)\n", "holds 4 images, but the list of clips says 5"),
        ("000 2 (32,32,3)\n", "too short"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, message: str):
    make_pairs(tmp_path, {"000": 4})
    (tmp_path / "list.txt").write_text(text)
    options = train_options("DVDRecurrentDataset", tmp_path, meta_info_file=tmp_path / "list.txt")
    with pytest.raises(DataError, match=re.escape(message)):
        open_training_set(options)


def test_a_list_that_is_missing(tmp_path: Path):
    make_pairs(tmp_path)
    options = train_options("DVDRecurrentDataset", tmp_path, meta_info_file=tmp_path / "no.txt")
    with pytest.raises(DataError, match=r"cannot read the list of clips '.*no\.txt': No such"):
        open_training_set(options)


def test_a_set_of_validation_clips_alone(tmp_path: Path):
    make_pairs(tmp_path, {"000": 4})
    with pytest.raises(DataError, match="has no clips"):
        open_training_set(train_options("REDSRecurrentDataset", tmp_path))


def test_the_order_of_files_is_natural(tmp_path: Path):
    make_pairs(tmp_path, {"a": 12}, template="{}.png")
    training_set = open_training_set(train_options("DVDRecurrentDataset", tmp_path, num_frame=12))
    assert np.array_equal(training_set.sample(0, 0, 0).lq[:, 2, 0, 0], range(12))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("REDSRecurrentDataset", {"val_partition": "official"}),
        ("Vimeo90KRecurrentDataset", {"num_frame": -1, "flip_sequence": True}),
        ("DVDRecurrentDataset", {}),
        ("DVDMultiScaleDataset", {"patch_sizes": [8, 16], "patch_probs": [0.5, 0.5]}),
    ],
)
def test_sections_of_option_files_open(tmp_path: Path, kind: str, changes: dict[str, Any]):
    make_pairs(tmp_path, {"001": 4, "002": 4})
    section = {
        "type": kind,
        "dataroot_gt": str(tmp_path / "GT"),
        "dataroot_lq": str(tmp_path / "LQ"),
        "io_backend": {"type": "disk"},
        "num_frame": 3,
        "gt_size": 16,
        **changes,
    }
    options = TypeAdapter(TrainingSetOptions).validate_python(section)
    training_set = open_training_set(options)
    assert training_set.sample(0, 0, 0).gt.shape[-1] in (8, 16)


def test_sections_of_other_sets_open(tmp_path: Path):
    make_pairs(tmp_path, {"001": 4})
    scenes = {"type": "SceneDataset", "dataroot_gt": str(tmp_path / "GT"), "gt_size": 16}
    options = TypeAdapter(TrainingSetOptions).validate_python({**scenes, "num_frame": 3})
    assert len(open_training_set(options)) == 1
    clips = {"dataroot_gt": str(tmp_path / "GT"), "dataroot_lq": str(tmp_path / "LQ")}
    for section in (scenes, {"type": "VideoRecurrentTestDataset", **clips}):
        watched = TypeAdapter(ValidationSetOptions).validate_python(section)
        assert open_validation_set(watched).names == ("001",)


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
    (clip,) = open_validation_set(SceneOptions(dataroot_gt=tmp_path, reduce=(1.5, 2.5)))
    assert clip.gt.shape == (7, 3, 24, 32)
    assert clip.lq.equal(degrade_bi(clip.gt))
    assert clip.scored == tuple(range(7))
    (clip,) = open_validation_set(SceneOptions(dataroot_gt=tmp_path, num_frame=9))
    assert clip.scored == tuple(range(9))


def test_clips_that_do_not_pair(tmp_path: Path):
    make_pairs(tmp_path, {"000": 3})
    (tmp_path / "LQ" / "000" / "00000002.png").unlink()
    with pytest.raises(DataError, match="3 frames of ground truth, but 2 of low resolution"):
        open_validation_set(val_options(tmp_path))
