"""Learning rates against values of BasicSR and closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iart.train.options.recipe import CosineOptions, MultiStepOptions, RecipeOptions

GOLDENS = np.load(Path(__file__).parents[1] / "golden" / "schedule_goldens.npz")


def cosine(step: int, base: float, periods: Any, weights: Any, lowest: float) -> float:
    kind = "CosineAnnealingRestartLR"
    schedule = CosineOptions(type=kind, periods=periods, restart_weights=weights, eta_min=lowest)
    return schedule.rate(step, base)


def multi_step(
    step: int, base: float, milestones: Any, gamma: float, restarts: Any, weights: Any
) -> float:
    schedule = MultiStepOptions(
        type="MultiStepRestartLR", milestones=milestones, gamma=gamma, restarts=restarts,
        restart_weights=weights,
    )  # fmt: skip
    return schedule.rate(step, base)


def test_cosine_with_restarts_is_basicsr_s():
    periods = tuple(GOLDENS["schedule.periods"].tolist())
    weights = tuple(GOLDENS["schedule.weights"].tolist())
    rates = [cosine(i, 2e-4, periods, weights, 1e-7) for i in range(100)]
    np.testing.assert_allclose(rates, GOLDENS["schedule.cosine_restart.lr"], rtol=1e-12)


def test_cosine_in_closed_form():
    def rate(step: int) -> float:
        return cosine(step, 1e-3, (100,), (1.0,), 1e-5)

    assert rate(0) == pytest.approx(1e-3)
    assert rate(50) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate(25) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)
    assert rate(100) == rate(1000) == pytest.approx(1e-5)


@given(
    step=st.integers(0, 60),
    milestones=st.lists(st.integers(1, 50), max_size=4, unique=True).map(sorted),
    restarts=st.lists(st.integers(1, 50), max_size=2, unique=True).map(sorted),
)
def test_multi_step_is_its_updates_one_by_one(
    step: int, milestones: list[int], restarts: list[int]
):
    """The recursive form: at a restart the weighted base, at a milestone γ times the last rate."""
    weights = (1.0, 0.5, 0.25)[: len(restarts) + 1]
    rate = 1e-3
    for i in range(step + 1):
        if i in (0, *restarts):
            rate = 1e-3 * weights[(0, *restarts).index(i)]
        elif i in milestones:
            rate *= 0.4
    closed = multi_step(step, 1e-3, tuple(milestones), 0.4, (0, *restarts), weights)
    assert closed == pytest.approx(rate)


def test_before_the_first_restart_the_weight_is_one():
    assert multi_step(4, 1e-3, (2, 4), 0.1, (10,), (0.5,)) == pytest.approx(1e-5)
    assert multi_step(10, 1e-3, (2, 4), 0.1, (10,), (0.5,)) == pytest.approx(5e-4)


def section(scheduler: dict[str, Any], **train: Any) -> RecipeOptions:
    tree = {"total_iter": 1, "optim_g": {"lr": 1.0}, "pixel_opt": {"type": "L1Loss"}}
    return RecipeOptions.model_validate({**tree, "scheduler": scheduler, **train})


def test_warm_up_is_linear_and_the_schedule_does_not_wait_for_it():
    cosine = {"type": "CosineAnnealingRestartLR", "periods": [100]}
    warm = section(cosine, warmup_iter=10)
    rates = [warm.learning_rate(step, 1.0) for step in range(20)]
    assert rates[:9] == pytest.approx([0.1 * i for i in range(1, 10)])
    assert rates[9:] == pytest.approx([(1 + math.cos(math.pi * i / 100)) / 2 for i in range(9, 20)])
    assert section(cosine).learning_rate(0, 1.0) == 1.0


def test_a_multi_step_schedule_is_chosen_by_its_type():
    steps = section({"type": "MultiStepLR", "milestones": [5]})
    assert [steps.learning_rate(s, 2.0) for s in (4, 5)] == pytest.approx([2.0, 0.2])
