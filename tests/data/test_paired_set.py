import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.samples import Sample
from iart.data.sets import inspect
from iart.errors import DataError
from tests.data.made import make_pairs, make_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pairs(tmp_path)


def check(sample: Sample) -> None:
    """The ground truth is the low resolution four times larger, and both are what `origin` says."""
    t, _, h, w = sample.lq.shape
    enlarged = sample.lq.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert sample.gt.shape == (t, 3, 4 * h, 4 * w)
    assert enlarged.equal(sample.gt)
    origin = sample.origin
    assert origin.size == (h, w)
    assert sample.lq[:, 2, 0, 0].tolist() == list(origin.frames)
    plain = {"y": sample.lq[0, 0], "x": sample.lq[0, 1]}
    if "transpose" in origin.augmentation:
        plain = {axis: plane.T for axis, plane in plain.items()}
    rows, columns = plain["y"][:, 0] // 8, plain["x"][0] // 8
    if "mirror_y" in origin.augmentation:
        rows = rows.flip(0)
    if "mirror_x" in origin.augmentation:
        columns = columns.flip(0)
    assert rows.tolist() == list(range(origin.top, origin.top + h))
    assert columns.tolist() == list(range(origin.left, origin.left + w))


def test_samples_are_pairs_of_the_place_they_name(root: Path):
    training_set = make_set(root, use_hflip=True, use_rot=True, random_reverse=True)
    samples = [training_set.sample(i % len(training_set), i, 0) for i in range(100)]
    for sample in samples:
        check(sample)
    origins = [sample.origin for sample in samples]
    assert {o.clip for o in origins} == {"000", "001", "011"}
    assert {(o.top, o.left) for o in origins} == {(y, x) for y in range(5) for x in range(5)}
    assert len({o.augmentation for o in origins}) == 8
    assert {o.frames[1] - o.frames[0] for o in origins} == {1, -1}


def test_an_item_is_a_frame_at_which_a_sample_starts(root: Path):
    training_set = make_set(root)
    assert len(training_set) == 5 + 4 + 6
    starts = [training_set.sample(i, 0, 0).origin for i in range(len(training_set))]
    assert [o.frames[0] for o in starts[:3] + starts[5:7] + starts[9:13]] == [
        *range(3),
        0,
        1,
        *range(4),
    ]
    for late in (3, 4, 7, 8, 13, 14):  # drawn anew, within the clip
        assert max(starts[late].frames) <= {"000": 4, "001": 3, "011": 5}[starts[late].clip]


def test_equal_arguments_make_equal_samples(root: Path):
    def make(index: int, seed: int, attempt: int = 0) -> Sample:
        return make_set(root, use_hflip=True).sample(4, index, seed, attempt=attempt)

    assert make(7, 1).origin == make(7, 1).origin
    assert make(7, 1).gt.equal(make(7, 1).gt)
    others = {make(i, 0).origin for i in range(20)} | {make(7, 0, a).origin for a in range(1, 20)}
    assert len(others) > 20


def test_without_options_nothing_is_flipped(root: Path):
    training_set = make_set(root)
    assert {training_set.sample(0, i, 0).origin.augmentation for i in range(20)} == {"as it is"}
    assert {training_set.sample(0, i, 0).origin.frames for i in range(20)} == {(0, 1, 2)}
    mirrored = make_set(root, use_hflip=True)
    views = {mirrored.sample(0, i, 0).origin.augmentation for i in range(20)}
    assert views == {"as it is", "mirror_x"}


def test_intervals_that_fit(root: Path):
    training_set = make_set(root, intervals=(1, 2, 9))
    steps = {training_set.sample(0, i, 0).origin.frames for i in range(30)}
    assert steps == {(0, 1, 2), (0, 2, 4)}
    short = {training_set.sample(5, i, 0).origin.frames for i in range(30)}
    assert short == {(0, 1, 2)}


def test_whole_clips_and_flipped_sequences(root: Path):
    whole = make_set(root, num_frame=-1, flip_sequence=True)
    assert len(whole) == 3
    assert whole.sample(1, 0, 0).origin.frames == (0, 1, 2, 3, 3, 2, 1, 0)
    check(whole.sample(1, 0, 0))
    middle = make_set(root, num_frame=3, whole_clips=True)
    assert [middle.sample(i, 0, 0).origin.frames[0] for i in range(3)] == [1, 0, 1]


