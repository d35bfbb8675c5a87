"""What a GPU is measured by, run small on the CPU; and what it is given, counted without one."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iart.bench.measure import load_network
from iart.model import IART, IARTConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OPERATIONS = runpy.run_path(str(BENCHMARKS / "operations.py"))
FRAMES = 4


@pytest.mark.parametrize(
    ("model", "size", "most"), [("light", (480, 720), 48), ("full", (180, 320), 210)]
)
def test_a_gpu_is_given_few_operations_and_none_that_waits(
    model: str, size: tuple[int, int], most: int
):
    """Of a step of the recurrence; views are not counted."""
    config = IARTConfig() if model == "full" else load_network(model, "cpu").config
    found = OPERATIONS["count"](config, FRAMES, *size)
    assert found.waits == []
    assert found.calls.total() <= most * FRAMES * config.branches


def test_training_asks_a_gpu_for_less_than_pytorchs_attention_and_alignment_do():
    """Operations forward and backward, of a step; and bytes that are kept for gradients."""
    config, frames = load_network("light", "cpu").config, 3
    ours, theirs = (
        OPERATIONS["count"](config, frames, 48, 48, backend=backend, gradients=True)
        for backend in ("triton", "torch")
    )
    steps = frames * config.branches
    assert ours.waits == []
    assert ours.calls.total() <= 190 * steps
    assert ours.calls["aten.index_add"] == 0  # which would add in the order in which threads go
    assert ours.kept <= 0.75 * theirs.kept
    assert ours.calls["iart.attend_windows_backward"] == sum(config.depths) * steps
    # All sources of a step at once; the first frame of a branch has none.
    assert ours.calls["iart.align_backward"] == steps - config.branches


def test_what_waits_is_seen():
    with torch.device("meta"), OPERATIONS["Operations"]() as found:
        torch.tensor([1.0, 2.0], device="cpu").to("meta")
    assert found.waits == ["aten._to_copy"]


def test_flow_asks_for_nothing_that_waits():
    config = IARTConfig(8, 8, 4, (4,), 2, (1,), (2,), (3, 4, 4))
    with torch.device("meta"):
        model, clip = IART(config).eval(), torch.empty(1, 4, 3, 9, 13)
        with torch.no_grad(), OPERATIONS["Operations"]() as found:
            model(clip)
    assert found.waits == []


@pytest.mark.slow
def test_every_row_can_be_filled(tmp_path: Path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--quick"]
    run = subprocess.run(
        [*command, "--output", tmp_path / "found"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    rows = json.loads((tmp_path / "found.json").read_text())
    assert {row["section"] for row in rows} == {
        *("machine", "goldens", "tests", "network", "plain path", "upscale", "processes"),
        *("graphs", "training", "flow", "samples"),
    }
    assert not [row for row in rows if "failed" in row]
    lines = (tmp_path / "found.md").read_text().splitlines()
    assert len(lines) == len(rows) + 2
