"""Everything a run needs to go on as if it had not stopped, in one object, saved in one piece."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iart.errors import TrainingError, WeightsError
from iart.model import IART
from iart.weights.tensorfile import atomic_file


@dataclass
class TrainState:
    """A training run between two steps.

    There is no generator of random numbers in it: every draw is made from (`seed`, index of the
    sample), so that `seed` and `samples` say where all of them are, on any number of processes.
    """

    model: IART
    average: IART
    """Exponential moving average of `model`; this one ships."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Keeps gradients of float16 in range; does nothing in other precisions."""
    seed: int
    step: int = 0
    samples: int = 0
    """Samples that all processes have used."""
    nonfinite: int = 0
    """Steps that were skipped for a loss that was not finite."""
    best: float = -math.inf
    """Highest score of a validation."""

    def update_average(self, decay: float) -> None:
        """Average ← decay · average + (1 − decay) · model, from the first weights on (BasicSR)."""
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)

    def require_finite(self) -> None:
        """See that all weights can be used.

        Raises:
            TrainingError: a weight is not finite.
        """
        if not all(p.isfinite().all() for p in self.model.parameters()):
            raise TrainingError(
                f"weights are not finite after step {self.step}; what was saved last is as it was."
                " Go on from it with a lower learning rate"
            )

    def save(self, path: Path) -> None:
        """Write beside, then rename: a kill at any moment leaves the old file or the new one.

        Raises:
            OutputError: the operating system refuses; the old file stays.
        """
        tree = {
            "step": self.step,
            "samples": self.samples,
            "seed": self.seed,
            "nonfinite": self.nonfinite,
            "best": self.best,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        with atomic_file(path) as file:
            torch.save(tree, file)

    def load(self, path: Path) -> None:
        """Take over a saved state.

        Raises:
            WeightsError: the file is missing, damaged or belongs to another network.
        """
        try:
            tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(tree["model"])
            self.average.load_state_dict(tree["average"])
            self.optimizer.load_state_dict(tree["optimizer"])
            if tree["scaler"]:  # empty if the run was not in float16 so far
                self.scaler.load_state_dict(tree["scaler"])
            self.seed, self.step, self.samples = tree["seed"], tree["step"], tree["samples"]
            self.nonfinite, self.best = tree["nonfinite"], tree["best"]
        except Exception as error:  # torch raises many kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
            raise WeightsError(
                f"cannot resume from '{path}': {reason}. It must be a state saved by this run, with"
                " the same network; move it away to start anew"
            ) from error


def averaged(model: IART) -> IART:
    """A copy of the model that holds its moving average."""
    return copy.deepcopy(model).eval().requires_grad_(False)
