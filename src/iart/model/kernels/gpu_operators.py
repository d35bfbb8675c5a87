"""The Triton kernels as operators of PyTorch, `torch.ops.iart`; without a gradient.

What looks at PyTorch's operations sees one for each launch, on GPUs and where tensors have no
numbers. Letters as in `gpu` and `gpu_rows`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from iart.model.kernels import plain


def _of(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that needs Triton: imported when it is called."""

    def compute(*inputs: Any) -> Any:
        return getattr(import_module(f"iart.model.kernels.{module}"), name)(*inputs)

    return compute


# ---- shapes, where tensors have no numbers


def _attend_windows_shape(query: Tensor, *inputs: Any) -> Tensor:
    s, n, q, d = query.shape
    return query.new_empty(s, q, n, d).transpose(1, 2)


def _align_shape(query: Tensor, *inputs: Any) -> Tensor:
    return query.new_empty(query.shape)


def _encode_shape(current: Tensor, flow: Tensor, frequency: Tensor, dtype: torch.dtype) -> Tensor:
    rows = flow.shape[0] * flow.shape[2] * flow.shape[3]
    return current.new_empty(rows, current.shape[-1], dtype=dtype)


def _chain_flows_shape(flow: Tensor, last_flow: Tensor) -> Tensor:
    b, *others = flow.shape
    return flow.new_empty(2 * b, *others)


def _norm_rows_shape(
    x: Tensor, source: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    return x.new_empty(source.shape[0], x.shape[1], dtype=dtype)


def _add_norm_rows_shape(
    x: Tensor, source: Tensor, y: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor]:
    return x.new_empty(y.shape), y.new_empty(y.shape)


def _add_to_rows_shape(*inputs: Any) -> None:
    """Nothing comes out."""


_library = torch.library.Library("iart", "FRAGMENT")
for _schema, _compute, _shape in (
    (
        "attend_windows(Tensor query, Tensor key, Tensor value, Tensor biases, SymInt[] counts)"
        " -> Tensor",
        _of("gpu", "attend"),
        _attend_windows_shape,
    ),
    (
        "align(Tensor query, Tensor key, Tensor value, Tensor key_bias, Tensor value_bias,"
        " Tensor flow, int heads) -> Tensor",
        _of("gpu", "resample"),
        _align_shape,
    ),
    (
        "encode(Tensor current, Tensor flow, Tensor frequency, ScalarType dtype) -> Tensor",
        _of("gpu_rows", "encode"),
        _encode_shape,
    ),
    (
        "chain_flows(Tensor flow, Tensor last_flow) -> Tensor",
        _of("gpu_rows", "chain_flows"),
        _chain_flows_shape,
    ),
    (
        "norm_rows(Tensor x, Tensor source, Tensor weight, Tensor bias, float eps,"
        " ScalarType dtype) -> Tensor",
        _of("gpu_rows", "norm_rows"),
        _norm_rows_shape,
    ),
    (
        "add_norm_rows(Tensor x, Tensor source, Tensor y, Tensor weight, Tensor bias, float eps)"
        " -> (Tensor, Tensor)",
        _of("gpu_rows", "add_norm_rows"),
        _add_norm_rows_shape,
    ),
    (
        "add_to_rows(Tensor(a!) out, Tensor target, Tensor x, Tensor y) -> ()",
        _of("gpu_rows", "add_to_rows"),
        _add_to_rows_shape,
    ),
):
    _name = _library.define(_schema)
    _library.impl(_name, _compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"iart::{_name}", _shape, lib=_library)


@register_flop_formula(torch.ops.iart.attend_windows)
def _attend_windows_flops(query: torch.Size, key: torch.Size, *shapes: Any, **out: Any) -> int:
    s, n, q, d = query
    return 2 * 2 * s * n * q * key[2] * d


@register_flop_formula(torch.ops.iart.align)
def _align_flops(query: torch.Size, *shapes: Any, **out: Any) -> int:
    return 2 * len(plain.CELLS) * 2 * query.numel()
