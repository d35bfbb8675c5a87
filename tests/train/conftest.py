"""What several tests of training begin with."""

from pathlib import Path

import pytest

from tests.train.tiny import make_pairs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that holds two pairs of clips and nothing else."""
    monkeypatch.chdir(tmp_path)
    make_pairs(tmp_path / "pairs")
    return tmp_path