def test_one_size_for_all_samples_of_a_step(root: Path):
    training_set = make_set(root, sides=(8, 16, 32), shares=(0.5, 0.3, 0.2))
    sizes = [training_set.sample(0, i, 0, first=i // 8).origin.size[0] for i in range(8 * 40)]
    steps = np.reshape(sizes, (40, 8))
    assert (steps == steps[:, :1]).all()
    assert set(sizes) == {2, 4, 8}
    single = [training_set.sample(0, i, 0).origin.size[0] for i in range(300)]
    assert np.mean(np.array(single) == 2) == pytest.approx(0.5, abs=0.09)
    assert np.mean(np.array(single) == 8) == pytest.approx(0.2, abs=0.09)


def test_ground_truth_may_have_rows_left_over(tmp_path: Path):
    root = make_pairs(tmp_path, {"a": 3}, size=(33, 35))
    for file in (root / "LQ" / "a").iterdir():
        with Image.open(file) as image:
            image.crop((0, 0, 8, 8)).save(file)
    training_set = make_set(root, sides=(32,))
    check(training_set.sample(0, 0, 0))


# ---- what cannot be


def test_clips_that_are_too_short(root: Path):
    with pytest.raises(DataError, match="clip '000' has 5 frames, too short for samples of 6"):
        make_set(root, num_frame=6)
    with pytest.raises(DataError, match="too short for samples of 7"):
        make_set(root, num_frame=4, intervals=(2,))


def test_clips_that_are_too_small(root: Path):
    with pytest.raises(DataError, match="too small for crops of 9×9; lower gt_size to 32"):
        make_set(root, sides=(16, 36), shares=(0.5, 0.5))


def test_pairs_that_are_not_four_to_one(root: Path):
    for file in (root / "LQ" / "001").iterdir():
        Image.new("RGB", (16, 8)).save(file)
    message = "clip '001' is 32×32 in ground truth and 16×8 in low resolution: expected 4 to 1"
    with pytest.raises(DataError, match=message):
        make_set(root)


def test_frames_on_one_side_only(root: Path):
    last = root / "LQ" / "001" / "00000003.png"
    last.rename(last.with_name("00000004.png"))
    with pytest.raises(DataError, match="clip '001' has frame '00000003' on one side only"):
        make_set(root)
    last.with_name("00000004.png").unlink()
    with pytest.raises(DataError, match="4 frames of ground truth, but 3 of low resolution"):
        make_set(root)


def test_clips_on_one_side_only(root: Path):
    (root / "LQ" / "001").rename(root / "LQ" / "002")
    with pytest.raises(DataError, match="clip '001' has no low resolution of that name"):
        make_set(root)


def test_empty_folders(tmp_path: Path):
    with pytest.raises(DataError, match=re.escape(f"there is no folder '{tmp_path}/GT'")):
        make_set(tmp_path)
    (tmp_path / "GT").mkdir()
    (tmp_path / "LQ").mkdir()
    with pytest.raises(DataError, match="no clips in"):
        make_set(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "other size", "text"])
def test_damaged_files_are_named_when_they_are_read(root: Path, damage: str):
    training_set = make_set(root)
    file = root / "GT" / "000" / "00000001.png"
    if damage == "missing":
        assert training_set.sample(0, 0, 0)
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "text":
        file.write_text("text")
    else:
        Image.new("RGB", (36, 32)).save(file)
    with pytest.raises(DataError, match=r"00000001\.png'"):
        training_set.sample(0, 0, 0)
    assert torch.is_tensor(training_set.sample(2, 0, 0).gt)


def test_problems_are_found_in_every_file(root: Path):
    training_set = make_set(root)
    assert inspect(training_set) == []
    (root / "GT" / "000" / "00000001.png").write_text("text")
    Image.new("RGB", (36, 32)).save(root / "LQ" / "011" / "00000005.png")
    first, second = inspect(make_set(root))
    assert "cannot read image" in first
    assert "00000005.png' is 36×32, but its clip is 8×8" in second
