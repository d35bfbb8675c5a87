"""Temporary folders of tasks on the machines of a cluster, without one."""

import errno
from pathlib import Path

import filelock
import pytest

from iart.parallel import scratch as module
from iart.parallel.scratch import machine_mark, remove, scratch


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders of this machine lie, which is one node."""
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "_of_this_machine", lambda run: f"{run}-node")
    return tmp_path / f"iart-{module.os.getuid()}-{machine_mark()}"


def left_by_a_killed_command() -> Path:
    with scratch("killed", "film") as folder:
        (folder / "source").touch()
    return folder


def test_it_stays_until_it_is_removed(base: Path):
    with scratch("run", "a") as folder, scratch("run", "b"):
        assert folder == base / "run-node" / "a"
    remove("run", "a")
    assert [path.name for path in (base / "run-node").iterdir()] == ["b"]
    remove("run")
    assert [path.name for path in base.iterdir()] == ["lock"]


def test_what_a_killed_command_left_is_removed_but_nothing_in_use(base: Path):
    left = left_by_a_killed_command()
    with scratch("one", "film") as one, scratch("two", "film") as two:
        assert one.is_dir()
        assert two.is_dir()
        assert not left.exists()


def test_without_locks_nothing_of_others_is_removed(base: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    left = left_by_a_killed_command()
    with scratch("one", "film") as one, scratch("two", "film") as two:
        assert one.is_dir()
        assert two.is_dir()
        assert left.is_dir()
