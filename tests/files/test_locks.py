"""Locks between processes."""

import errno
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from iart.files.complete import locked

HOLD = """
import sys
from pathlib import Path
from iart.files.complete import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_free_when_it_dies(tmp_path: Path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        process.kill()
    with locked(path) as is_held, pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    assert is_held


def test_a_lock_that_cannot_be_made(tmp_path: Path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "lock"):
        pass


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with locked(tmp_path / "lock", wait=False) as is_held:
        assert not is_held
