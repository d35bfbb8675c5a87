"""Everything a run needs to go on as if it had not stopped, in one object, saved atomically."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iart.errors import TrainingError, WeightsError
from iart.model import IART
from iart.weights.tensorfile import atomic_file


@dataclass
class TrainState:
    """A training run between two steps."""

    step: int
    model: IART
    average: IART
    """Exponential moving average of `model`; this one ships."""
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    """Draws every clip; torch's own generator draws the masks of stochastic depth."""

    def update_average(self, decay: float) -> None:
        """Average ← decay · average + (1 − decay) · model."""
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)

    def reset_average(self) -> None:
        """Average ← model."""
        self.average.load_state_dict(self.model.state_dict())

    def save(self, path: Path) -> None:
        """Write beside, then rename: a kill at any moment leaves the old file or the new one.

        Raises:
            TrainingError: a weight is not finite; the old file stays.
            OutputError: the operating system refuses; the old file stays.
        """
        if not all(p.isfinite().all() for p in self.model.parameters()):
            raise TrainingError(
                f"weights are not finite after step {self.step}; '{path}' is as it was saved last. "
                "Go on from it with a lower learning rate"
            )
        tree = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }
        with atomic_file(path) as file:
            torch.save(tree, file)

    def load(self, path: Path) -> None:
        """Take over a saved state.

        Raises:
            WeightsError: the file is damaged or belongs to another network.
        """
        try:
            tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(tree["model"])
            self.average.load_state_dict(tree["average"])
            self.optimizer.load_state_dict(tree["optimizer"])
            self.rng.bit_generator.state = tree["rng"]
            torch.set_rng_state(tree["torch_rng"])
            step: int = tree["step"]
        except Exception as error:  # torch raises many kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"cannot resume from '{path}': {reason}; move the file away to start anew"
            ) from error
        self.step = step
        # As many generators as there are GPUs now: on another machine the masks differ.
        cuda_rng: list[Tensor] = tree.get("cuda_rng", [])
        if torch.cuda.is_initialized() and len(cuda_rng) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda_rng)


def averaged(model: IART) -> IART:
    """A copy of the model that holds its moving average."""
    return copy.deepcopy(model).eval().requires_grad_(False)
