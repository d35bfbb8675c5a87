import logging
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.pairs import read_clip_list
from iart.data.prepare import degrade_folder, make_meta
from iart.errors import DataError, OptionsError, OutputError
from iart.pictures.degrade import degrade_bd, degrade_bi
from tests.video.clips import pictures


def write_clip(folder: Path, images: list[np.ndarray], suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:08d}{suffix}")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def tree(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "GT"
    write_clip(root / "000", pictures(3, 24, 16))
    write_clip(root / "b" / "011", pictures(2, 20, 12, scene=1))
    return root


# ---- low resolution


@pytest.mark.parametrize(("kind", "reduce"), [("bi", degrade_bi), ("bd", degrade_bd)])
def test_the_same_tree_at_a_quarter(source: Path, tmp_path: Path, kind, reduce):
    steps: list[tuple[int, int]] = []
    target = tmp_path / "LR"
    count = degrade_folder(source, target, kind, progress=lambda *step: steps.append(step))
    assert count == 5
    assert steps == [(i, 5) for i in range(6)]
    assert tree(target) == tree(source)
    for name in tree(source):
        truth = torch.from_numpy(read(source / name).copy()).permute(2, 0, 1)
        np.testing.assert_array_equal(read(target / name), reduce(truth).permute(1, 2, 0).numpy())


def test_what_is_done_is_skipped(source: Path, tmp_path: Path):
    target = tmp_path / "LR"
    degrade_folder(source, target, "bi")
    written = {name: (target / name).stat().st_mtime_ns for name in tree(target)}
    (target / "000" / "00000001.png").unlink()
    assert degrade_folder(source, target, "bi") == 1
    again = {name: (target / name).stat().st_mtime_ns for name in tree(target)}
    assert {name for name in written if written[name] != again[name]} == {"000/00000001.png"}


@pytest.mark.parametrize("damage", ["truncated", "other size", "foreign", "older"])
def test_what_is_not_whole_or_not_ours_is_replaced(source: Path, tmp_path: Path, damage: str):
    target = tmp_path / "LR"
    degrade_folder(source, target, "bi")
    file = target / "000" / "00000001.png"
    right = read(file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "older":
        os.utime(file, (0, 0))
    else:
        Image.new("RGB", (6, 4) if damage == "foreign" else (8, 8)).save(file)
        before = file.read_bytes()
        with pytest.raises(OutputError, match="this command did not make; pass --overwrite"):
            degrade_folder(source, target, "bi")
        assert file.read_bytes() == before
    assert degrade_folder(source, target, "bi", overwrite=damage in ("foreign", "other size")) == 1
    np.testing.assert_array_equal(read(file), right)


def test_another_kind_replaces_all_if_it_may(source: Path, tmp_path: Path):
    degrade_folder(source, tmp_path / "LR", "bi")
    with pytest.raises(OutputError, match="did not make"):
        degrade_folder(source, tmp_path / "LR", "bd")
    assert degrade_folder(source, tmp_path / "LR", "bd", overwrite=True) == 5


def test_sides_that_are_no_multiples_of_four(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (image,) = pictures(1, 23, 18)
    write_clip(tmp_path / "GT", [image])
    with caplog.at_level(logging.WARNING):
        degrade_folder(tmp_path / "GT", tmp_path / "LR", "bi")
    assert "1 images have sides that are no multiples of 4" in caplog.text
    cropped = torch.from_numpy(image[:16, :20].copy()).permute(2, 0, 1)
    expected = degrade_bi(cropped).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(read(tmp_path / "LR" / "00000000.png"), expected)


def test_other_formats_become_png(tmp_path: Path):
    write_clip(tmp_path / "GT", pictures(1, 8, 8), ".webp")
    degrade_folder(tmp_path / "GT", tmp_path / "LR", "bi")
    assert tree(tmp_path / "LR") == ["00000000.png"]


@pytest.mark.parametrize("inside", [".", "LR", "000/LR"])
def test_a_target_inside_the_source_is_refused(source: Path, inside: str):
    with pytest.raises(DataError, match="it lies in"):
        degrade_folder(source, source / inside, "bi")


def test_a_source_without_images(tmp_path: Path):
    with pytest.raises(DataError, match=re.escape(f"no images in '{tmp_path}/GT'")):
        degrade_folder(tmp_path / "GT", tmp_path / "LR", "bi")


def test_an_unknown_kind(source: Path, tmp_path: Path):
    with pytest.raises(OptionsError, match="bi, bd"):
        degrade_folder(source, tmp_path / "LR", "bicubic")


def test_images_that_cannot_be_read(source: Path, tmp_path: Path):
    (source / "000" / "00000002.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read image '.*00000002\.png'"):
        degrade_folder(source, tmp_path / "LR", "bi")
    assert tree(tmp_path / "LR")[:2] == ["000/00000000.png", "000/00000001.png"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("iart-data")]


def test_images_of_sixteen_bits_are_rounded_first(tmp_path: Path):
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 12), np.uint16)
    rounded = np.floor(deep / 257 + 0.5).astype(np.uint8)
    write_clip(tmp_path / "GT", [deep])
    write_clip(tmp_path / "GT8", [rounded])
    for name in ("GT", "GT8"):
        degrade_folder(tmp_path / name, tmp_path / f"LR-{name}", "bi")
    low, low8 = (next((tmp_path / f"LR-{name}").rglob("*.png")) for name in ("GT", "GT8"))
    assert low.read_bytes() == low8.read_bytes()


