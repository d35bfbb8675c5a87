"""Files that are complete or absent."""

import json
import os
from pathlib import Path

import pytest

from iart.errors import OutputError
from iart.files.complete import complete_file, write_json, writing
from iart.files.names import hidden_name


def test_a_file_has_its_name_only_when_complete(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    with complete_file(path, parents=True) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(ZeroDivisionError), complete_file(path) as file:
        file.write(bytes(1 // 0))
    assert path.read_bytes() == b"first"
    with complete_file(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_what_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"folder '.*none' does not exist"),
        complete_file(tmp_path / "none" / "a"),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"cannot write '.*a'"),
        complete_file(tmp_path / "file" / "a", parents=True),
    ):
        pass
    with pytest.raises(OutputError, match="no space left on the disk of"), writing(tmp_path / "a"):
        raise OSError(28, "No space left on device")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": [1, 2]}


def test_names_that_are_alike_at_first_have_hidden_names_of_their_own(tmp_path: Path):
    start = "映画の題名がとても長い作品" * 5
    names = [hidden_name(tmp_path / f"{start}第{i:02}話.mkv", ".job").name for i in range(3)]
    names += [hidden_name(tmp_path / ("a" * 200 + end), ".job").name for end in "bc"]
    assert len(set(names)) == 5
    assert all(len(os.fsencode(name)) <= 205 for name in names)
    assert hidden_name(tmp_path / "short.mkv", ".job").name == ".short.mkv.job"
