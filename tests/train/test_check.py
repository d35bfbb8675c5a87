"""`iart train --check`: made data, whole and damaged, and the cost of a step."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from iart.cli import app
from iart.train.check import CheckReport, check
from iart.train.measure import StepCost, extended_cost, step_cost
from iart.train.options.run import TrainingOptions

PROJECT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = {
    "embed_dim": 8, "mid_channels": 8, "head_channels": 4, "flow_channels": [8, 4],
    "flow_levels": 2, "depths": [1], "num_heads": [2], "window_size": [3, 4, 4], "branches": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two pairs of clips: 5 frames of 64×96 and 16×24."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for clip in ("one", "two"):
        for root, height, width in (("gt", 64, 96), ("lq", 16, 24)):
            (tmp_path / root / clip).mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / root / clip / f"{i:08d}.png")
    return tmp_path


def options(**changes: Any) -> TrainingOptions:
    """A tiny run; keys of `changes` are places with `__` for a dot."""
    roots = {"dataroot_gt": "gt", "dataroot_lq": "lq"}
    tree: dict[str, Any] = {
        "name": "tiny",
        "network_g": dict(TINY),
        "datasets": {
            "train": {
                "type": "DVDRecurrentDataset", **roots, "num_frame": 4, "gt_size": 64,
                "batch_size_per_gpu": 2,
            },
            "val": {"type": "VideoRecurrentTestDataset", **roots},
        },
        "train": {
            "total_iter": 100, "optim_g": {"lr": 1e-3}, "pixel_opt": {"type": "L1Loss"},
            "scheduler": {"type": "MultiStepLR", "milestones": [50]},
        },
    }  # fmt: skip
    for place, value in changes.items():
        *parents, key = place.split("__")
        node = tree
        for parent in parents:
            node = node[parent]
        node[key] = value
    return TrainingOptions.model_validate(tree)


@pytest.fixture
def no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring a step has tests of its own."""
    monkeypatch.setattr("iart.train.check.step_cost", lambda *_: StepCost(1.5, 10**6, False))


def checked(**changes: Any) -> CheckReport:
    return check(options(**changes), device="cpu")


def test_a_run_that_can_start():
    seen: list[tuple[int, int]] = []
    report = check(options(), device="cpu", progress=lambda *counted: seen.append(counted))
    lines = dict(report.lines)
    assert report.problems == []
    assert lines["training set"] == "2 clips of 96×64 and 24×16, 10 frames of each"
    assert lines["validation, val"] == lines["training set"]
    assert lines["batch"] == "2 samples a step"
    assert lines["epoch"] == "10 samples; 100 steps are 20 epochs"
    assert re.fullmatch(r"4 frames, 64×64 from 16×16, made in [\d.e-]+ s", lines["sample"])
    assert re.match(r"about 0\.\d+ GB on cpu \([\d.]+ GB are free\)", lines["memory"])
    assert re.fullmatch(
        r"about \S+ s a step, \S+ \w+ for 100 steps \(float32, measured\)",
        lines["time"],
    )
    assert seen == 2 * [(1, 2), (2, 2)]


@pytest.mark.usefixtures("no_cost")
def test_everything_wrong_is_found_in_one_go(folder: Path):
    (folder / "lq/one/00000003.png").write_bytes(b"no image")
    small = Image.new("RGB", (20, 16))
    small.save(folder / "lq/two/00000002.png")
    report = checked(network_g__spynet_path="spy.pth", datasets__val__dataroot_gt="elsewhere")
    said = "\n".join(report.problems)
    assert len(report.problems) == 4
    assert "network_g.spynet_path: there is no file 'spy.pth'" in said
    assert "lq/one/00000003.png" in said
    assert "lq/two/00000002.png" in said
    assert "elsewhere" in said
    assert "time" in dict(report.lines)  # all the same


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: Path("lq/one/00000004.png").unlink(), "clip 'one' has 5 frames of ground truth"),
        (lambda: [p.unlink() for p in Path("lq/two").iterdir()], "clip 'two' has no low resol"),
        (
            lambda: [Image.new("RGB", (12, 8)).save(p) for p in Path("lq/two").iterdir()],
            "clip 'two' is 96×64 in ground truth and 12×8 in low resolution: expected 4 to 1",
        ),
    ],
    ids=["missing frame", "empty clip", "not 4 to 1"],
)  # fmt: skip
@pytest.mark.usefixtures("no_cost")
def test_pairs_that_do_not_fit(damage: Any, said: str):
    damage()
    assert any(said in problem for problem in checked().problems)


@pytest.mark.usefixtures("no_cost")
def test_data_that_is_not_there():
    report = checked(datasets__train__dataroot_gt="nowhere", datasets__train__num_frame=9)
    assert "nowhere" in report.problems[0]
    assert "sample" not in dict(report.lines)
    assert "time" in dict(report.lines)
    unknown_length = checked(datasets__train__dataroot_gt="nowhere", datasets__train__num_frame=-1)
    assert "time" not in dict(unknown_length.lines)


@pytest.mark.usefixtures("no_cost")
def test_scenes_and_fewer_devices():
    scenes = {"type": "SceneDataset", "dataroot_gt": "gt", "gt_size": 32, "num_frame": 3}
    report = checked(datasets__train=scenes, datasets__val=scenes, num_gpu=8)
    lines = dict(report.lines)
    assert report.problems == []
    assert lines["training set"] == "2 clips of 96×64, 10 frames"
    assert lines["validation, val"] == "2 scenes"
    assert "a step has 4 samples instead of 32" in lines["batch"]


