"""Tensors of a file → parameters: every one of them and no other, or what fits."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iart.errors import WeightsError
from iart.weights.tensorfile import some

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names; all or an error.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen, not floating point or not finite;
            names the first few of each kind.
    """
    fitting, problems = compare(own, tensors)
    if problems:
        raise WeightsError(problems)
    copy(own, tensors, fitting)


def copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Copy the named tensors into the parameters of the same names.

    Raises:
        WeightsError: one is not finite there.
    """
    with torch.no_grad():
        for name in names:
            own[name].copy_(tensors[name])
    if broken := [name for name in names if not own[name].isfinite().all()]:
        raise WeightsError(f"not finite: {some(broken)}")


def compare(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[list[str], str]:
    """Names of the tensors that fit, and a sentence about what does not, empty if all do."""
    shared = [name for name in own if name in tensors]
    misshapen = [name for name in shared if tensors[name].shape != own[name].shape]
    not_floating = [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS]
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unknown": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
            for name in misshapen
        ],
        "not floating point": [
            f"{name} ({str(tensors[name].dtype).removeprefix('torch.')})" for name in not_floating
        ],
    }
    fitting = [name for name in shared if name not in {*misshapen, *not_floating}]
    return fitting, "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
