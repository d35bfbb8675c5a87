"""Several processes (gloo, CPU) are one process with a larger batch, flow included."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from iart.device import pick_device
from iart.errors import DeviceError
from iart.train.processes import choose_precision, connected
from tests.processes import PATIENCE_SECONDS, errors_at_end, start_iart, wait_until
from tests.train.tiny import (
    adversarial,
    assert_same,
    folder_of,
    latest,
    make_pairs,
    options,
    run,
    state_of,
    tree,
)

CPU = torch.device("cpu")
# Trains by the options in a file and leaves every process's weights in `<rank>.pt`.
SCRIPT = """
import sys
from pathlib import Path
import torch
from iart.train import loop
from iart.train.options.read import read_options

learn = loop._Run.learn
def learn_and_keep(self, *rest):
    learn(self, *rest)
    kept = dict(self.model.state_dict())
    for adversary in self.state.adversaries:
        kept |= {f"{adversary.name}.{k}": v for k, v in adversary.model.state_dict().items()}
    torch.save(kept, f"{self.options.name}-{self.fabric.global_rank}.pt")

loop._Run.learn = learn_and_keep
loop.train(read_options(Path(sys.argv[1])), device="cpu", devices=int(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_pairs(tmp_path / "pairs")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def write(**changes: Any) -> Path:
    path = Path(f"{changes['name']}.yml")
    path.write_text(yaml.safe_dump(tree(**changes)))
    return path


def together(processes: int, **changes: Any) -> None:
    """Train in several processes."""
    command = [sys.executable, "script.py", str(write(**changes)), str(processes)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


def numbers(name: str, key: str) -> list[float]:
    lines = (folder_of(name) / "log.jsonl").read_text().splitlines()
    return [json.loads(line)[key] for line in lines]


def losses(name: str) -> list[float]:
    return numbers(name, "loss")


# ---- one process


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, torch.float32),
        ({"train__precision": "bfloat16"}, torch.bfloat16),
        ({"train__half_precision": True}, torch.float32),  # on a CPU
    ],
)
def test_precision_on_a_cpu(changes: dict[str, Any], expected: torch.dtype):
    assert choose_precision(options(**changes).train, CPU) == expected


def test_float16_needs_a_gpu():
    with pytest.raises(DeviceError, match="float16 needs a GPU"):
        choose_precision(options(train__precision="float16").train, CPU)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = r"2 devices were asked for; this machine has 1 \(cuda\)"
    with (
        pytest.raises(DeviceError, match=asked),
        connected(options(), torch.device("cuda"), 2),
    ):
        pass


def test_fewer_devices_than_the_recipe_s_are_said_once():
    lines = run(options(num_gpu=8, train__total_iter=0))
    assert sum("gradient_accumulation_steps=8" in line for line in lines) == 1