def test_a_step_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("iart.train.check.step_cost", lambda *_: StepCost(1.5, 10**15, False))
    assert "lower datasets.train.gt_size, num_frame or batch" in checked().problems[0]


@pytest.mark.usefixtures("no_cost")
def test_vgg_weights_that_are_missing_are_said_once():
    report = checked(train__perceptual_opt={"layer_weights": {"conv5_4": 1}})
    (problem,) = report.problems
    assert "train.perceptual_opt.weights is missing" in problem
    assert "time" in dict(report.lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.012, "0.012 s"), (9.0, "9 s"), (119.0, "119 s"), (4600.0, "77 min"), (1e5, "28 h"),
     (1e7, "116 days")],
)  # fmt: skip
@pytest.mark.usefixtures("no_cost")
def test_times_are_told_in_fitting_units(
    monkeypatch: pytest.MonkeyPatch, seconds: float, text: str
):
    monkeypatch.setattr("iart.train.check.step_cost", lambda *_: StepCost(seconds, 1, False))
    assert f"about {text} a step" in dict(checked().lines)["time"]


@pytest.mark.usefixtures("no_cost")
def test_the_command(folder: Path):
    (folder / "run.yml").write_text(options().model_dump_json(exclude={"train": {"flow"}}))
    command = ["train", "run.yml", "--check", "--device", "cpu"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "training set    2 clips of 96×64 and 24×16" in found.stdout
    assert found.stderr == "check passed: no problems found\n"
    for image in (folder / "lq").rglob("*.png"):
        image.write_bytes(b"")
    found = CliRunner().invoke(app, [*command, "datasets.train.dataroot_gt=elsewhere"])
    assert found.exit_code == 1
    assert "problem: there is no folder 'elsewhere'" in found.stderr
    assert not (folder / "experiments").exists()


# ---- the cost of a step

TRAINED = """
import sys
from iart.runtime import keep_freed_memory, peak_memory
from iart.train.loop import train
from iart.train.options.run import TrainingOptions
import lightning_fabric, torch
keep_freed_memory()
torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # which loads what it needs
print(peak_memory())
train(TrainingOptions.model_validate_json(sys.stdin.read()), device="cpu")
print(peak_memory())
"""


@pytest.mark.parametrize(
    ("batch", "recompute"),
    [
        (1, True),
        (2, True),
        (2, False),
    ],
)
@pytest.mark.slow
def test_memory_is_what_training_takes(folder: Path, batch: int, recompute: bool):
    """Of the light network, in a process that makes two steps."""
    network = yaml.safe_load((PROJECT / "options" / "IART_light.yml").read_text())["network_g"]
    chosen = options(
        network_g={**network, "use_checkpoint": recompute},
        datasets__train__batch_size_per_gpu=batch,
        train__total_iter=2,
        val=None,
    )
    words = chosen.model_dump_json(exclude={"datasets": {"val"}})
    trained = subprocess.run(
        [sys.executable, "-c", TRAINED], input=words, capture_output=True, text=True, check=True
    )
    found = step_cost(chosen, CPU, torch.float32, 4, 16)
    assert found.measured
    libraries, whole = map(int, trained.stdout.split())
    assert found.memory - libraries == pytest.approx(whole - libraries, rel=0.25)


def test_larger_steps_are_extended_from_smaller_ones():
    """A step of P pixels takes 1 + 2 P; crops grow, then samples, until one takes long."""
    made: list[tuple[int, int]] = []

    def cost(batch: int, side: int) -> StepCost:
        made.append((batch, side))
        amount = 1 + 2 * batch * side**2
        return StepCost(amount / 1000, amount, measured=True)

    once = extended_cost(cost, 6, 20)
    assert once == StepCost(4.801, 4801, measured=True)
    assert made == [(1, 8), (1, 8), (1, 16), (1, 20), (2, 20), (4, 20), (6, 20)]
    many = extended_cost(cost, 16, 64)
    assert made[-1] == (1, 64)
    assert many.memory == 1 + 2 * 16 * 64**2
    assert many.seconds == pytest.approx(many.memory / 1000)
    assert not many.measured


@pytest.mark.cuda
def test_a_step_is_measured_on_a_gpu():
    found = step_cost(options(), torch.device("cuda"), torch.bfloat16, 4, 16)
    assert found.measured
    assert found.seconds < 10
    assert 10**6 < found.memory < 10**9


@pytest.mark.usefixtures("no_cost")
def test_losses_are_weighed():
    report = checked(
        train__fft_opt={"loss_weight": 0.0}, train__temporal_opt={"start_iter": 50},
        train__gan_opt={"loss_weight": 0.1, "start_iter": 90}, train__optim_d={"lr": 1e-4},
        network_d={"type": "UNetDiscriminatorSN", "num_feat": 2},
        train__feature_matching_opt={"loss_weight": 0.1},
    )  # fmt: skip
    assert report.problems == []
    lines = dict(report.lines)
    assert lines["loss fft"] == "0, gradient 0, 0% of all"
    shares = []
    for name in ("pixel", "temporal", "gan", "feature_matching"):
        found = re.fullmatch(r"[\d.e-]+, gradient ([\d.e-]+), (\d+)% of all", lines[f"loss {name}"])
        assert found
        assert float(found[1]) > 0
        shares.append(int(found[2]))
    assert 97 <= sum(shares) <= 103
