"""Random numbers for stochastic depth: of every sample its own, whoever computes it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iart.model import IARTConfig

# Tells these draws from those of `iart.data.augment`, which begin with (seed, index) too.
_DEPTH = 4


def depth_draws(
    config: IARTConfig, seed: int, indices: Sequence[int], frames: int
) -> Float[Tensor, "b branches t blocks 2"] | None:
    """What `IART.forward` takes as `draws`, in [0, 1); None if nothing is ever dropped.

    Args:
        config: of the network.
        seed: of the run.
        indices: of the samples in the run.
        frames: of a clip.
    """
    if config.drop_path == 0:
        return None
    shape = (config.branches, frames, sum(config.depths), 2)
    numbers = [
        np.random.default_rng((seed, index, 0, _DEPTH)).random(shape, dtype=np.float32)
        for index in indices
    ]
    return torch.from_numpy(np.stack(numbers))
