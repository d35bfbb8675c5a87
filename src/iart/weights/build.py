"""A network from a configuration and tensors: every one of them and no other."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from iart.errors import WeightsError
from iart.model.iart import IART, IARTConfig
from iart.weights.published import drop_unused, published_name
from iart.weights.tensorfile import some

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Sizes beyond these come from damaged metadata; a network of them is not worth trying to allocate.
WINDOW_CELLS = 32 * 32
SLACK = 2**24


def build(config: IARTConfig, tensors: Mapping[str, Tensor], *, published: bool) -> IART:
    """The network with these weights, float32 on the CPU.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen, of another kind or not finite; names
            the first few of each.
    """
    _require_plausible(config, sum(tensor.numel() for tensor in tensors.values()))
    if strange := [
        name
        for name, t in tensors.items()
        if t.layout != torch.strided or t.is_meta or t.is_quantized or t.is_complex()
    ]:
        raise WeightsError(f"not plain numbers: {some(strange)}")
    with torch.random.fork_rng(devices=[]):  # loading leaves no trace in random numbers
        model = IART(config)
    if published:
        tensors = drop_unused(tensors, model)
    own = {
        published_name(name) if published else name: parameter
        for name, parameter in model.named_parameters()
    }
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(parameter.shape)}"
        for name, parameter in own.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unknown": [name for name in tensors if name not in own],
        "of another shape": shapes,
        "not floating point": [
            f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
            for name, tensor in tensors.items()
            if tensor.dtype not in FLOATS
        ],
    }
    if not any(problems.values()):
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])
        problems["not finite"] = [name for name, p in own.items() if not p.isfinite().all()]
    if any(problems.values()):
        raise WeightsError(
            "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
        )
    return model


def _require_plausible(config: IARTConfig, numbers: int) -> None:
    """Raise if a file of so many numbers cannot fill the network: it is not tried to allocate."""
    c, mid, head = config.channels, config.mid_channels, config.head_channels
    widths = (8, *config.flow_channels, 2)
    needed = (
        config.branches * (8 * sum(config.depths) + 9 * len(config.depths)) * c**2
        + 36 * mid**2
        + 9 * head**2
        + config.flow_levels * 49 * sum(a * b for a, b in pairwise(widths))
    )
    if needed > 4 * numbers + SLACK or config.window[1] * config.window[2] > WINDOW_CELLS:
        raise WeightsError(f"its sizes cannot be: {config} with {numbers} numbers in the file")
