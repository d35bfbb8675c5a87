"""Weights and inputs that a formula gives, as the golden vectors were made with."""

import zlib
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart.weights import published_name

M = TypeVar("M", bound=nn.Module)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """u(name, shape): float64 in [-1, 1)."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return random.uniform(-1, 1, int(np.prod(shape))).reshape(shape)


def formula_parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """Value of the parameter with this published name."""
    u = uniform(name, shape)
    if "relative_position_bias_table" in name:
        value = 0.5 * u
    elif name.endswith(".bias"):
        value = 0.1 * u
    elif len(shape) == 1:
        value = 1 + 0.2 * u
    else:
        value = u * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(value).float()


def with_formula_weights(module: M, prefix: str = "") -> M:
    """Fill a module; `prefix` is the place of a part in the whole network, by our names."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            published = published_name(prefix + name)
            parameter.copy_(formula_parameter(published, tuple(parameter.shape)))
    return module.eval()


def smooth_input(name: str, shape: tuple[int, ...], *, clamp: bool) -> Tensor:
    """Input of a golden vector; frames are clamped, features are not."""
    v = 0.5 * torch.from_numpy(uniform(name, shape)).float() + 0.5
    planes = F.pad(v.flatten(0, -3)[None], (2, 2, 2, 2), mode="reflect")
    v = F.avg_pool2d(planes, 5, stride=1).view(shape)
    v = (v - 0.5) * 2.5 + 0.5
    return v.clamp(0, 1) if clamp else v


def given_flow(name: str, shape: tuple[int, ...], amplitude: float) -> Tensor:
    """Flow with (x, y) last."""
    return amplitude * torch.from_numpy(uniform(name, shape)).float()
