"""Learning rates as pure functions of the step, with BasicSR's names and values.

Steps count from 0: `rate(step)` is the rate of the update that takes the weights from `step` to
`step` + 1. Where BasicSR says iteration (it counts from 1) that is `step` + 1.
"""

import math
from bisect import bisect_left, bisect_right
from itertools import accumulate

from iart.train.recipe_options import CosineOptions, TrainOptions


def learning_rate(step: int, base: float, train: TrainOptions) -> float:
    """Rate of a group of parameters whose full rate is `base`.

    Args:
        step: updates done before.
        base: `optim_g.lr`, times `flow_lr_mul` for the flow network.
        train: section `train` of an option file: `scheduler` and `warmup_iter`.
    """
    if step + 1 < train.warmup_iter:
        return base * (step + 1) / train.warmup_iter
    scheduler = train.scheduler
    if isinstance(scheduler, CosineOptions):
        return cosine_restart(
            step, base, scheduler.periods, scheduler.restart_weights, scheduler.eta_min
        )
    return multi_step_restart(
        step,
        base,
        scheduler.milestones,
        scheduler.gamma,
        scheduler.restarts,
        scheduler.restart_weights,
    )


def cosine_restart(
    step: int,
    base: float,
    periods: tuple[int, ...],
    restart_weights: tuple[float, ...],
    eta_min: float,
) -> float:
    """η + w/2 (base − η)(1 + cos π s/p), s steps into a period of length p and weight w.

    A period includes its last step; after the last period the rate stays.
    """
    ends = list(accumulate(periods))
    step = min(step, ends[-1])
    i = bisect_left(ends, step)
    done = (step - ends[i] + periods[i]) / periods[i]
    return eta_min + restart_weights[i] * (base - eta_min) * (1 + math.cos(math.pi * done)) / 2


def multi_step_restart(
    step: int,
    base: float,
    milestones: tuple[int, ...],
    gamma: float,
    restarts: tuple[int, ...],
    restart_weights: tuple[float, ...],
) -> float:
    """Base · γᵐ · w, m milestones after the last restart, whose weight is w.

    Before the first restart w = 1. A milestone at a restart does not count.
    """
    i = bisect_right(restarts, step) - 1
    last, weight = (restarts[i], restart_weights[i]) if i >= 0 else (-1, 1.0)
    return weight * base * gamma ** sum(last < milestone <= step for milestone in milestones)
