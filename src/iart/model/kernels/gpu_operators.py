"""The Triton kernels as operators of PyTorch, `torch.ops.iart`.

What looks at PyTorch's operations sees one for each launch, on GPUs and where tensors have no
numbers; gradients are one, too. `attend_windows`, `align` and `encode` have one, here and not by
their operators. Letters as in `gpu` and `gpu_rows`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from iart.model.kernels import operators


def _of(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that needs Triton: imported when it is called."""

    def compute(*inputs: Any) -> Any:
        return getattr(import_module(f"iart.model.kernels.{module}"), name)(*inputs)

    return compute


# ---- shapes, where tensors have no numbers


def _attend_windows_shape(query: Tensor, *inputs: Any) -> Tensor:
    s, n, q, d = query.shape
    return query.new_empty(s, q, n, d).transpose(1, 2)


def _differentiate_windows_shape(
    query: Tensor, key: Tensor, value: Tensor, biases: Tensor, *inputs: Any
) -> tuple[Tensor, ...]:
    sums = biases.new_empty(biases.shape)
    return *(_attend_windows_shape(x) for x in (query, key, value)), sums


def _align_shape(query: Tensor, *inputs: Any) -> Tensor:
    return query.new_empty(query.shape)


def _differentiate_align_shape(*inputs: Any) -> tuple[Tensor, ...]:
    query, key, value, key_bias, *_ = inputs
    return *(x.new_empty(x.shape) for x in (query, key, value)), key_bias.new_empty(
        2, *key_bias.shape
    )


def _encode_shape(current: Tensor, flow: Tensor, frequency: Tensor, dtype: torch.dtype) -> Tensor:
    rows = flow.shape[0] * flow.shape[2] * flow.shape[3]
    return current.new_empty(rows, current.shape[-1], dtype=dtype)


def _differentiate_encoding_shape(grad: Tensor, flow: Tensor, frequency: Tensor) -> Tensor:
    return flow.new_empty(flow.shape)


def _chain_flows_shape(flow: Tensor, last_flow: Tensor) -> Tensor:
    b, *others = flow.shape
    return flow.new_empty(2 * b, *others)


def _convolve_shape(x: Tensor, weight: Tensor, bias: Tensor, last: bool) -> Tensor:
    halves, b, h, w, _ = x.shape
    channels = bias.shape[0]
    return bias.new_empty(b, channels, h, w) if last else x.new_empty(halves, b, h, w, channels)


def _convolve_flops(x: torch.Size, weight: torch.Size, *shapes: Any, **out: Any) -> int:
    """What it computes in float32, not in how many products of halves."""
    return 2 * x[1:4].numel() * weight[1:].numel()


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


def _align_backward_flops(query: torch.Size, *shapes: Any, **out: Any) -> int:
    """The logits once more, and two products for the gradient of each of the former."""
    return operators.resample_flops(query) * 5 // 2


_library = torch.library.Library("iart", "FRAGMENT")
for _schema, _compute, _shape in (
    (
        "attend_windows(Tensor query, Tensor key, Tensor value, Tensor biases, SymInt[] counts)"
        " -> Tensor",
        _of("gpu", "attend"),
        _attend_windows_shape,
    ),
    (
        "attend_windows_backward(Tensor query, Tensor key, Tensor value, Tensor biases,"
        " SymInt[] counts, Tensor grad) -> (Tensor, Tensor, Tensor, Tensor)",
        _of("gpu_gradients", "differentiate"),
        _differentiate_windows_shape,
    ),
    (
        "align(Tensor query, Tensor key, Tensor value, Tensor key_bias, Tensor value_bias,"
        " Tensor flow, int heads) -> Tensor",
        _of("gpu", "resample"),
        _align_shape,
    ),
    (
        "align_backward(Tensor query, Tensor key, Tensor value, Tensor key_bias,"
        " Tensor value_bias, Tensor flow, int heads, Tensor grad)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        _of("gpu_align_gradients", "differentiate_resample"),
        _differentiate_align_shape,
    ),
    (
        "encode(Tensor current, Tensor flow, Tensor frequency, ScalarType dtype) -> Tensor",
        _of("gpu_rows", "encode"),
        _encode_shape,
    ),
    (
        "encode_backward(Tensor grad, Tensor flow, Tensor frequency) -> Tensor",
        _of("gpu_align_gradients", "differentiate_encoding"),
        _differentiate_encoding_shape,
    ),
    (
        "chain_flows(Tensor flow, Tensor last_flow) -> Tensor",
        _of("gpu_rows", "chain_flows"),
        _chain_flows_shape,
    ),
    (
        "convolve(Tensor x, Tensor weight, Tensor bias, bool last) -> Tensor",
        _of("gpu_flow", "convolve"),
        _convolve_shape,
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

    if "!" not in _schema:  # nothing is written to
        _outer = operators.one_by_one(getattr(torch.ops.iart, _name))
        torch.library.register_vmap(f"iart::{_name}", _outer, lib=_library)

_flops: Callable[..., int]
for _name, _flops in (
    ("attend_windows", operators.attend_flops),
    ("attend_windows_backward", operators.attend_backward_flops),
    ("align", operators.resample_flops),
    ("align_backward", _align_backward_flops),
    ("convolve", _convolve_flops),
):
    register_flop_formula(getattr(torch.ops.iart, _name))(_flops)


# ---- gradients, see `operators`


class _AttendWindowsFunction(operators.Differentiable):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.iart.attend_windows(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        operator = torch.ops.iart.attend_windows_backward
        return *operator(*ctx.saved_tensors, *ctx.others, *grads), None


class _AlignFunction(operators.Differentiable):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.iart.align(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        operator = torch.ops.iart.align_backward
        *of_maps, of_biases = operator(*ctx.saved_tensors, *ctx.others, *grads)
        return *of_maps, *of_biases.unbind(), None, None


class _EncodeFunction(operators.Differentiable):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.iart.encode(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        current, *needed, _ = inputs
        ctx.save_for_backward(*needed)
        ctx.shape, ctx.dtype = current.shape, current.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        # Each map is encoded for one flow after another.
        of_current = grad.reshape(-1, *ctx.shape).sum(0, dtype=ctx.dtype)
        of_flow = None
        if ctx.needs_input_grad[1]:
            of_flow = torch.ops.iart.encode_backward(grad, *ctx.saved_tensors)
        return of_current, of_flow, None, None


attend_windows = _AttendWindowsFunction.call
align = _AlignFunction.call
"""Without a gradient of flow."""
encode = _EncodeFunction.call
"""With a gradient of maps and flow."""
