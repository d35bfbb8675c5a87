"""Attention and alignment as operators of PyTorch, `torch.ops.iart`.

So whatever looks at PyTorch's operations knows them: autograd and `torch.func`, exporting and
compiling, tensors without numbers (meta and fake ones), FLOP counters. Each takes its kernel where
there is one for the tensors at hand, and PyTorch's own operations elsewhere.

Letters as in `plain`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from iart.model.kernels import cpu, plain


def _attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
    backend: str,
) -> Float[Tensor, "s n q d"]:
    """softmax(QKᵀ / √d + bias) V, in the memory order (s q n d)."""
    out = None
    if backend == "native":
        out = cpu.attend(query, key, value, bias)
    return plain.attend(query, key, value, bias) if out is None else out


def _attend_backward(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
    grad: Float[Tensor, "s n q d"],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias from that of what `attend` gives."""
    tensors = query, key, value, bias, grad
    grads = cpu.differentiate(*tensors) if backend == "native" else None
    return plain.differentiate(*tensors) if grads is None else grads


def _resample(
    query: Float[Tensor, "p n d"],
    key: Float[Tensor, "r c"],
    value: Float[Tensor, "r c"],
    key_bias: Float[Tensor, "4 c"],
    value_bias: Float[Tensor, "4 c"],
    floor: Float[Tensor, "p 2"],
    places: Int[Tensor, " p"],
    size: Sequence[int],
    backend: str,
) -> Float[Tensor, "p c"]:
    """See `iart.model.kernels.dispatch.resample`; biases one by one."""
    biases, (h, w) = (key_bias, value_bias), size
    out = None
    if backend == "native":
        out = cpu.resample(query, key, value, biases, floor, places, (h, w))
    if out is None:
        return plain.resample(query, key, value, biases, floor, places, (h, w)).contiguous()
    return out


# ---- shapes, where tensors have no numbers


def _attend_shape(query: Tensor, *inputs: Any) -> Tensor:
    s, n, q, d = query.shape
    return query.new_empty(s, q, n, d).transpose(1, 2)


def _attend_backward_shape(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *inputs: Any
) -> tuple[Tensor, ...]:
    by_key = torch.empty_like(bias.mT, memory_format=torch.contiguous_format)
    return *(torch.empty_like(x) for x in (query, key, value)), by_key.mT


def _resample_shape(query: Tensor, *inputs: Any) -> Tensor:
    p, n, d = query.shape
    return query.new_empty(p, n * d)


# ---- gradients: of the kind that `torch.func` takes too, unlike `register_autograd`


class Differentiable(torch.autograd.Function):
    """Of an operator whose tensors come first."""

    generate_vmap_rule = True

    @classmethod
    def call(cls, *inputs: Any) -> Tensor:
        """The operator, with a gradient where one is asked for."""
        return (cls.apply if needs_gradient(inputs) else cls.forward)(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep all inputs."""
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.others = inputs[len(tensors) :]


class _AttendFunction(Differentiable):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.iart.attend(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *torch.ops.iart.attend_backward(*ctx.saved_tensors, *grads, *ctx.others), None


class _ResampleFunction(Differentiable):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.iart.resample(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """PyTorch's operations once more: the kernel is for what needs no gradient, as a rule."""
        *maps, floor, places = ctx.saved_tensors
        size, _ = ctx.others

        def again(query: Tensor, key: Tensor, value: Tensor, *biases: Tensor) -> Tensor:
            key_bias, value_bias = biases
            return plain.resample(query, key, value, (key_bias, value_bias), floor, places, size)

        return *torch.func.vjp(again, *maps)[1](*grads), None, None, None, None


attend = _AttendFunction.call
resample = _ResampleFunction.call


def needs_gradient(inputs: tuple[Any, ...]) -> bool:
    """Whether autograd is to write down what is done with these."""
    tensors = (x for x in inputs if isinstance(x, Tensor))
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


# ---- `torch.vmap`: one after another


def one_by_one(operator: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for `torch.vmap` of an operator."""

    def rule(info: Any, dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        def sample(i: int) -> list[Any]:
            pairs = zip(inputs, dims, strict=True)
            return [x.select(dim, i) if isinstance(dim, int) else x for x, dim in pairs]

        outputs = [operator(*sample(i)) for i in range(info.batch_size)]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs), 0
        return tuple(map(torch.stack, zip(*outputs, strict=True))), (0,) * len(outputs[0])

    return rule


# ---- `torch.library.custom_op` would load the compiler, seconds of it, at the first call

_library = torch.library.Library("iart", "DEF")
for _schema, _compute, _shape, _outer in (
    (
        "attend(Tensor query, Tensor key, Tensor value, Tensor bias, str backend) -> Tensor",
        _attend,
        _attend_shape,
        attend,
    ),
    (
        "attend_backward(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor grad,"
        " str backend) -> (Tensor, Tensor, Tensor, Tensor)",
        _attend_backward,
        _attend_backward_shape,
        lambda *inputs: torch.ops.iart.attend_backward(*inputs),
    ),
    (
        "resample(Tensor query, Tensor key, Tensor value, Tensor key_bias, Tensor value_bias,"
        " Tensor floor, Tensor places, SymInt[2] size, str backend) -> Tensor",
        _resample,
        _resample_shape,
        resample,
    ),
):
    _name = _library.define(_schema)
    _library.impl(_name, _compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"iart::{_name}", _shape, lib=_library)
    torch.library.register_vmap(f"iart::{_name}", one_by_one(_outer), lib=_library)


# ---- what FLOP counters count: two for a product and its sum


@register_flop_formula(torch.ops.iart.attend)
def attend_flops(query: torch.Size, key: torch.Size, *shapes: Any, **out: Any) -> int:
    """Two products, of queries with keys and of weights with values."""
    s, n, q, d = query
    return 2 * 2 * s * n * q * key[2] * d


@register_flop_formula(torch.ops.iart.attend_backward)
def attend_backward_flops(query: torch.Size, key: torch.Size, *shapes: Any, **out: Any) -> int:
    """The logits once more, and two products for the gradient of each of the former."""
    s, n, q, d = query
    return 5 * 2 * s * n * q * key[2] * d


@register_flop_formula(torch.ops.iart.resample)
def resample_flops(query: torch.Size, *shapes: Any, **out: Any) -> int:
    """Two products with each of the cells."""
    return 2 * len(plain.CELLS) * 2 * query.numel()
