"""Updates as CUDA graphs: what they may do, and that replays are what was recorded.

Without a GPU, `Again` stands for its graphs; the rest is what a GPU would run.
"""

import json
import math
import runpy
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iart.data.loader import Batch
from iart.data.samples import Origin
from iart.graphs import Recorder
from iart.model import IART
from iart.train import captured, loop
from iart.train.captured import WARM, CapturedUpdate, obstacle
from iart.train.state import TrainState, new_state
from iart.train.step import Inputs, Learnt, Objective, Update, inputs_of
from tests.train.tiny import adversarial, assert_same, folder_of, options, run, state_of

OPERATIONS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "operations.py"))
CPU = torch.device("cpu")
ADAM = import_module("torch.optim.adam")
CLIPPED = {"train__use_grad_clip": True, "train__grad_clip_norm": 1e-3}


class Again(Recorder):
    """Stands for a GPU's graphs: a replay computes again, and overwrites what was given."""

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        if getattr(function, "__name__", "") == "move":  # which is not to happen now
            return function, None
        first = function()

        def replay() -> None:
            for old, new in zip(_tensors(first), _tensors(function()), strict=True):
                old.copy_(new)

        return replay, first


def _tensors(learnt: Learnt) -> list[Tensor]:
    return list(tree_leaves([getattr(learnt, f.name) for f in fields(learnt)]))


@pytest.fixture
def _recorded(monkeypatch: pytest.MonkeyPatch, _capturable: None) -> None:
    """Runs on the CPU are recorded like those on a GPU."""
    monkeypatch.setattr(captured, "Recorder", Again)
    monkeypatch.setattr(loop, "obstacle", lambda *_: None)


@pytest.fixture
def _capturable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam does on the CPU what it does on a GPU."""
    monkeypatch.setattr(ADAM, "_get_capturable_supported_devices", lambda **_: ["cpu"])


def parts(
    device: torch.device, dtype: torch.dtype = torch.float32, **changes: Any
) -> tuple[TrainState, Update]:
    """An update of the tiny run, as on a GPU."""
    chosen = options(**changes)
    with torch.device(device):
        model = IART(chosen.network_g.config()).train()
    model.backend = "auto"
    state = new_state(model, chosen, dtype)
    state.make_capturable()
    objective = Objective(chosen.train, device, model.flow)
    return state, Update(model, objective, state, chosen, dtype)


def inputs(state: TrainState, device: torch.device, seed: int) -> Inputs:
    """Other numbers for every seed."""
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, 3, 32, 32, generator=generator)
    origins = tuple(Origin(2 * seed + i, "", (), 0, 0, (8, 8), "") for i in range(2))
    return inputs_of(Batch(gt[..., ::4, ::4], gt, origins, 0.0), state.model.config, 0, device)


# ---- what an update may do


class Shapes(TorchDispatchMode):
    """Notes what is computed: its name, and the shapes of what it takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        self.seen.append((str(func), *(tuple(x.shape) for x in tensors)))
        return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {**CLIPPED, "train__fix_flow": 1},
        {"train__flow_lr_mul": 0.0},
        {"network_g__use_checkpoint": True},
    ],
)
def test_an_update_on_a_gpu_never_waits(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]):
    """On PyTorch's meta device, which takes a GPU's way: a number that is asked for raises."""
    monkeypatch.setattr(ADAM, "_get_capturable_supported_devices", lambda **_: ["meta"])
    device = torch.device("meta")
    state, update = parts(device, **changes)
    batch = inputs(state, device, 0)
    for _ in range(2):
        state.set_rates((1e-3, 1e-3))
        with OPERATIONS["Operations"]() as operations:
            update.gradients(batch)
            update.move()
        state.step += 1
        assert operations.waits == []
        assert operations.calls["aten.lerp_"] or operations.calls["aten._foreach_lerp_"]


