"""Random choices of a training sample: where they come from, and the views of a clip.

Every choice is drawn from (seed, index of the sample in the run), never from a rank or a worker, so
that the order of samples is the same however many processes and threads make them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

# What the last word of a generator's seed stands for; none is 0, since zeros at the end do not tell
# seeds apart.
_ORDER, _STEP, _AGAIN, _DEPTH, _LESSON, _DEGRADATION, _CUTMIX = range(1, 8)


def sample_generator(seed: int, index: int, attempt: int = 0) -> np.random.Generator:
    """All choices of sample `index`; of its replacements if it failed, `attempt` > 0."""
    return np.random.default_rng((seed, index, attempt, _AGAIN) if attempt else (seed, index))


def degradation_generator(seed: int, index: int, attempt: int = 0) -> np.random.Generator:
    """How sample `index` is degraded: apart from its other choices, which stay without it."""
    return np.random.default_rng((seed, index, attempt, _DEGRADATION))


def step_generator(seed: int, first: int) -> np.random.Generator:
    """Choices that all samples of an optimiser step share; `first` is its first sample."""
    return np.random.default_rng((seed, first, _STEP))


def order_generator(seed: int, epoch: int) -> np.random.Generator:
    """The order of an epoch."""
    return np.random.default_rng((seed, epoch, _ORDER))


def depth_generator(seed: int, index: int) -> np.random.Generator:
    """Stochastic depth of sample `index`."""
    return np.random.default_rng((seed, index, 0, _DEPTH))


def lesson_generator(seed: int, step: int) -> np.random.Generator:
    """Choices of a step of the flow network's lessons."""
    return np.random.default_rng((seed, step, 0, _LESSON))


def cutmix_generator(seed: int, index: int) -> np.random.Generator:
    """Whether and where sample `index` is cut together with its ground truth."""
    return np.random.default_rng((seed, index, 0, _CUTMIX))


@dataclass(frozen=True)
class View:
    """Mirror in x, then in y, then swap the axes; the same for all frames."""

    mirror_x: bool = False
    mirror_y: bool = False
    transpose: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, *, hflip: bool, rotate: bool) -> "View":
        """Each with probability ½ where it is allowed: `hflip` mirrors x, `rotate` the rest."""
        x, y, transpose = (rng.random(3) < 0.5).tolist()
        return cls(hflip and x, rotate and y, rotate and transpose)

    def of(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[Tensor, "t 3 _ _"]:
        """The frames seen so, in memory of their own."""
        if self.mirror_x:
            frames = frames[:, :, ::-1]
        if self.mirror_y:
            frames = frames[:, ::-1]
        axes = "t c w h" if self.transpose else "t c h w"
        return torch.from_numpy(np.ascontiguousarray(rearrange(frames, f"t h w c -> {axes}")))

    def __str__(self) -> str:
        names = ("mirror_x", "mirror_y", "transpose")
        return " ".join(name for name in names if getattr(self, name)) or "as it is"
