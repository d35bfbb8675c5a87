"""Losses, gradients and weights that are not finite end a run, or a step of it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from iart.errors import TrainingError
from iart.model import IART
from iart.train import loop
from iart.train.state import RunFolder, new_state
from iart.train.step import Objective
from tests.train.tiny import assert_same, folder_of, options, run, state_of

pytestmark = pytest.mark.usefixtures("folder")


def add_to_loss(
    monkeypatch: pytest.MonkeyPatch, count: int, action: Callable[[torch.Tensor], Any]
) -> None:
    """Do something when the loss is computed for the `count`th time; its result is added to it."""
    original, calls = Objective.terms, []

    def changed(
        self: Objective, output: torch.Tensor, truth: torch.Tensor, step: float
    ) -> dict[str, torch.Tensor]:
        calls.append(1)
        terms = original(self, output, truth, step)
        more = action(output) if len(calls) == count else None
        return terms if more is None else {**terms, "pixel": terms["pixel"] + more}

    monkeypatch.setattr(loop.Objective, "terms", changed)


def test_a_loss_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch):
    run(options(name="two", train__total_iter=2, logger__save_checkpoint_freq=1))
    add_to_loss(monkeypatch, 3, lambda _: math.nan)
    with pytest.raises(TrainingError) as caught:
        run(options(logger__save_checkpoint_freq=1))
    message = str(caught.value)
    file = "'experiments/tiny/nonfinite-step2.pt'"
    assert f"loss is nan, loss/pixel is nan at step 2: {file} has the batch (clip '00" in message
    assert_same(state_of(), state_of("two"))  # as before that step
    left = torch.load(folder_of() / "nonfinite-step2.pt", weights_only=True)
    assert left["step"] == 2
    (batch,) = left["batches"]
    assert math.isnan(batch["loss"])
    assert batch["lq"].shape == (1, 3, 3, 8, 8)
    assert batch["gt"].shape == (1, 3, 3, 32, 32)
    (origin,) = batch["origins"]
    assert origin["clip"] in ("001", "002")
    assert origin["index"] == 2
    assert len(origin["frames"]) == 3


def test_steps_that_are_not_finite_can_be_left_out(monkeypatch: pytest.MonkeyPatch):
    add_to_loss(monkeypatch, 2, lambda _: math.inf)
    skipping = {"train__on_nonfinite": "skip", "train__nonfinite_limit": 1}
    run(options(**skipping))
    state = state_of()
    assert (state["step"], state["samples"], state["nonfinite"]) == (4, 4, 1)
    steps = {int(s["step"]) for s in state["optimizer"]["state"].values()}
    assert steps == {3}
    add_to_loss(monkeypatch, 1, lambda _: math.inf)
    with pytest.raises(
        TrainingError, match=r"loss is inf, loss/pixel is inf at step 4 \(2 such steps\)"
    ):
        run(options(train__total_iter=6, **skipping))


def test_a_gradient_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch):
    # √0 = 0, but its slope is infinite; and infinity times 0 is no number.
    add_to_loss(monkeypatch, 1, lambda output: (0 * output.sum()).sqrt())
    with pytest.raises(TrainingError, match="the gradient is not finite at step 0: 'experiments"):
        run(options())


def test_weights_that_are_not_finite_are_not_saved():
    run(options(), max_minutes=0.0)
    files = {path: path.read_bytes() for path in folder_of().glob("*/*.s*")}
    weights, saved = sorted(files)
    # A state that was saved has its weights, whenever the run was killed.
    assert weights.stat().st_mtime_ns <= saved.stat().st_mtime_ns
    model = IART(options().network_g.config())
    with torch.no_grad():
        model.extract.weight[0] = math.inf
    state = new_state(model, options(), torch.float32)
    state.step = 1
    with pytest.raises(TrainingError, match="weights are not finite after step 1"):
        RunFolder(options().name, model.config, keep=1).save(state)
    assert {path: path.read_bytes() for path in files} == files
    assert not list(folder_of().glob("*/*.part"))
