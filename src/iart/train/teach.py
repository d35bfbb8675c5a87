"""The first phase of a run without flow weights: the flow network learns synthetic motion.

Its state is its own, `training_states/flow.pt`; the second phase begins with what it has learnt.
Every process does the same, which is little: the lessons take minutes.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iart.data.clips import Scene
from iart.errors import TrainingError, WeightsError
from iart.model.flow import SpyNet
from iart.train.flow import endpoint_error, flow_batch, quarter
from iart.train.log import Log
from iart.train.recipe_options import FlowOptions
from iart.train.schedule import cosine_restart
from iart.weights.tensorfile import atomic_file

WARM_UP = 100  # steps
SAVE_EVERY = 500  # steps; a lesson of a small network takes 0.05 s
# Tells these draws from those of `iart.data.augment` and `iart.train.draws`.
_LESSON = 5


def teach_flow(
    flow: SpyNet,
    scenes: Sequence[Scene],
    options: FlowOptions,
    seed: int,
    path: Path,
    log: Log,
    *,
    main: bool,
    stopped: Callable[[], bool],
) -> bool:
    """Teach until `total_iter`; returns whether that was reached.

    Args:
        flow: begins as `start_flow` leaves it, and is taught in place.
        scenes: pictures to move.
        options: section `train.flow`.
        seed: of the run.
        path: of the state to go on from and to save.
        log: takes the mean error, once for every save.
        main: whether this process saves.
        stopped: asked after every step whether to save and return.

    Raises:
        TrainingError: the error is not finite; the state saved last stays.
        WeightsError: the state cannot be used.
    """
    optimizer = torch.optim.Adam(flow.parameters(), betas=(0.9, 0.99))
    step = _load(path, flow, optimizer) if path.exists() else 0
    small, device, errors = quarter(scenes), flow.mean.device, []
    while step < options.total_iter:
        for group in optimizer.param_groups:
            group["lr"] = lesson_rate(step, options)
        rng = np.random.default_rng((seed, step, 0, _LESSON))
        pairs, truth = flow_batch(scenes, small, options, rng)
        loss, error = endpoint_error(flow, pairs.to(device), truth.to(device))
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"flow's error is {loss.item()} at its step {step}; '{path}' is as it was saved "
                "last. Go on from it with a lower train.flow.lr"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        errors.append(error.item())
        ended = stopped()
        if ended or step == options.total_iter or step % SAVE_EVERY == 0:
            log.lesson(step, options.total_iter, float(np.mean(errors)))
            errors.clear()
            if main:
                _save(path, step, flow, optimizer)
        if ended:
            return step == options.total_iter
    return True


def lesson_rate(step: int, options: FlowOptions) -> float:
    """Half a cosine from `lr` to a hundredth of it, with a linear warm-up."""
    warm = min((step + 1) / WARM_UP, 1)
    return warm * cosine_restart(step, options.lr, (options.total_iter,), (1.0,), options.lr / 100)


def _save(path: Path, step: int, flow: SpyNet, optimizer: torch.optim.Optimizer) -> None:
    tree = {"step": step, "flow": flow.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_file(path) as file:
        torch.save(tree, file)


def _load(path: Path, flow: SpyNet, optimizer: torch.optim.Optimizer) -> int:
    try:
        tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        flow.load_state_dict(tree["flow"])
        optimizer.load_state_dict(tree["optimizer"])
        return int(tree["step"])
    except Exception as error:  # torch raises many kinds for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"cannot resume from '{path}': {reason}. Move it away to teach flow anew"
        ) from error
