import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iart.device import free_memory

COMPARE = Path(__file__).parents[2] / "benchmarks" / "speed" / "compare.py"


def compared(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMPARE, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_both_give_the_same(tmp_path: Path) -> None:
    size = ["--frames", "2", "--height", "16", "--width", "16", "--repeats", "1"]
    run = compared("light", *size, "--json", str(tmp_path / "found.json"))
    assert run.returncode == 0, run.stderr
    assert "120.0 dB" in run.stdout
    assert (tmp_path / "found.json").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("light --repeats 0", "expected a whole number from 1 on, got '0'"),
        ("light --height 1.5", "expected a whole number from 1 on, got '1.5'"),
        ("light --json /no/such/folder/a.json", "no folder '/no/such/folder'"),
        ("light --checkpointing", "goes with --train"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    reason: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [str(COMPARE), *arguments.split()])
    monkeypatch.syspath_prepend(COMPARE.parent)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(COMPARE), run_name="__main__")
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_model_is_refused_in_one_line() -> None:
    run = compared("no-such-model")
    assert run.returncode == 2
    assert "unknown model 'no-such-model'" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.skipif(free_memory(torch.device("cpu")) is None, reason="nobody knows what is free")
def test_a_clip_that_takes_more_memory_than_there_is() -> None:
    run = compared("light", "--width", str(10**8))
    assert run.returncode == 2
    assert "GB of memory" in run.stderr.splitlines()[-1]
