"""The scripts of `examples/` run as they stand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iart.video.open import open_video
from iart.weights import read_model
from tests.train.tiny import make_pairs
from tests.video.clips import make_clip

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upscale_file", "loop_with_pyav"])
def test_a_file(name: str, tmp_path: Path):
    make_clip(tmp_path / "in.mkv", frames=5, audio=["eng"])
    assert "5 frames" in run(name, "in.mkv", "out.mp4", "bicubic", folder=tmp_path)
    with open_video(tmp_path / "out.mp4") as reader:
        assert sum(1 for _ in reader) == 5


@pytest.mark.slow
def test_a_clip_in_memory(tmp_path: Path):
    lines = run("clip_in_memory", folder=tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["bicubic", "dvd", "light"]


@pytest.mark.slow
def test_fine_tuning(tmp_path: Path):
    make_pairs(tmp_path)
    run("fine_tune", "gt", "lq", "mine.safetensors", "2", folder=tmp_path)
    before, after = read_model_of("light"), read_model(tmp_path / "mine.safetensors").state_dict()
    assert any(not before[name].equal(after[name]) for name in before)


def read_model_of(name: str):
    from iart.weights import load_model

    return load_model(name, "cpu").state_dict()


def test_every_example_has_a_test():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"upscale_file", "clip_in_memory", "loop_with_pyav", "fine_tune"}


@pytest.mark.slow
def test_the_notebook(tmp_path: Path):
    """Its code, cell after cell, in a folder of its own."""
    cells = json.loads((EXAMPLES / "demo.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo-notebook" / "compare.png").exists()