# ---- two


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch():
    run(options(name="one", datasets__train__batch_size_per_gpu=2))
    together(2, name="two")
    assert losses("one") == pytest.approx(losses("two"), abs=1e-4)
    assert state_of("one")["samples"] == state_of("two")["samples"] == 8
    a, b = (torch.load(f"two-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(dict(a), dict(b))


@pytest.mark.slow
def test_two_processes_with_discriminators_are_one_with_twice_the_batch():
    """All losses, relativistic means, CutMix and feature matching among them, and all weights."""
    chosen = adversarial(train__total_iter=3)
    run(options(name="one", datasets__train__batch_size_per_gpu=2, **chosen))
    together(2, name="two", **chosen)
    lines = [(folder_of(name) / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    for one, two in zip(*(map(json.loads, of_run) for of_run in lines), strict=True):
        names = {name for name in one if name.startswith("loss")}
        assert len(names) == 9
        assert {n: one[n] for n in names} == pytest.approx({n: two[n] for n in names}, abs=1e-4)
    for name in ("gan", "gan2"):
        one, two = (state_of(run)["discriminators"][name]["optimizer"] for run in ("one", "two"))
        for i, own in one["state"].items():  # averages of gradients
            difference = own["exp_avg"] - two["state"][i]["exp_avg"]
            assert difference.norm() < 1e-2 * own["exp_avg"].norm() + 1e-6
    first, second = (torch.load(f"two-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(first, second)  # discriminators too


@pytest.mark.slow
def test_two_processes_go_on_between_two_steps_of_their_discriminators():
    """Gradients that wait are those of all processes, though the first alone saves them."""
    chosen = adversarial(
        train__d_gradient_accumulation_steps=3, logger__save_checkpoint_freq=1,
        train__net_d_init_iters=1,
    )  # fmt: skip
    together(2, name="straight", **chosen)
    together(2, name="stopped", train__total_iter=2, **chosen)
    assert state_of("stopped")["discriminators"]["gan"]["done"] == 2
    together(2, name="stopped", **chosen)
    assert_same(state_of("stopped"), state_of("straight"))


@pytest.mark.slow
def test_two_processes_accumulate():
    """2 processes × 2 micro-batches are 1 process with a batch of 4, in gradients as well."""
    run(options(name="one", datasets__train__batch_size_per_gpu=4))
    together(2, name="two", train__gradient_accumulation_steps=2)
    assert losses("one") == pytest.approx(losses("two"), abs=1e-4)
    assert numbers("one", "gradient_norm") == pytest.approx(
        numbers("two", "gradient_norm"), rel=1e-2
    )


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])  # with and without a static graph
def test_flow_begins_to_move_alike_everywhere(micro_batches: int):
    """3 steps after `fix_flow` flow has moved and is the same bit for bit; in one run."""
    run(options(name="start", train__total_iter=0))
    chosen: dict[str, Any] = {
        "train__fix_flow": 2, "network_g__use_checkpoint": True,
        "train__gradient_accumulation_steps": micro_batches,
    }  # fmt: skip
    together(2, name="fixed", train__total_iter=2, **chosen)
    together(2, name="moved", train__total_iter=5, **chosen)
    start = state_of("start")["model"]
    flow = [name for name in start if name.startswith("flow.")]
    assert_same({n: state_of("fixed")["model"][n] for n in flow}, {n: start[n] for n in flow})
    a, b = (torch.load(f"moved-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(not a[name].equal(start[name]) for name in flow)
    assert_same(dict(a), dict(b))


@pytest.mark.slow
def test_going_on_with_other_processes_keeps_the_order_of_samples():
    batch = {"datasets__train__batch_size_per_gpu": 4}
    run(options(name="straight", **batch))
    together(2, name="mixed", datasets__train__batch_size_per_gpu=2, train__total_iter=2)
    run(options(name="mixed", **batch))
    assert losses("mixed") == pytest.approx(losses("straight"), abs=1e-4)
    assert state_of("mixed")["samples"] == state_of("straight")["samples"] == 16


@pytest.mark.slow
def test_torchrun_and_validation_spread_over_processes():
    held_out = {
        "type": "VideoRecurrentTestDataset", "dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq"
    }  # fmt: skip
    chosen = {"datasets__val": held_out, "val__val_freq": 2, "train__total_iter": 2}
    run(options(name="one", datasets__train__batch_size_per_gpu=2, **chosen))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "iart",
        "train", str(write(name="two", **chosen)), "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("weights: experiments/two") == 1
    one, two = (
        json.loads((folder_of(name) / "log.jsonl").read_text().splitlines()[-1])
        for name in ("one", "two")
    )
    assert one.keys() == two.keys() == {"step", "val/val/psnr", "val/val/ssim"}
    assert one == pytest.approx(two, abs=1e-3)
    assert len(list((folder_of("two") / "visualization" / "val").glob("00?.png"))) == 2


@pytest.mark.slow
def test_a_signal_to_the_first_process_saves_and_ends_all():
    file = write(name="two", train__total_iter=100_000)
    child = start_iart("train", file, "--device", "cpu", "--devices", "2", start_new_session=True)
    try:
        log = folder_of("two") / "log.jsonl"
        wait_until(lambda: log.exists() and log.read_text().count("\n") > 2, child)
        child.send_signal(signal.SIGTERM)
        said = errors_at_end(child)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130
    assert said.rstrip().endswith("interrupted: all is saved, the same command goes on")
    assert "Traceback" not in said
    assert state_of("two")["step"] == int(latest("two").stem) > 2


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all(folder: Path):
    script = SCRIPT.replace(
        "loop._Run.learn = ",
        "terms = loop.Objective.terms\n"
        "def broken(self, *args):\n"
        "    import torch.distributed as dist\n"
        "    factor = float('nan') if dist.get_rank() else 1.0\n"
        "    return {name: value * factor for name, value in terms(self, *args).items()}\n"
        "loop.Objective.terms = broken\n"
        "loop._Run.learn = ",
    )
    (folder / "script.py").write_text(script)
    command = [sys.executable, "script.py", str(write(name="two")), "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    # 1; seldom SIGABRT, after the error has been told: threads of Gloo when Python ends.
    assert done.returncode in (1, -signal.SIGABRT), done.stderr
    file = "experiments/two/nonfinite-step0-process1.pt"
    assert (
        f"TrainingError: loss is nan, loss/pixel is nan at step 0: '{file}' has the batch"
        in done.stderr
    )
    assert torch.load(file, weights_only=True)["step"] == 0
    assert len(list(folder_of("two").glob("nonfinite*"))) == 1


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precisions_on_a_gpu(precision: str):
    from iart.train.loop import train

    chosen = options(train__precision=precision, train__total_iter=6)
    train(chosen, device=str(pick_device("cuda")), devices=1)
    assert (state_of()["scaler"] != {}) == (precision == "float16")
