"""What the kernels compute, in PyTorch's own operations: for every type, device and gradient.

Letters: s windows, n heads, q queries, k cells of a window, d channels of a head, p pixels, r rows
of maps flattened over (b h w), c = n·d.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float16, Float32, Int
from torch import Tensor

from iart.model.kernels import LOW

LOGITS_AT_ONCE = 2**19
"""Numbers: 2 MB of a head's logits, for so many windows as that makes."""
# The 2×2 cells around a position, (y, x) from its floor.
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))


def attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
) -> Float[Tensor, "s n q d"]:
    """softmax(QKᵀ / √d + bias) V, some windows at a time, in the memory order (s q n d)."""
    s, n, q, d = query.shape
    out = query.new_empty(s, q, n, d).transpose(1, 2)
    for part in _parts(query, key, value, out):
        for q_, k_, v_, o_, b_ in zip(*(x.unbind(1) for x in part), bias, strict=True):
            o_.copy_(_weights(q_, k_, b_) @ v_)
    return out


def differentiate(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
    grad: Float[Tensor, "s n q d"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias from that of what `attend` gives."""
    scale = query.shape[-1] ** -0.5
    grads = [torch.empty_like(x) for x in (query, key, value)]
    bias_grad = torch.zeros_like(bias.mT, memory_format=torch.contiguous_format).mT
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
    return grads[0], grads[1], grads[2], bias_grad


def _parts(*tensors: Float[Tensor, "s n _ d"]) -> Iterator[tuple[Tensor, ...]]:
    query, key = tensors[:2]
    windows = max(1, LOGITS_AT_ONCE // (query.shape[2] * key.shape[2]))
    return zip(*(x.split(windows) for x in tensors), strict=True)


def _weights(
    query: Float[Tensor, "s q d"], key: Float[Tensor, "s k d"], bias: Float[Tensor, "q k"]
) -> Float[Tensor, "s q k"]:
    return torch.baddbmm(bias, query, key.mT, alpha=query.shape[-1] ** -0.5).softmax(-1)


def resample(
    query: Float[Tensor, "p n d"],
    key: Float[Tensor, "r c"],
    value: Float[Tensor, "r c"],
    biases: tuple[Float[Tensor, "4 c"], Float[Tensor, "4 c"]],
    floor: Float[Tensor, "p 2"],
    places: Int[Tensor, " p"],
    size: tuple[int, int],
) -> Float[Tensor, "p c"]:
    """See `iart.model.kernels.dispatch.resample`."""
    indices = cell_indices(floor, places, size)
    logits = [
        ((key.index_select(0, index) + bias).view_as(query) * query).sum(-1)
        for index, bias in zip(indices, biases[0], strict=True)
    ]
    weights = torch.stack(logits).softmax(0)[..., None]  # 4 p n 1
    cells = (
        weight * (value.index_select(0, index) + bias).view_as(query)
        for weight, index, bias in zip(weights, indices, biases[1], strict=True)
    )
    return sum(cells, start=torch.zeros_like(query)).flatten(1)


def cell_indices(
    floor: Float[Tensor, "p 2"], places: Int[Tensor, " p"], size: tuple[int, int]
) -> list[Int[Tensor, " p"]]:
    """Row of each of the 4 clamped cells in maps of `size` (h, w), flattened over b, h, w.

    Args:
        floor: ⌊flow⌋, (y, x).
        places: rows of the pixels from which the flow starts.
        size: of the maps.
    """
    h, w = size
    # Far outside is as far as outside: keeps wild flows within the range of integers.
    y = floor[:, 0].clamp(-h, h).long() + places // w % h
    x = floor[:, 1].clamp(-w, w).long() + places % w
    first = places // (h * w) * (h * w)
    return [first + (y + dy).clamp(0, h - 1) * w + (x + dx).clamp(0, w - 1) for dy, dx in CELLS]


def split(x: Float32[Tensor, "..."]) -> Float16[Tensor, "2 ..."]:
    """Two halves of each number: x = first + second / LOW, but for 2^-23 of it.

    Of numbers below 1e-4, whose first half is denormal, for 2^-34 in all.
    """
    first = x.half()
    return torch.stack((first, (x - first.float()).mul_(LOW).half()))
