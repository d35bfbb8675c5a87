"""What conftest.py promises, seen from inside a run of pytest."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import os
import random
import numpy as np
import pytest
import torch

def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))

before = draw()
random.seed(0), np.random.seed(0), torch.manual_seed(0)
expected = draw()
random.seed(0), np.random.seed(0), torch.manual_seed(0)

@pytest.mark.parametrize("again", range(2))
def test_draws_are_put_back(again):
    assert draw() == expected
    random.seed(5), np.random.seed(5), torch.manual_seed(5)

@pytest.mark.cuda
def test_on_a_gpu():
    assert torch.cuda.is_available()

def test_a_gpu_is_promised():
    os.environ["FAIL_WITHOUT_CUDA"] = "1"

@pytest.mark.cuda
def test_on_the_promised_gpu():
    assert torch.cuda.is_available()
"""


def test_random_states_and_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAIL_WITHOUT_CUDA", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda: needs a GPU\n")
    (tmp_path / "test_inside.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "3 passed, 1 skipped, 1 error" in done.stdout, done.stdout