def test_tiny_images_are_refused(tmp_path: Path):
    write_clip(tmp_path / "GT", pictures(1, 8, 3))
    with pytest.raises(DataError, match=r"is 8×3: below 4×4"):
        degrade_folder(tmp_path / "GT", tmp_path / "LR", "bi")


def test_two_images_of_one_name(source: Path, tmp_path: Path):
    Image.new("RGB", (24, 16)).save(source / "000" / "00000000.jpg")
    with pytest.raises(DataError, match="two images of one name"):
        degrade_folder(source, tmp_path / "LR", "bi")


def test_images_that_the_source_lacks(source: Path, tmp_path: Path):
    degrade_folder(source, tmp_path / "LR", "bi")
    (source / "000" / "00000002.png").unlink()
    with pytest.raises(DataError, match=r"has '00000002\.png', which .* lacks"):
        degrade_folder(source, tmp_path / "LR", "bi")


def test_what_a_killed_run_left_is_removed(source: Path, tmp_path: Path):
    left = tmp_path / "LR" / "000" / ".00000000.png.1-abc.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    degrade_folder(source, tmp_path / "LR", "bi")
    assert not left.exists()


def test_a_place_that_cannot_be_written(source: Path, tmp_path: Path):
    (tmp_path / "LR").write_text("a file")
    with pytest.raises(OutputError, match="LR"):
        degrade_folder(source, tmp_path / "LR", "bi")


# ---- lists of clips


def test_a_list_of_clips(source: Path, tmp_path: Path):
    write_clip(source / "b" / "2", pictures(1, 24, 16))
    steps: list[tuple[int, int]] = []
    target = tmp_path / "meta.txt"
    assert make_meta(source, target, progress=lambda *step: steps.append(step)) == 3
    assert target.read_text() == "000 3 (16,24,3)\nb/2 1 (16,24,3)\nb/011 2 (12,20,3)\n"
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert read_clip_list(target) == {"000": 3, "b/2": 1, "b/011": 2}
    only = tmp_path / "only.txt"
    only.write_text("b/011\n\n000 3\n")
    assert make_meta(source, target) == 3  # the same list
    with pytest.raises(OutputError, match="it exists; pass --overwrite"):
        make_meta(source, target, only=only)
    assert make_meta(source, target, only=only, overwrite=True) == 2
    assert list(read_clip_list(target)) == ["b/011", "000"]


def test_lists_that_cannot_be_made(source: Path, tmp_path: Path):
    only = tmp_path / "only.txt"
    with pytest.raises(DataError, match=r"cannot read the list of clips '.*only\.txt'"):
        make_meta(source, tmp_path / "meta.txt", only=only)
    only.write_text("missing\n")
    with pytest.raises(DataError, match="cannot read folder"):
        make_meta(source, tmp_path / "meta.txt", only=only)
    with pytest.raises(DataError, match="no clips"):
        make_meta(tmp_path / "none", tmp_path / "meta.txt")
    with pytest.raises(OutputError, match="does not exist"):
        make_meta(source, tmp_path / "none" / "meta.txt")
    assert not (tmp_path / "meta.txt").exists()
