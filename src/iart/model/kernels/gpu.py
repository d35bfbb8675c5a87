"""Attention in windows and implicit alignment on GPUs, in Triton.

For PyTorch's fused attention, heads are filled up and copied; its alignment writes the cells of
every pixel to memory, and reads them again. Here nothing but the results is written.
Gradients are in `gpu_gradients`.

Importing this module needs Triton. Letters: s windows, n heads, q queries, k cells of a window,
d channels of a head, p pixels of maps flattened over (b h w), c = n·d.

References: 1) Milakov, Gimelshein: "Online normalizer calculation for softmax", 2018.
2) Dao, Fu, Ermon, Rudra, Ré: "FlashAttention", NeurIPS 2022.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Float32
from torch import Tensor

from iart.model.kernels import SNAP

PIXELS = 32  # of a program of `resample`
KINDS = 4  # of windows: interior, right, bottom and corner ones
# Weights are powers of 2: that is what GPUs compute.
LOG2E = tl.constexpr(math.log2(math.e))


def attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    biases: Float[Tensor, "kinds n q k"],
    counts: Sequence[int],
) -> Float[Tensor, "s n q d"]:
    """softmax(QKᵀ / √d + bias) V, in the memory order (s q n d).

    Args:
        query: on a GPU; d is at most 64, and here and below its stride is 1.
        key: of the same type: float32, bfloat16 or float16; sums are float32.
        value: the same.
        biases: of every kind of windows, at most 4; the stride of keys is 1.
        counts: how many windows of each kind there are, in turn.
    """
    s, n, q, d = query.shape
    out = query.new_empty(s, q, n, d).transpose(1, 2)
    constants = attend_constants(query, key, value, biases)
    ends = ends_of_kinds(counts)
    # Programs of a window are neighbours, as they read the same rows; the bias of all heads stays
    # in the cache anyway.
    programs = s * n * triton.cdiv(q, constants["queries_at_once"])
    if programs:
        kernel: Any = attend_kernel
        with torch.cuda.device_of(query):
            kernel[programs,](query, key, value, biases, out, *ends[:-1], **constants)
    return out


def ends_of_kinds(counts: Sequence[int]) -> list[int]:
    """Number of the first that is of a later kind, for each of `KINDS`, if so many are in turn."""
    ends = [*accumulate(counts)]
    return ends + ends[-1:] * (KINDS - len(ends))


def attend_constants(query: Tensor, key: Tensor, value: Tensor, biases: Tensor) -> dict[str, Any]:
    """All but the pointers; nothing depends on the number of windows."""
    _, heads, queries, channels = query.shape
    keys = key.shape[2]
    queries_at_once = min(max(16, triton.next_power_of_2(queries)), 64)
    if query.dtype == torch.float32:
        # No tensor cores, so filling up costs time: rather a divisor. For 64, registers spill.
        keys_at_once = min(max(16, keys & -keys), 32)
    else:
        keys_at_once = min(max(16, triton.next_power_of_2(keys)), 64)
    strides = {
        f"{name}_{axis}": stride
        for name, x in (("query", query), ("key", key), ("value", value))
        for axis, stride in zip(("window", "head", "row"), x.stride()[:3], strict=True)
    }
    names = ("bias_kind", "bias_head", "bias_row")
    strides |= dict(zip(names, biases.stride()[:3], strict=True))
    sizes = {"heads": heads, "queries": queries, "keys": keys, "channels": channels}
    blocks = {"queries_at_once": queries_at_once, "keys_at_once": keys_at_once}
    lanes = max(16, triton.next_power_of_2(channels))
    options = {"num_warps": queries_at_once // 16, "num_stages": 2, "enable_fp_fusion": True}
    return strides | sizes | blocks | options | {"lanes": lanes, "precision": "ieee"}


@triton.jit(do_not_specialize=["end_0", "end_1", "end_2"])
@no_type_check  # the checker of types in tests would hide its source
def attend_kernel(
    query,
    key,
    value,
    bias,
    out,
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
    """Some queries of one head in one window: keys come block by block, logits are not stored."""
    blocks: tl.constexpr = (queries + queries_at_once - 1) // queries_at_once
    window = (tl.program_id(0) // (blocks * heads)).to(tl.int64)
    head = tl.program_id(0) // blocks % heads
    q = tl.program_id(0) % blocks * queries_at_once + tl.arange(0, queries_at_once)
    d = tl.arange(0, lanes)
    query += window * query_window + head * query_head
    key += window * key_window + head * key_head
    value += window * value_window + head * value_head
    out += (window * queries * heads + head) * channels
    kind = (window >= end_0).to(tl.int32) + (window >= end_1) + (window >= end_2)
    bias += kind * bias_kind + head * bias_head
    q_mask = (q < queries)[:, None]
    d_mask = (d < channels)[None, :]
    rows = tl.load(query + q[:, None] * query_row + d, q_mask & d_mask, 0.0)
    scale: tl.constexpr = LOG2E * channels**-0.5

    largest = tl.full((queries_at_once,), float("-inf"), tl.float32)
    total = tl.zeros((queries_at_once,), tl.float32)
    summed = tl.zeros((queries_at_once, lanes), tl.float32)
    for first in range(0, keys, keys_at_once):
        cells = first + tl.arange(0, keys_at_once)
        k_mask = cells < keys
        mask = k_mask[:, None] & d_mask
        of_key = tl.load(key + cells[:, None] * key_row + d, mask, 0.0)
        of_value = tl.load(value + cells[:, None] * value_row + d, mask, 0.0)
        added = tl.load(bias + q[:, None] * bias_row + cells, q_mask & k_mask, 0.0).to(tl.float32)
        logits = tl.dot(rows, of_key.T, input_precision=precision) * scale + added * LOG2E
        if keys % keys_at_once:
            logits = tl.where(k_mask, logits, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp2(logits - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        weights = weights.to(of_value.dtype)
        summed = tl.dot(weights, of_value, summed * shrink[:, None], input_precision=precision)
        largest = new_largest
    mean = summed / total[:, None]
    out += q[:, None] * (heads * channels) + d
    tl.store(out, mean.to(out.dtype.element_ty), q_mask & d_mask)


def resample(
    query: Float[Tensor, "p c"],
    key: Float[Tensor, "p c"],
    value: Float[Tensor, "p c"],
    key_bias: Float[Tensor, "4 c"],
    value_bias: Float[Tensor, "4 c"],
    flow: Float32[Tensor, "b 2 h w"],
    heads: int,
) -> Float[Tensor, "p c"]:
    """Σ_i softmax_i(query · (key[cell_i] + key_bias_i) / √d) (value[cell_i] + value_bias_i).

    Args:
        query: on a GPU, as all here. The stride of channels is 1 everywhere.
        key: before the encoding of cells is added.
        value: the same.
        key_bias: what the encoding adds to keys in each of `CELLS`.
        value_bias: the same to values.
        flow: in pixels, channel 0 = x; cells lie around ⌊flow + SNAP⌋, clamped to the map.
        heads: n.
    """
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    biases = key_bias.contiguous(), value_bias.contiguous()
    tensors = (query, key, value, *biases, flow.contiguous(), out)
    sizes = (len(query), *flow.shape[2:])
    programs = triton.cdiv(len(query), PIXELS)
    if programs:
        kernel: Any = resample_kernel
        with torch.cuda.device_of(query):
            kernel[programs,](*tensors, *sizes, **resample_constants(query, key, value, heads))
    return out


def resample_constants(query: Tensor, key: Tensor, value: Tensor, heads: int) -> dict[str, Any]:
    """What does not depend on the size of the maps."""
    channels = query.shape[1] // heads
    rows = {"query_row": query.stride(0), "key_row": key.stride(0), "value_row": value.stride(0)}
    sizes = {"heads": heads, "channels": channels, "lanes": triton.next_power_of_2(channels)}
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return rows | sizes | options | {"pixels_at_once": PIXELS, "snap": SNAP}


@triton.jit
@no_type_check
def landed(flow, pixel, inside, height, width, snap: tl.constexpr):
    """First row of each pixel's map, and the cell (y, x) in which its flow ends, not clamped."""
    size = height * width
    place = flow + pixel // size * (2 * size) + pixel % size
    move_x = tl.floor(tl.load(place, inside, 0.0) + snap)
    move_y = tl.floor(tl.load(place + size, inside, 0.0) + snap)
    # Far outside is as far as outside: keeps wild flows within the range of integers.
    move_y = tl.minimum(tl.maximum(move_y, -height), height).to(tl.int32)
    move_x = tl.minimum(tl.maximum(move_x, -width), width).to(tl.int32)
    y = pixel // width % height + move_y
    x = pixel % width + move_x
    return pixel // size * size, y, x