@pytest.mark.usefixtures("_capturable")
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str
)
def test_operations_and_addresses_do_not_depend_on_numbers(dtype: torch.dtype):
    state, update = parts(CPU, dtype, **CLIPPED)
    seen, addresses = [], []
    for seed in range(3):
        batch = inputs(state, CPU, seed)
        state.set_rates((1e-3 / (seed + 1), 1e-4))
        with OPERATIONS["Operations"]() as operations, Shapes() as shapes:
            update.gradients(batch)
            update.move()
        state.step += 1
        assert operations.waits == []
        seen.append(shapes.seen)
        averages = (x for values in state.optimizer.state.values() for x in values.values())
        rates = (group["lr"] for group in state.optimizer.param_groups)
        kept = (*state.model.parameters(), *state.average.parameters(), *averages, *rates)
        addresses.append([x.data_ptr() for x in kept])
    assert seen[1] == seen[2]
    assert addresses[0] == addresses[1] == addresses[2]


# ---- replays


def entries(name: str) -> list[dict[str, Any]]:
    lines = (folder_of(name) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_learnt_alike(a: str, b: str) -> None:
    """Two runs, within rounding."""
    for key in ("loss", "gradient_norm", "lr"):
        assert [e[key] for e in entries(a)] == pytest.approx([e[key] for e in entries(b)], rel=1e-4)
    first, second = state_of(a), state_of(b)
    assert first["optimizer"]["state"].keys() == second["optimizer"]["state"].keys()
    for part in ("model", "average"):
        torch.testing.assert_close(first[part], second[part], rtol=1e-4, atol=1e-4)


SAID = "steps are replayed as CUDA graphs from step {} on"


@pytest.mark.usefixtures("folder")
def test_a_replayed_run_is_the_run(request: pytest.FixtureRequest):
    """With stochastic depth, and a gradient that is limited."""
    changes = {"train__total_iter": WARM + 3, **CLIPPED}
    run(options(name="plain", **changes))
    request.getfixturevalue("_recorded")
    assert SAID.format(WARM + 1) in run(options(name="replayed", **changes))
    assert_learnt_alike("plain", "replayed")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_a_run_goes_on_either_way(monkeypatch: pytest.MonkeyPatch):
    """With flow that begins to move on the way."""
    long, short = ({"train__fix_flow": 1, "train__total_iter": n} for n in (WARM + 4, WARM + 2))
    plain = run(options(name="plain", **long))
    assert not any("CUDA" in line for line in plain)
    run(options(name="without", **{**long, "train__total_iter": 2}))
    with monkeypatch.context() as patch:
        patch.setattr(captured, "Recorder", Again)
        patch.setattr(loop, "obstacle", lambda *_: None)
        patch.setattr(ADAM, "_get_capturable_supported_devices", lambda **_: ["cpu"])
        assert SAID.format(WARM + 3) in run(options(name="without", **long))
        assert SAID.format(WARM + 2) in run(options(name="with", **short))
    run(options(name="with", **long))
    for name in ("without", "with"):
        assert_learnt_alike("plain", name)
    groups = state_of("with")["optimizer"]["param_groups"]
    assert [group["capturable"] for group in groups] == [False, False]
    assert all(isinstance(group["lr"], float) for group in groups)
    saved = state_of("without")["optimizer"]["param_groups"]
    assert [group.keys() for group in saved] == [group.keys() for group in groups]


@pytest.mark.usefixtures("_capturable")
def test_graphs_of_another_kind_and_those_let_go_are_recorded_anew(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(captured, "Recorder", Again)
    said: list[str] = []
    state, update = parts(CPU, train__fix_flow=WARM + 2)
    again = CapturedUpdate(update, state, CPU, None, said.append)

    def step() -> Learnt:
        learnt = again.gradients(inputs(state, CPU, state.step))
        again.move()
        state.step += 1
        return learnt

    replayed = []
    for number in range(2 * (WARM + 2) + 1):
        if number == WARM + 1:
            again.release()
        learnt = step()
        replayed.append(again.replays)
        assert math.isfinite(learnt.norm.item())
    warm = [False] * WARM
    assert replayed == [*warm, True, True, *warm, True, True, True][: len(replayed)]
    assert said == [SAID.format(WARM + 1), SAID.format(2 * WARM + 3)]
    small = inputs(state, CPU, 0)
    small = Inputs(small.lq[:1], small.gt[:1], None if small.draws is None else small.draws[:1])
    assert again.gradients(small).output.shape[0] == 1
    assert not again.replays


@pytest.mark.slow
@pytest.mark.usefixtures("_recorded", "folder")
def test_a_replay_whose_loss_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch):
    broken, terms = WARM + 2, Objective.terms

    def infinite(self: Objective, output: Tensor, truth: Tensor, step: float) -> Any:
        found = terms(self, output, truth, step)
        return {k: x * math.inf for k, x in found.items()} if step == broken - 1 else found

    monkeypatch.setattr(Objective, "terms", infinite)
    lines = run(options(train__total_iter=WARM + 3, train__on_nonfinite="skip"))
    assert any("replayed as CUDA graphs" in line for line in lines)
    state = state_of()
    assert (state["step"], state["nonfinite"]) == (WARM + 3, 1)
    assert {int(x["step"]) for x in state["optimizer"]["state"].values()} == {WARM + 2}
    assert all(x.isfinite().all() for x in state["model"].values())


@pytest.mark.usefixtures("folder")
def test_a_recording_that_fails_is_said_once_and_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    """Here it truly fails: a CPU has no graphs."""
    changes = {"train__total_iter": WARM + 3}
    run(options(name="plain", **changes))
    monkeypatch.setattr(loop, "obstacle", lambda *_: None)
    monkeypatch.setattr(TrainState, "make_capturable", lambda _: None)
    lines = run(options(name="tried", **changes))
    (said,) = (line for line in lines if "graphs" in line)
    assert said.startswith("steps are not replayed as CUDA graphs: recording one failed (")
    assert_same(state_of("tried"), state_of("plain"))


@pytest.mark.usefixtures("_capturable")
def test_a_replay_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch):
    class Wrong(Again):
        def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
            replay, first = super().record(function)

            def wrong() -> None:
                replay()
                first.norm.mul_(1.1)

            return (replay if first is None else wrong), first

    monkeypatch.setattr(captured, "Recorder", Wrong)
    said: list[str] = []
    state, update = parts(CPU)
    again = CapturedUpdate(update, state, CPU, None, said.append)
    for seed in range(WARM + 2):
        again.gradients(inputs(state, CPU, seed))
        again.move()
        assert not again.replays
    (line,) = said
    assert "(a replay gives another loss or gradient)" in line


