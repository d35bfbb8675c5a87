"""A network from a configuration and tensors: every one of them and no other."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from iart.errors import WeightsError
from iart.model.iart import IART, IARTConfig
from iart.weights.fill import fill
from iart.weights.published import drop_unused, published_name

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
    with _NoDraws():  # what the file is about to replace
        model = IART(config).float()
    own = dict(model.named_parameters())
    if published:
        tensors = drop_unused(tensors, model)
        own = {published_name(name): parameter for name, parameter in own.items()}
    fill(own, tensors)
    return model


class _NoDraws(TorchFunctionMode):
    """Gives zeros where parameters would be drawn: the process's random numbers stay as they are.

    To put the state of the generator back would undo what other threads draw meanwhile.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, unless it draws."""
        kwargs = kwargs or {}
        initialises = getattr(func, "__module__", None) == nn.init.__name__
        if initialises or func in (Tensor.uniform_, Tensor.normal_):
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **kwargs)


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
