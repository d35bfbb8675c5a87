"""softmax(QKᵀ / √d + B) V on the CPU: head by head, some windows at a time.

What PyTorch offers there stores all logits as soon as B has a gradient, and its fused kernel takes
a third longer on windows of a few hundred cells. Here the logits stay in the processor's cache, and
the gradient computes them again (as FlashAttention does, Dao et al. 2022, algorithm 4).

Letters: s windows, n heads, q queries, k cells, d channels of a head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from iart.model import kernels

LOGITS_AT_ONCE = 2**19
"""Numbers: 2 MB of a head's logits, for so many windows as that makes."""


class Attend(torch.autograd.Function):
    """`Attend.apply(query, key, value, bias)`; float32, in any memory order."""

    @staticmethod
    def forward(
        query: Float[Tensor, "s n q d"],
        key: Float[Tensor, "s n k d"],
        value: Float[Tensor, "s n k d"],
        bias: Float[Tensor, "n q k"],
    ) -> Float[Tensor, "s n q d"]:
        """In the memory order (s q n d)."""
        compiled = kernels.attend(query, key, value, bias)
        if compiled is not None:
            return compiled
        s, n, q, d = query.shape
        out = query.new_empty(s, q, n, d).transpose(1, 2)
        for part in _parts(query, key, value, out):
            for q_, k_, v_, o_, b_ in zip(*(x.unbind(1) for x in part), bias, strict=True):
                o_.copy_(_weights(q_, k_, b_) @ v_)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what goes in."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "s n q d"]) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of query, key, value and bias."""
        query, key, value, bias = ctx.saved_tensors
        compiled = kernels.differentiate(query, key, value, bias, grad)
        if compiled is not None:
            return compiled
        scale = query.shape[-1] ** -0.5
        grads = [torch.empty_like(x) for x in (query, key, value)]
        bias_grad = torch.zeros_like(bias)
        for part in _parts(query, key, value, grad, *grads):
            heads = zip(*(x.unbind(1) for x in part), bias, bias_grad, strict=True)
            for q, k, v, g, q_grad, k_grad, v_grad, b, b_grad in heads:
                weights = _weights(q, k, b)
                v_grad.copy_(weights.mT @ g)
                weights_grad = g @ v.mT
                logits_grad = torch.ops.aten._softmax_backward_data(
                    weights_grad, weights, -1, weights.dtype
                )
                b_grad += logits_grad.sum(0)
                q_grad.copy_((logits_grad @ k).mul_(scale))
                k_grad.copy_((logits_grad.mT @ q).mul_(scale))
        return (*grads, bias_grad)


def _parts(*tensors: Float[Tensor, "s n _ d"]) -> Iterator[tuple[Tensor, ...]]:
    query, key = tensors[:2]
    windows = max(1, LOGITS_AT_ONCE // (query.shape[2] * key.shape[2]))
    return zip(*(x.split(windows) for x in tensors), strict=True)


def _weights(
    query: Float[Tensor, "s q d"], key: Float[Tensor, "s k d"], bias: Float[Tensor, "q k"]
) -> Float[Tensor, "s q k"]:
    return torch.baddbmm(bias, query, key.mT, alpha=query.shape[-1] ** -0.5).softmax(-1)