# ---- what is not recorded


def test_what_stands_in_the_way_is_named():
    state, _ = parts(CPU)
    gpu = torch.device("cuda")
    assert obstacle(options(), state, CPU, 1) == ""
    assert obstacle(options(), state, gpu, 1) is None
    for expected, chosen, count in (
        ("several processes", options(), 2),
        ("several micro-batches", options(train__gradient_accumulation_steps=2), 1),
    ):
        assert expected in (obstacle(chosen, state, gpu, count) or "")
    chosen = options(**adversarial())
    with_discriminators = new_state(state.model, chosen, torch.float32)
    assert "discriminators" in (obstacle(chosen, with_discriminators, gpu, 1) or "")
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    assert "float16" in (obstacle(options(), state, gpu, 1) or "")


# ---- on a GPU


@pytest.mark.cuda
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("precision", "share"), [("float32", 0.2), ("bfloat16", 0.5)])
def test_a_gpu_learns_the_same_with_graphs(
    monkeypatch: pytest.MonkeyPatch, precision: str, share: float
):
    """As far as rounding allows, which Adam makes larger where there is hardly a gradient."""
    long = {"train__total_iter": WARM + 8, "train__precision": precision, **CLIPPED}
    lines: list[str] = []
    loop.train(options(name="graphs", **long), device="cuda", report=lines.append)
    assert SAID.format(WARM + 1) in lines
    with monkeypatch.context() as patch:
        patch.setattr(loop, "obstacle", lambda *_: "")
        loop.train(options(name="plain", **long), device="cuda")
        loop.train(options(name="start", **{**long, "train__total_iter": 0}), device="cuda")
    losses = [[e["loss"] for e in entries(name)] for name in ("graphs", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    graphs, plain, start = (
        torch.cat([x.cpu().flatten() for x in state_of(name)["model"].values()])
        for name in ("graphs", "plain", "start")
    )
    assert (graphs - plain).norm() < share * (plain - start).norm()
    # Either goes on with the other's state.
    loop.train(options(name="plain", **{**long, "train__total_iter": WARM + 9}), device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "obstacle", lambda *_: "")
        loop.train(options(name="graphs", **{**long, "train__total_iter": WARM + 9}), device="cuda")
    assert state_of("plain")["step"] == state_of("graphs")["step"] == WARM + 9
