"""Training on made clips with a tiny network: it learns, and stopping changes nothing."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from iart.errors import (
    DataError,
    MissingExtraError,
    OutputError,
)
from iart.train.processes import stop_signals
from iart.train.step import depth_draws
from iart.weights import read_metadata, read_model
from tests.train.tiny import (
    SCENES,
    assert_same,
    folder_of,
    make_scenes,
    options,
    run,
    state_of,
)

pytestmark = pytest.mark.usefixtures("folder")


def entries(name: str = "tiny") -> list[dict[str, Any]]:
    lines = (folder_of(name) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# ---- a run


def test_a_run_learns_and_leaves_weights(folder: Path):
    for path in (folder / "pairs" / "lq").rglob("*.png"):  # darker: what it can learn soon
        Image.open(path).point([value // 2 for value in range(256)] * 3).save(path)
    chosen = options(
        train__total_iter=20, train__optim_g__lr=1e-2, train__flow_lr_mul=0.0,
        network_g__drop_path_rate=0.0, logger__print_freq=5,
    )  # fmt: skip
    lines = run(chosen)
    losses = [entry["loss"] for entry in entries()]
    assert len(losses) == 4
    assert losses[-1] < 0.6 * losses[0]
    weights = folder_of() / "models" / "net_g_20.safetensors"
    assert lines[-1] == f"weights: {weights}"
    assert read_model(weights).config == chosen.network_g.config()
    assert read_metadata(weights) == {"step": "20"}
    assert_same(dict(read_model(weights).state_dict()), dict(state_of()["average"]))
    assert lines[0].startswith("step 5 of 20  loss 0.")
    assert lines[0].endswith(" left")


def test_training_begins_at_the_bilinear_enlargement():
    run(options(train__total_iter=0))
    frames = torch.rand(1, 2, 3, 8, 8)
    enlarged = torch.nn.functional.interpolate(frames[0], scale_factor=4, mode="bilinear")
    model = read_model(folder_of() / "models" / "net_g_0.safetensors").eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(frames)[0], enlarged)


def test_micro_batches_are_one_batch():
    """The order of samples is the same: 2 × 2 samples are 1 × 4."""
    together = options(name="one", datasets__train__batch_size_per_gpu=4)
    apart = options(
        name="two", datasets__train__batch_size_per_gpu=2, train__gradient_accumulation_steps=2
    )
    run(together)
    run(apart)
    losses = [[entry["loss"] for entry in entries(name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert state_of("one")["samples"] == state_of("two")["samples"] == 16


def test_the_average_is_basicsr_s():
    """average ← 0.9 average + 0.1 weights, from the first weights on."""
    run(options(train__total_iter=0))
    average = state_of()["model"]["head.last.weight"]
    for step in (1, 2, 3):
        run(options(train__total_iter=step))
        state = state_of()
        average = 0.9 * average + 0.1 * state["model"]["head.last.weight"]
    torch.testing.assert_close(state["average"]["head.last.weight"], average)


def test_the_gradient_is_limited():
    clipped = {"train__use_grad_clip": True, "train__grad_clip_norm": 1e-9, "train__total_iter": 1}
    adam = {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.0}
    run(options(name="clipped", train__optim_g=adam, **clipped))
    run(options(name="plain", train__optim_g=adam, train__total_iter=1))
    first, second = (
        state_of("clipped")["optimizer"]["state"],
        state_of("plain")["optimizer"]["state"],
    )
    longest = [max(float(s["exp_avg"].abs().max()) for s in x.values()) for x in (first, second)]
    assert longest[0] < 1e-9 < longest[1]
    assert entries("clipped")[0]["gradient_norm"] > 1e-6  # before it was limited


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_weight_decay(kind: str):
    """With a gradient of zero only AdamW's decay moves weights by itself: lr · decay of each."""
    optim = {"type": kind, "lr": 1e-3, "weight_decay": 0.5}
    run(options(train__optim_g=optim, train__total_iter=1, train__pixel_opt__loss_weight=0.0))
    after = state_of()["model"]["extract.weight"]
    run(options(name="start", train__total_iter=0))
    before = state_of("start")["model"]["extract.weight"]
    if kind == "AdamW":
        torch.testing.assert_close(after, before * (1 - 1e-3 * 0.5))
    else:
        assert not torch.allclose(after, before * (1 - 1e-3 * 0.5))


