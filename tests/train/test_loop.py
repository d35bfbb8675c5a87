"""Training on made scenes with a tiny network: it learns, and stopping changes nothing."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.clips import load_scenes
from iart.errors import DataError, TrainingError, WeightsError
from iart.model import IART
from iart.train import loop
from iart.train.loop import learning_rate, set_learning_rates, train
from iart.train.options import Options
from iart.train.state import TrainState, averaged
from iart.weights import read_metadata, read_model

CPU = torch.device("cpu")
FLOW_STEPS, STEPS = 3, 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with two scenes of 4 frames of 64×64: moving blobs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "scenes" / name).mkdir(parents=True)
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        picture = np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC))
        for i in range(4):
            crop = picture[2 * i : 2 * i + 64, 3 * i : 3 * i + 64]
            Image.fromarray(crop).save(tmp_path / "scenes" / name / f"{i}.png")
    return tmp_path


def options(**changes: Any) -> Options:
    """A tiny run; keys of `changes` are places with `__` for a dot."""
    scenes = {
        "dataroot_gt": "scenes", "num_frame": 3, "gt_size": 32, "reduce": [1.5, 2.0],
        "batch_size_per_gpu": 1,
    }  # fmt: skip
    tree: dict[str, Any] = {
        "name": "tiny",
        "network_g": {
            "embed_dim": 8, "mid_channels": 8, "head_channels": 4, "flow_channels": [8, 4],
            "flow_levels": 2, "depths": [2], "num_heads": [2], "window_size": [3, 4, 4],
            "branches": 2, "drop_path_rate": 0.2,
        },
        "datasets": {"train": scenes, "val": {**scenes, "include": ["two"], "reduce": [2, 2]}},
        "train": {
            "total_iter": STEPS, "warmup_iter": 2, "ema_decay": 0.9, "optim_g": {"lr": 1e-3},
            "flow": {"total_iter": FLOW_STEPS, "lr": 1e-3, "size": 16, "batch_size_per_gpu": 1},
        },
        "val": {"val_freq": 1000},
        "logger": {"print_freq": 1, "save_checkpoint_minutes": 60},
    }  # fmt: skip
    for place, value in changes.items():
        *parents, key = place.split("__")
        node = tree
        for parent in parents:
            node = node[parent]
        node[key] = value
    return Options.model_validate(tree)


def run(chosen: Options, max_minutes: float | None = None) -> list[dict[str, Any]]:
    """Train and return what was reported."""
    reports: list[dict[str, Any]] = []
    train(chosen, CPU, reports.append, max_minutes=max_minutes)
    return reports


def state_of(name: str = "tiny") -> dict[str, Any]:
    return torch.load(Path("experiments") / name / "state.pt", weights_only=True)


def assert_same(a: Any, b: Any) -> None:
    """Equal bit for bit, at any depth."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.equal(b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


# ---- learning rate


def test_learning_rate_in_closed_form():
    def rate(step: int) -> float:
        return learning_rate(step, 110, 10, 1e-3, 1e-5)

    assert [rate(i) for i in (0, 4, 9)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert rate(10) == pytest.approx(1e-3)
    assert rate(60) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate(35) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)
    assert rate(110) == rate(500) == pytest.approx(1e-5)
    assert learning_rate(0, 0, 0, 1e-3, 1e-5) == pytest.approx(1e-3)


def test_the_rest_stands_still_while_flow_is_taught():
    model = IART(options().network_g.config())
    groups = [{"params": model.flow.parameters()}, {"params": model.head.parameters()}]
    optimizer = torch.optim.Adam(groups)
    state = TrainState(0, model, averaged(model), optimizer, np.random.default_rng(0))
    set_learning_rates(state, options())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-5, 0])
    state.step = FLOW_STEPS + 2  # the warm-up is over
    set_learning_rates(state, options())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.5e-4, 1e-3])


# ---- a run


