"""Gradients of attention in windows on GPUs, in Triton.

PyTorch's fused attention writes the gradient of the bias for every window to memory, before it sums
them. Here softmax is computed again, what is summed over windows stays in registers, as float32,
until a group of them is done, and every sum has one order: the same inputs give the same bits.

Importing this module needs Triton. Letters as in `gpu`.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Float32
from torch import Tensor

from iart.model.kernels.gpu import LOG2E, attend_constants, ends_of_kinds

LOGITS = 8192  # that a program of `keys_kernel` holds, and their weights and gradients, at most
PROGRAMS = 512  # that are enough to keep a GPU busy
# Of `sum_kernel`.
SUMMED = {
    "groups_at_once": 16,
    "numbers_at_once": 128,
    "num_warps": 4,
    "enable_fp_fusion": True,
}


def differentiate(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    biases: Float[Tensor, "kinds n q k"],
    counts: Sequence[int],
    grad: Float[Tensor, "s n q d"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and biases from that of what `gpu.attend` gives.

    Args:
        query: as for `gpu.attend`, as all others; but windows and heads are no larger than
            `iart.model.kernels.dispatch.GPU_OPERAND` says.
        key: see there.
        value: see there.
        biases: see there.
        counts: see there.
        grad: of any strides.

    Returns:
        The first three in the memory order (s q n d).
    """
    s, n, q, d = query.shape
    k = key.shape[2]
    grads = [query.new_empty(s, rows, n, d).transpose(1, 2) for rows in (q, k, k)]
    grad = grad.transpose(1, 2).contiguous()
    # Of each query, all there is to know of its softmax, and of that one's gradient.
    levels, means = query.new_empty(2, s, n, q, dtype=torch.float32)
    constants = attend_constants(query, key, value, biases)
    of_keys = keys_constants(constants, query.dtype)
    ends = ends_of_kinds(counts)
    blocks = n * triton.cdiv(k, of_keys["keys_at_once"])
    windows = triton.cdiv(s, max(1, PROGRAMS // blocks))  # of a group
    groups = [triton.cdiv(count, max(1, windows)) for count in counts]
    sums = query.new_empty(sum(groups), n, q, k, dtype=torch.float32)
    if s:
        inputs = (query, key, value, biases, grad)
        kernel: Any = queries_kernel
        with torch.cuda.device_of(query):
            programs = s * n * triton.cdiv(q, constants["queries_at_once"])
            kernel[programs,](*inputs, grads[0], levels, means, *ends[:-1], **constants)
            kernel = keys_kernel
            made = (levels, means, *grads[1:], sums)
            places = (*ends, *ends_of_kinds(groups)[:-1], windows)
            kernel[len(sums) * blocks,](*inputs, *made, *places, **of_keys)
    summed = sum_groups(sums.flatten(1), groups, biases.dtype)
    return grads[0], grads[1], grads[2], summed.view(biases.shape)


def keys_constants(constants: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Of `keys_kernel`, from those of attention."""
    queries = max(16, triton.next_power_of_2(constants["queries"]))
    # Without tensor cores, products take their inputs from shared memory and many registers.
    logits = LOGITS // 4 if dtype == torch.float32 else LOGITS
    keys = max(16, min(triton.next_power_of_2(constants["keys"]), 64, logits // queries))
    blocks = {"queries_at_once": queries, "keys_at_once": keys}
    # The next window is not read ahead, for want of room.
    return constants | blocks | {"num_warps": max(1, queries * keys // 1024), "num_stages": 1}


@triton.jit(do_not_specialize=["end_0", "end_1", "end_2"])
@no_type_check  # the checker of types in tests would hide its source
def queries_kernel(
    query,
    key,
    value,
    bias,
    grad,
    query_grad,
    levels,
    means,
    end_0,
    end_1,
    end_2,
    query_window: tl.constexpr,
    query_head: tl.constexpr,
    query_row: tl.constexpr,
    key_window: tl.constexpr,
    key_head: tl.constexpr,
    key_row: tl.constexpr,
    value_window: tl.constexpr,
    value_head: tl.constexpr,
    value_row: tl.constexpr,
    bias_kind: tl.constexpr,
    bias_head: tl.constexpr,
    bias_row: tl.constexpr,
    heads: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
    channels: tl.constexpr,
    queries_at_once: tl.constexpr,
    keys_at_once: tl.constexpr,
    precision: tl.constexpr,
    lanes: tl.constexpr,
):
    """Some queries of one head in one window: keys come block by block, twice.

    With W = softmax(L) and the gradient G of what comes out: that of W is GVᵀ, that of L is
    W · (GVᵀ − mean), where the mean is Σ W · GVᵀ of a query.
    """
    blocks: tl.constexpr = (queries + queries_at_once - 1) // queries_at_once
    window = (tl.program_id(0) // (blocks * heads)).to(tl.int64)
    head = tl.program_id(0) // blocks % heads
    q = tl.program_id(0) % blocks * queries_at_once + tl.arange(0, queries_at_once)
    d = tl.arange(0, lanes)
    query += window * query_window + head * query_head
    key += window * key_window + head * key_head
    value += window * value_window + head * value_head
    kind = (window >= end_0).to(tl.int32) + (window >= end_1) + (window >= end_2)
    bias += kind * bias_kind + head * bias_head
    q_mask = (q < queries)[:, None]
    d_mask = (d < channels)[None, :]
    rows = tl.load(query + q[:, None] * query_row + d, q_mask & d_mask, 0.0)
    place = (window * queries * heads + head) * channels + q[:, None] * (heads * channels) + d
    of_out = tl.load(grad + place, q_mask & d_mask, 0.0)
    scale: tl.constexpr = channels**-0.5

    largest = tl.full((queries_at_once,), float("-inf"), tl.float32)
    total = tl.zeros((queries_at_once,), tl.float32)
    mean = tl.zeros((queries_at_once,), tl.float32)
    for first in range(0, keys, keys_at_once):
        cells = first + tl.arange(0, keys_at_once)
        k_mask = cells < keys
        mask = k_mask[:, None] & d_mask
        of_key = tl.load(key + cells[:, None] * key_row + d, mask, 0.0)
        of_value = tl.load(value + cells[:, None] * value_row + d, mask, 0.0)
        added = tl.load(bias + q[:, None] * bias_row + cells, q_mask & k_mask, 0.0).to(tl.float32)
        logits = tl.dot(rows, of_key.T, input_precision=precision) * (scale * LOG2E)
        logits = tl.where(k_mask, logits + added * LOG2E, float("-inf"))
        of_weights = tl.dot(of_out, of_value.T, input_precision=precision)
        new_largest = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp2(logits - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        mean = mean * shrink + tl.sum(weights * of_weights, 1)
        largest = new_largest
    mean = mean / total
    level = largest + tl.log2(total)

    of_query = tl.zeros((queries_at_once, lanes), tl.float32)
    for first in range(0, keys, keys_at_once):
        cells = first + tl.arange(0, keys_at_once)
        k_mask = cells < keys
        mask = k_mask[:, None] & d_mask
        of_key = tl.load(key + cells[:, None] * key_row + d, mask, 0.0)
        of_value = tl.load(value + cells[:, None] * value_row + d, mask, 0.0)
        added = tl.load(bias + q[:, None] * bias_row + cells, q_mask & k_mask, 0.0).to(tl.float32)
        logits = tl.dot(rows, of_key.T, input_precision=precision) * (scale * LOG2E)
        logits = tl.where(k_mask, logits + added * LOG2E, float("-inf"))
        of_weights = tl.dot(of_out, of_value.T, input_precision=precision)
        of_logits = tl.exp2(logits - level[:, None]) * (of_weights - mean[:, None])
        of_query = tl.dot(of_logits.to(of_key.dtype), of_key, of_query, input_precision=precision)
    made = (of_query * scale).to(query_grad.dtype.element_ty)
    tl.store(query_grad + place, made, q_mask & d_mask)
    of_rows = (window * heads + head) * queries + q
    tl.store(levels + of_rows, level, q < queries)
    tl.store(means + of_rows, mean, q < queries)


@triton.jit(
    do_not_specialize=[
        "end_0", "end_1", "end_2", "end_3", "group_end_0", "group_end_1", "group_end_2",
        "windows_at_once",
    ]
)  # fmt: skip
@no_type_check
def keys_kernel(
    query,
    key,
    value,
    bias,
    grad,
    levels,
    means,
    key_grad,
    value_grad,
    sums,
    end_0,
    end_1,
    end_2,
    end_3,
    group_end_0,
    group_end_1,
    group_end_2,
    windows_at_once,
    query_window: tl.constexpr,
    query_head: tl.constexpr,
    query_row: tl.constexpr,
    key_window: tl.constexpr,
    key_head: tl.constexpr,
    key_row: tl.constexpr,
    value_window: tl.constexpr,
    value_head: tl.constexpr,
    value_row: tl.constexpr,
    bias_kind: tl.constexpr,
    bias_head: tl.constexpr,
    bias_row: tl.constexpr,
    heads: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
    channels: tl.constexpr,
    queries_at_once: tl.constexpr,
    keys_at_once: tl.constexpr,
    precision: tl.constexpr,
    lanes: tl.constexpr,
):
    """Some keys of one head, with all queries, in a group of windows of one kind, in turn."""
    blocks: tl.constexpr = (keys + keys_at_once - 1) // keys_at_once
    group = (tl.program_id(0) // (blocks * heads)).to(tl.int64)
    head = tl.program_id(0) // blocks % heads
    q = tl.arange(0, queries_at_once)
    k = tl.program_id(0) % blocks * keys_at_once + tl.arange(0, keys_at_once)
    d = tl.arange(0, lanes)
    kind = (group >= group_end_0).to(tl.int32) + (group >= group_end_1) + (group >= group_end_2)
    before = tl.where(kind > 0, tl.where(kind > 1, tl.where(kind > 2, end_2, end_1), end_0), 0)
    groups = tl.where(kind > 1, tl.where(kind > 2, group_end_2, group_end_1), group_end_0)
    groups = tl.where(kind > 0, groups, 0)
    end = tl.where(kind > 1, tl.where(kind > 2, end_3, end_2), tl.where(kind > 0, end_1, end_0))
    first = before + (group - groups) * windows_at_once
    last = tl.minimum(first + windows_at_once, end)

    bias += kind * bias_kind + head * bias_head
    q_mask, k_mask = q < queries, k < keys
    d_mask = (d < channels)[None, :]
    mask = q_mask[:, None] & d_mask
    key_mask = k_mask[:, None] & d_mask
    pairs = q_mask[:, None] & k_mask
    added = tl.load(bias + q[:, None] * bias_row + k, pairs, 0.0).to(tl.float32) * LOG2E
    added = tl.where(k_mask[None, :], added, float("-inf"))
    scale: tl.constexpr = channels**-0.5
    summed = tl.zeros((queries_at_once, keys_at_once), tl.float32)
    for window in range(first, last):
        rows = query + window * query_window + head * query_head + q[:, None] * query_row + d
        rows = tl.load(rows, mask, 0.0)
        of_key = key + window * key_window + head * key_head + k[:, None] * key_row + d
        of_key = tl.load(of_key, key_mask, 0.0)
        of_value = value + window * value_window + head * value_head + k[:, None] * value_row + d
        of_value = tl.load(of_value, key_mask, 0.0)
        place = (window * queries * heads + head) * channels + q[:, None] * (heads * channels) + d
        of_out = tl.load(grad + place, mask, 0.0)
        of_rows = (window * heads + head) * queries + q
        level = tl.load(levels + of_rows, q_mask, 0.0)[:, None]
        mean = tl.load(means + of_rows, q_mask, 0.0)[:, None]

        logits = tl.dot(rows, of_key.T, input_precision=precision) * (scale * LOG2E) + added
        weights = tl.exp2(logits - level)
        of_weights = tl.dot(of_out, of_value.T, input_precision=precision)
        of_logits = weights * (of_weights - mean)
        summed += of_logits
        narrow = weights.to(of_out.dtype).T
        made_value = tl.dot(narrow, of_out, input_precision=precision)
        narrow = of_logits.to(rows.dtype).T
        made_key = tl.dot(narrow, rows, input_precision=precision) * scale
        place = (window * keys * heads + head) * channels + k[:, None] * (heads * channels) + d
        tl.store(key_grad + place, made_key.to(key_grad.dtype.element_ty), key_mask)
        tl.store(value_grad + place, made_value.to(value_grad.dtype.element_ty), key_mask)
    sums += (group * heads + head) * (queries * keys)
    tl.store(sums + q[:, None] * keys + k, summed, pairs)


def sum_groups(
    sums: Float32[Tensor, "groups m"], counts: Sequence[int], dtype: torch.dtype
) -> Float[Tensor, "kinds m"]:
    """Of the groups of each kind; of which there are so many, in turn."""
    numbers = sums.shape[1]
    out = sums.new_empty(len(counts), numbers, dtype=dtype)
    blocks = triton.cdiv(numbers, SUMMED["numbers_at_once"])
    kernel: Any = sum_kernel
    with torch.cuda.device_of(sums):
        kernel[len(counts) * blocks,](sums, out, *ends_of_kinds(counts), numbers, blocks, **SUMMED)
    return out


@triton.jit(do_not_specialize=["end_0", "end_1", "end_2", "end_3", "numbers", "blocks"])
@no_type_check
def sum_kernel(
    sums,
    out,
    end_0,
    end_1,
    end_2,
    end_3,
    numbers,
    blocks,
    groups_at_once: tl.constexpr,
    numbers_at_once: tl.constexpr,
):
    """Some numbers of one kind, added in the order of groups."""
    kind = tl.program_id(0) // blocks
    first = tl.where(kind > 0, tl.where(kind > 1, tl.where(kind > 2, end_2, end_1), end_0), 0)
    end = tl.where(kind > 1, tl.where(kind > 2, end_3, end_2), tl.where(kind > 0, end_1, end_0))
    number = tl.program_id(0) % blocks * numbers_at_once + tl.arange(0, numbers_at_once)
    known = number < numbers
    summed = tl.zeros((numbers_at_once,), tl.float32)
    for group in range(first, end, groups_at_once):
        groups = group + tl.arange(0, groups_at_once)
        place = sums + groups.to(tl.int64)[:, None] * numbers + number
        summed += tl.sum(tl.load(place, (groups < end)[:, None] & known, 0.0), 0)
    place = out + kind.to(tl.int64) * numbers + number
    tl.store(place, summed.to(out.dtype.element_ty), known)