def test_bfloat16_trains_and_keeps_weights_in_float32():
    run(options(train__precision="bfloat16", train__total_iter=2))
    assert all(t.dtype == torch.float32 for t in state_of()["model"].values())
    run(options(name="full", train__total_iter=2))
    half, full = ([e["loss"] for e in entries(name)] for name in ("tiny", "full"))
    assert half == pytest.approx(full, rel=0.02)
    assert half != full


def test_recomputation_gives_the_same_weights():
    run(options(name="kept"))
    run(options(name="again", network_g__use_checkpoint=True))
    assert_same(state_of("kept")["model"], state_of("again")["model"])


# ---- flow


def flow_weights(name: str) -> torch.Tensor:
    return state_of(name)["model"]["flow.levels.0.0.weight"]


def test_flow_is_fixed_for_the_first_steps():
    run(options(name="start", train__total_iter=0))
    run(options(name="fixed", train__total_iter=2, train__fix_flow=2))
    assert flow_weights("fixed").equal(flow_weights("start"))
    optimizer = state_of("fixed")["optimizer"]
    flow_indices = set(optimizer["param_groups"][1]["params"])
    assert not flow_indices & optimizer["state"].keys()  # Adam has not begun with flow
    run(options(name="moving", train__total_iter=3, train__fix_flow=2))
    assert not flow_weights("moving").equal(flow_weights("start"))
    optimizer = state_of("moving")["optimizer"]
    assert {int(optimizer["state"][i]["step"]) for i in flow_indices} == {1}


def test_flow_that_never_moves_costs_no_gradient():
    run(options(name="start", train__total_iter=0))
    run(options(train__flow_lr_mul=0.0, train__total_iter=2))
    assert flow_weights("tiny").equal(flow_weights("start"))


def lessons(**changes: Any) -> Any:
    flow = {"total_iter": 3, "lr": 1e-3, "size": 16, "batch_size_per_gpu": 1}
    return options(datasets__train=SCENES, train__flow={**flow, **changes})


def test_teaching_flow_lowers_its_error(folder: Path):
    make_scenes(folder / "scenes")
    for count in (20, 50):  # errors are logged as means since the last save
        run(
            lessons(total_iter=count, batch_size_per_gpu=4, lr=3e-3, max_shift=2.0),
            max_minutes=0.0 if count < 50 else None,
        )
    errors = [entry["flow_error"] for entry in entries() if "flow_error" in entry]
    assert errors[-1] < 0.9 * errors[0]


def test_lessons_in_pieces_are_straight_lessons(folder: Path):
    make_scenes(folder / "scenes")
    straight = lessons().model_copy(update={"name": "straight"})
    run(straight)
    for _ in range(3):  # stopped after each lesson, and after the first step
        run(lessons(), max_minutes=0.0)
    assert state_of()["step"] == 1
    run(lessons())
    assert_same(state_of(), state_of("straight"))


# ---- parts


def test_draws_belong_to_samples():
    config = options().network_g.config()
    draws = depth_draws(config, 0, [3, 8], 5)
    assert draws is not None
    assert draws.shape == (2, 2, 5, 2, 2)
    assert 0 <= draws.min() < draws.max() < 1
    alone = [depth_draws(config, 0, [index], 5) for index in (3, 8)]
    assert all(x is not None and x[0].equal(y) for x, y in zip(alone, draws, strict=True))
    another = depth_draws(config, 1, [3], 5)
    assert another is not None
    assert not another[0].equal(draws[0])
    assert depth_draws(replace(config, drop_path=0.0), 0, [3], 5) is None


def test_a_second_signal_does_not_wait_for_the_step(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("iart.train.processes.time.monotonic", lambda: now)
    with stop_signals() as stop:
        assert not stop.received
        signal.raise_signal(signal.SIGINT)
        now = 100.5  # a launcher passed it on
        signal.raise_signal(signal.SIGINT)
        assert stop.received
        now = 102.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_training_without_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'iart-vsr\[train\]'"):
        run(options())


def test_a_folder_that_cannot_be_made():
    Path("experiments").write_text("a file")
    with pytest.raises(OutputError, match="cannot write 'experiments/tiny/training_states'"):
        run(options())


# ---- data


def test_scenes_are_checked_before_the_first_step(folder: Path):
    make_scenes(folder / "scenes")
    with pytest.raises(DataError, match="scene 'one' is too small for crops of 128 pixels"):
        run(options(datasets__train={**SCENES, "gt_size": 128}))
    assert not folder_of().exists()