def loss_on_fixed_clips(weights: Path, chosen: Options) -> float:
    model, rng = read_model(weights).eval(), np.random.default_rng(1)
    scenes = load_scenes(Path("scenes"))
    with torch.inference_mode():
        losses = [loop.clip_loss(model, scenes, chosen.datasets.train, rng) for _ in range(8)]
    return float(torch.stack(losses).mean())


def test_a_run_learns_and_leaves_weights():
    chosen = options(
        train__total_iter=60, train__flow__total_iter=0, train__optim_g__lr=4e-3,
        network_g__drop_path_rate=0.0, datasets__train__still_share=0.0, val__val_freq=60,
        datasets__train__batch_size_per_gpu=2,
    )  # fmt: skip
    start = train(chosen.model_copy(update={"name": "start"}), CPU, lambda _: None, max_minutes=0.0)
    before = loss_on_fixed_clips(start, chosen)
    reports = run(chosen)
    assert sum("clips" in entry for entry in reports) == 60
    score = reports[-1]
    assert score.keys() == {"step", "psnr", "frame_by_frame", "bicubic"}
    assert all(10 < score[key] < 60 for key in score.keys() - {"step"})

    log = Path("experiments/tiny/log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in log] == reports
    weights = Path("experiments/tiny/tiny.safetensors")
    assert loss_on_fixed_clips(weights, chosen) < 0.95 * before
    assert read_model(weights).config == chosen.network_g.config()
    assert read_metadata(weights)["step"] == "60"


def test_teaching_flow_lowers_its_error():
    chosen = options(
        train__flow__total_iter=80, train__flow__batch_size_per_gpu=4, train__total_iter=0,
        train__flow__lr=3e-3, train__flow__max_shift=2.0,
    )  # fmt: skip
    errors = [entry["flow"] for entry in run(chosen)]
    assert len(errors) == 80
    assert np.mean(errors[-20:]) < 0.8 * np.mean(errors[:20])


def test_training_begins_at_the_bilinear_enlargement():
    chosen = options(train__total_iter=0, train__flow__total_iter=0)
    path = train(chosen, CPU, lambda _: None)
    frames = torch.rand(1, 2, 3, 8, 8)
    enlarged = torch.nn.functional.interpolate(frames[0], scale_factor=4, mode="bilinear")
    with torch.inference_mode():
        torch.testing.assert_close(read_model(path).eval()(frames)[0], enlarged)


# ---- stopping and going on


def test_a_run_in_pieces_is_a_straight_run():
    """Stopped after every step, in both stages, with stochastic depth: the same bit for bit."""
    run(options(name="straight"))
    for step in range(1, FLOW_STEPS + STEPS + 1):
        reports = run(options(name="pieces"), max_minutes=0.0)
        assert state_of("pieces")["step"] == step
        assert ({"resumed at step": step - 1} in reports) == (step > 1)
    assert_same(state_of("pieces"), state_of("straight"))
    a, b = (read_model(f"experiments/{n}/{n}.safetensors") for n in ("pieces", "straight"))
    assert_same(dict(a.state_dict()), dict(b.state_dict()))


def test_a_finished_run_stays_as_it_is():
    run(options())
    before = state_of()
    assert run(options()) == [{"resumed at step": FLOW_STEPS + STEPS}]
    assert_same(state_of(), before)


def test_a_finished_run_can_be_made_longer():
    run(options())
    run(options(train__total_iter=STEPS + 2))
    assert state_of()["step"] == FLOW_STEPS + STEPS + 2


def test_another_network_is_not_resumed():
    run(options(), max_minutes=0.0)
    with pytest.raises(WeightsError, match=r"cannot resume from '.*state\.pt': .*; move the file"):
        run(options(network_g__embed_dim=16))


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_damaged_state_is_not_resumed(keep: int):
    run(options(), max_minutes=0.0)
    path = Path("experiments/tiny/state.pt")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cannot resume from") as caught:
        run(options())
    assert "\n" not in str(caught.value)


def test_a_state_without_all_its_parts_is_not_resumed():
    run(options(), max_minutes=0.0)
    tree = state_of()
    del tree["rng"]
    torch.save(tree, "experiments/tiny/state.pt")
    with pytest.raises(WeightsError, match=r"cannot resume from .*rng"):
        run(options())


# ---- what cannot go on


def test_a_loss_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch):
    run(options(), max_minutes=0.0)
    before = state_of()
    monkeypatch.setattr(
        loop, "endpoint_error", lambda *_: (torch.tensor(math.nan), torch.tensor(0.0))
    )
    with pytest.raises(TrainingError, match="loss is nan at step 1; 'experiments/tiny' is as it"):
        run(options())
    assert_same(state_of(), before)