@triton.jit
@no_type_check
def clamped(first, y, x, cell, height, width):
    """Row of one of the four cells from (y, x) on, brought into the map."""
    cell_y = tl.minimum(tl.maximum(y + cell // 2, 0), height - 1)
    cell_x = tl.minimum(tl.maximum(x + cell % 2, 0), width - 1)
    return (first + cell_y * width + cell_x).to(tl.int64)


@triton.jit
@no_type_check
def biased(rows, bias, mask, c_mask):
    """Rows plus a bias of their channels, in float32."""
    return tl.load(rows, mask, 0.0).to(tl.float32) + tl.load(bias, c_mask, 0.0)


# Compiled once for all sizes: that they are multiples of something brings nothing.
@triton.jit(do_not_specialize=["pixels", "height", "width"])
@no_type_check
def resample_kernel(
    query,
    key,
    value,
    key_bias,
    value_bias,
    flow,
    out,
    pixels,
    height,
    width,
    query_row: tl.constexpr,
    key_row: tl.constexpr,
    value_row: tl.constexpr,
    heads: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    pixels_at_once: tl.constexpr,
    snap: tl.constexpr,
):
    """Some pixels, head by head: each cell's key and value are read once."""
    pixel = tl.program_id(0) * pixels_at_once + tl.arange(0, pixels_at_once)
    inside = pixel < pixels
    first, y, x = landed(flow, pixel, inside, height, width, snap)
    scale: tl.constexpr = LOG2E * channels**-0.5

    for head in range(heads):
        c = head * channels + tl.arange(0, lanes)
        c_mask = tl.arange(0, lanes) < channels
        mask = inside[:, None] & c_mask
        here = pixel.to(tl.int64)[:, None]
        asks = tl.load(query + here * query_row + c, mask, 0.0).to(tl.float32) * scale
        largest = tl.full((pixels_at_once,), float("-inf"), tl.float32)
        total = tl.zeros((pixels_at_once,), tl.float32)
        summed = tl.zeros((pixels_at_once, lanes), tl.float32)
        for cell in tl.static_range(4):
            row = clamped(first, y, x, cell, height, width)[:, None]
            bias = cell * (heads * channels) + c
            of_key = biased(key + row * key_row + c, key_bias + bias, mask, c_mask)
            of_value = biased(value + row * value_row + c, value_bias + bias, mask, c_mask)
            logit = tl.sum(asks * of_key, 1)
            new_largest = tl.maximum(largest, logit)
            weight = tl.exp2(logit - new_largest)
            shrink = tl.exp2(largest - new_largest)
            total = total * shrink + weight
            summed = summed * shrink[:, None] + weight[:, None] * of_value
            largest = new_largest
        mean = summed / total[:, None]
        tl.store(out + here * (heads * channels) + c, mean.to(out.dtype.element_ty), mask)
