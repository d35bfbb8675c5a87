import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iart.data.sets import inspect, open_training_set
from iart.data.stores import lmdb
from iart.data.stores.lmdb import LmdbStore, make_lmdb, open_lmdb
from iart.errors import DataError
from tests.data.made import make_pairs, train_options

pytest.importorskip("lmdb")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pairs(tmp_path, {"000": 4, "001": 5})


def databases(root: Path) -> Path:
    """A folder with GT and LQ as databases."""
    for name in ("GT", "LQ"):
        make_lmdb(root / name, root / "lmdb" / name)
    return root / "lmdb"


def test_the_layout_is_that_of_basicsr(root: Path):
    steps: list[tuple[int, int]] = []
    assert make_lmdb(root / "GT", root / "GT.lmdb", progress=lambda *s: steps.append(s)) == 9
    assert steps[-1] == (9, 9)
    lines = (root / "GT.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines[0] == "000/00000000.png (32,32,3) 1"
    assert len(lines) == 9
    database = open_lmdb(root / "GT.lmdb", readonly=True, lock=False)
    with database.begin() as transaction:
        stored = {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}
    database.close()
    assert stored["001/00000004"] == (root / "GT" / "001" / "00000004.png").read_bytes()
    assert len(stored) == 9
    assert not list(root.glob(".*part"))


def test_other_formats_become_png(tmp_path: Path):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).save(tmp_path / "a" / "0.webp", lossless=True)
    make_lmdb(tmp_path / "a", tmp_path / "a.lmdb")
    frames = LmdbStore(tmp_path / "a.lmdb").clip(".")
    np.testing.assert_array_equal(frames.read([0], 0, 0, 4, 4)[0], picture)
    assert (frames.size, frames.count, frames.labels) == ((4, 4), 1, ("0",))


def test_a_set_in_lmdb_equals_the_set_on_disk(root: Path):
    on_disk = open_training_set(train_options("DVDRecurrentDataset", root))
    options = train_options("DVDRecurrentDataset", databases(root), io_backend_type="lmdb")
    in_lmdb = open_training_set(options)
    assert len(in_lmdb) == len(on_disk) == 9
    for i in range(20):
        one, other = on_disk.sample(i % 9, i, 0), in_lmdb.sample(i % 9, i, 0)
        assert one.origin == other.origin
        assert one.lq.equal(other.lq)
        assert one.gt.equal(other.gt)
    assert inspect(in_lmdb) == []
    options.meta_info_file = root / "list.txt"
    options.meta_info_file.write_text("001 5 (32,32,3)\n")
    assert len(open_training_set(options)) == 5
    options.meta_info_file.write_text("001 6 (32,32,3)\n")
    with pytest.raises(DataError, match=r"has 5 frames in .* but the list of clips says 6"):
        open_training_set(options)
    options.meta_info_file.write_text("002 6 (32,32,3)\n")
    with pytest.raises(DataError, match="clip '002' is not in"):
        open_training_set(options)


def test_what_is_done_is_skipped(root: Path):
    target = root / "GT.lmdb"
    make_lmdb(root / "GT", target)
    assert make_lmdb(root / "GT", target) == 0
    (root / "GT" / "001" / "00000004.png").unlink()
    with pytest.raises(DataError, match="does not hold these images as they are now"):
        make_lmdb(root / "GT", target)


def test_an_image_that_changed_is_not_taken_for_done(root: Path):
    make_lmdb(root / "GT", root / "GT.lmdb")
    later = (root / "GT.lmdb" / "meta_info.txt").stat().st_mtime + 10
    os.utime(root / "GT" / "001" / "00000004.png", (later, later))
    with pytest.raises(DataError, match="remove it"):
        make_lmdb(root / "GT", root / "GT.lmdb")


def test_a_run_that_stopped_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lmdb, "_IMAGES", 2)

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_lmdb(root / "GT", root / "GT.lmdb", progress=stop)
    assert not (root / "GT.lmdb").exists()
    changed = root / "GT" / "000" / "00000000.png"
    Image.new("RGB", (32, 32)).save(changed)
    later = (root / ".GT.lmdb.part" / "data.mdb").stat().st_mtime + 10
    os.utime(changed, (later, later))
    assert make_lmdb(root / "GT", root / "GT.lmdb") == 6
    store = LmdbStore(root / "GT.lmdb")
    assert store.entry("000/00000000") == changed.read_bytes()
    assert [store.clip(name).count for name in store.names()] == [4, 5]


def test_the_database_grows(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lmdb, "_FIRST_BYTES", 2**14)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "GT" / "000" / "00000000.png")
    assert make_lmdb(root / "GT", root / "GT.lmdb") == 9


def test_damaged_images_are_refused(root: Path):
    file = root / "GT" / "000" / "00000001.png"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot read image '.*00000001\.png'"):
        make_lmdb(root / "GT", root / "GT.lmdb")


def test_no_images_and_two_of_one_key(root: Path):
    with pytest.raises(DataError, match="no images"):
        make_lmdb(root / "none", root / "none.lmdb")
    Image.new("RGB", (32, 32)).save(root / "GT" / "000" / "00000001.jpg")
    with pytest.raises(DataError, match="one key"):
        make_lmdb(root / "GT", root / "GT.lmdb")


def test_a_folder_that_is_no_database(root: Path):
    options = train_options("DVDRecurrentDataset", root, io_backend_type="lmdb")
    with pytest.raises(DataError, match=r"meta_info\.txt', which lists an LMDB's frames: No such"):
        open_training_set(options)
    (root / "GT" / "meta_info.txt").write_text("000/0.png (32,32,3) 1\n")
    with pytest.raises(DataError, match=re.escape(f"cannot open LMDB '{root}/GT'")):
        open_training_set(options)
    (root / "GT" / "meta_info.txt").write_text("000 100 (720,1280,3)\n")
    with pytest.raises(DataError, match="line 1: expected"):
        open_training_set(options)


def test_keys_that_are_missing_are_found_by_a_check(root: Path):
    databases(root)
    for name in ("GT", "LQ"):
        meta = root / "lmdb" / name / "meta_info.txt"
        meta.write_text(meta.read_text().replace("000/00000003", "000/00000009"))
    options = train_options("DVDRecurrentDataset", root / "lmdb", io_backend_type="lmdb")
    training_set = open_training_set(options)
    first, second = inspect(training_set)
    assert "has no key '000/00000009'" in first
    assert "has no key '000/00000009'" in second
    with pytest.raises(DataError, match="has no key"):
        training_set.sample(1, 0, 0)