def test_weights_that_are_not_finite_are_not_saved():
    run(options(), max_minutes=0.0)
    files = {path: path.read_bytes() for path in Path("experiments/tiny").glob("*.[ps]*t*")}
    assert len(files) == 2
    model = IART(options().network_g.config())
    with torch.no_grad():
        model.extract.weight[0] = math.inf
    optimizer = torch.optim.Adam(model.parameters())
    state = TrainState(5, model, averaged(model), optimizer, np.random.default_rng(0))
    with pytest.raises(TrainingError, match="weights are not finite after step 5"):
        state.save(Path("experiments/tiny/state.pt"))
    assert {path: path.read_bytes() for path in files} == files
    assert not list(Path("experiments/tiny").glob("*.part"))


def test_scenes_are_checked_before_the_first_step():
    with pytest.raises(DataError, match="scene 'one' is too small for crops of 128 pixels; so are"):
        run(options(datasets__train__gt_size=128))
    with pytest.raises(DataError, match="no scene of 'scenes' has 5 frames"):
        run(options(datasets__train__num_frame=5))
    with pytest.raises(DataError, match="no scenes in 'elsewhere'"):
        run(options(datasets__train__dataroot_gt="elsewhere"))


def test_short_scenes_serve_as_stills(folder: Path):
    for i in range(1, 4):
        (folder / "scenes" / "one" / f"{i}.png").unlink()
    run(options(train__flow__total_iter=0, datasets__train__batch_size_per_gpu=4))
    stills = options(
        name="stills", datasets__train__num_frame=6, datasets__train__still_share=1.0,
        train__flow__total_iter=0,
    )  # fmt: skip
    run(stills)


# ---- kills

CHILD = """
import sys
from pathlib import Path
import torch
from iart.train.loop import train
from iart.train.options import Options
torch.set_num_threads(1)
options = Options.model_validate_json(Path("options.json").read_text())
train(options, torch.device("cpu"), lambda _: None)
"""


def kill_while_training(delay_seconds: float) -> None:
    """Start the run of `options.json` and kill it once it has saved and some time has passed."""
    state = Path("experiments/tiny/state.pt")
    before = state.stat().st_mtime_ns if state.exists() else 0
    child = subprocess.Popen([sys.executable, "-c", CHILD], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 90
        while not (state.exists() and state.stat().st_mtime_ns > before):
            assert child.poll() is None, child.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(delay_seconds)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -9


def kills(delays_seconds: list[float]) -> None:
    endless = options(train__total_iter=10**6, logger__save_checkpoint_minutes=0.0)
    Path("options.json").write_text(endless.model_dump_json())
    step = 0
    for delay in delays_seconds:
        kill_while_training(delay)
        last, step = step, state_of()["step"]
        assert step > last
        weights = Path("experiments/tiny/tiny.safetensors")
        if weights.exists():  # or it was killed between its first two files
            assert read_model(weights).config == endless.network_g.config()
    assert {"resumed at step": step} in run(endless, max_minutes=0.0)
    assert state_of()["step"] == step + 1


def test_a_kill_leaves_a_state_that_resumes():
    kills([0.1])


@pytest.mark.slow
def test_five_kills_leave_states_that_resume():
    kills([0.0, 0.03, 0.1, 0.31, 0.5])
