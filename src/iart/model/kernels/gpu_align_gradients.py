"""Gradients of implicit alignment on GPUs, in Triton.

PyTorch's `index_select` adds up the gradients of keys and values in the order in which threads go.
Here every sum has one order: the same inputs give the same bits.

Importing this module needs Triton. Letters as in `gpu`; f maps that flow is of.
"""

from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Float32
from torch import Tensor

from iart.model.kernels import SNAP
from iart.model.kernels.gpu import LOG2E, PIXELS, biased, clamped, landed, resample_constants
from iart.model.kernels.gpu_gradients import PROGRAMS, sum_groups
from iart.model.kernels.gpu_rows import rows_constants


def differentiate_resample(
    query: Float[Tensor, "p c"],
    key: Float[Tensor, "p c"],
    value: Float[Tensor, "p c"],
    key_bias: Float[Tensor, "4 c"],
    value_bias: Float[Tensor, "4 c"],
    flow: Float32[Tensor, "f 2 h w"],
    heads: int,
    grad: Float[Tensor, "p c"],
) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "2 4 c"]]:
    """Gradients of query, key, value and both biases from that of what `gpu.resample` gives.

    There is none of flow, of which only the floor is used. A pixel of the source sums what those
    give that looked at it, in their order: one at which all others look takes as long as they are.

    Args:
        query: as for `gpu.resample`, as all others.
        key: see there.
        value: see there.
        key_bias: see there.
        value_bias: see there.
        flow: see there.
        heads: see there.
        grad: of any strides.
    """
    (p, c), (f, _, h, w) = query.shape, flow.shape
    grads = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    ]
    grad = grad.contiguous()
    constants = resample_constants(query, key, value, heads)
    # Of each pixel and head, what its four cells have, and the corner of the map that these share.
    weights, of_logits = query.new_empty(2, p, heads, 4, dtype=torch.float32)
    corners = torch.empty(p, dtype=torch.int32, device=query.device)
    pixels = PIXELS * triton.cdiv(triton.cdiv(p, PIXELS), max(1, PROGRAMS // heads))  # of a group
    groups = triton.cdiv(p, pixels) if p else 0
    sums = query.new_empty(groups, 2, 4, c, dtype=torch.float32)
    if groups:
        biases = key_bias.contiguous(), value_bias.contiguous()
        tensors = (query, key, value, *biases, flow.contiguous(), grad)
        made = (grads[0], weights, of_logits, corners, sums)
        kernel: Any = pixels_kernel
        with torch.cuda.device_of(query):
            kernel[groups * heads,](*tensors, *made, p, h, w, pixels, **constants)
            sorted_corners, order = torch.sort(corners, stable=True)
            numbers = torch.arange(
                f * (h + 1) * (w + 1) + 1, dtype=torch.int32, device=query.device
            )
            starts = torch.searchsorted(sorted_corners, numbers, out_int32=True)
            constants = cells_constants(query, heads)
            kernel = cells_kernel
            kernel[triton.cdiv(p, constants["rows_at_once"]),](
                query, grad, weights, of_logits, order, starts, *grads[1:], p, h, w, **constants
            )
    of_biases = sum_groups(sums.flatten(1), [groups], key_bias.dtype).view(2, 4, c)
    return grads[0], grads[1], grads[2], of_biases


def cells_constants(query: Tensor, heads: int) -> dict[str, Any]:
    """Of `cells_kernel`: what does not depend on the size of the maps."""
    constants = rows_constants(query.shape[1])
    rows_at_once = max(1, constants["rows_at_once"] // 2)  # two sums for each number
    return constants | {
        "rows_at_once": rows_at_once,
        "query_row": query.stride(0),
        "heads": heads,
    }


@triton.jit(do_not_specialize=["pixels", "height", "width", "group_pixels"])
@no_type_check
def pixels_kernel(
    query,
    key,
    value,
    key_bias,
    value_bias,
    flow,
    grad,
    query_grad,
    weights,
    of_logits,
    corners,
    sums,
    pixels,
    height,
    width,
    group_pixels,
    query_row: tl.constexpr,
    key_row: tl.constexpr,
    value_row: tl.constexpr,
    heads: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    pixels_at_once: tl.constexpr,
    snap: tl.constexpr,
):
    """One head of a group of pixels: its queries, and what they take of each cell."""
    group = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    lane = tl.arange(0, lanes)
    c = head * channels + lane
    c_mask = lane < channels
    of_cell = tl.arange(0, 4)[:, None]
    scale: tl.constexpr = channels**-0.5
    key_sums = tl.zeros((4, lanes), tl.float32)
    value_sums = tl.zeros((4, lanes), tl.float32)
    end = tl.minimum((group + 1) * group_pixels, pixels)
    for start in range(group * group_pixels, end, pixels_at_once):
        pixel = start + tl.arange(0, pixels_at_once)
        inside = pixel < end
        first, y, x = landed(flow, pixel, inside, height, width, snap)
        mask = inside[:, None] & c_mask
        here = pixel.to(tl.int64)
        asks = tl.load(query + here[:, None] * query_row + c, mask, 0.0).to(tl.float32)
        place = here[:, None] * (heads * channels) + c
        of_out = tl.load(grad + place, mask, 0.0).to(tl.float32)

        largest = tl.full((pixels_at_once,), float("-inf"), tl.float32)
        total = tl.zeros((pixels_at_once,), tl.float32)
        mean = tl.zeros((pixels_at_once,), tl.float32)
        for cell in tl.static_range(4):
            row = clamped(first, y, x, cell, height, width)[:, None]
            bias = cell * (heads * channels) + c
            of_key = biased(key + row * key_row + c, key_bias + bias, mask, c_mask)
            of_value = biased(value + row * value_row + c, value_bias + bias, mask, c_mask)
            logit = tl.sum(asks * of_key, 1) * (scale * LOG2E)
            new_largest = tl.maximum(largest, logit)
            weight = tl.exp2(logit - new_largest)
            shrink = tl.exp2(largest - new_largest)
            total = total * shrink + weight
            mean = mean * shrink + weight * tl.sum(of_out * of_value, 1)
            largest = new_largest
        mean = mean / total

        of_query = tl.zeros((pixels_at_once, lanes), tl.float32)
        for cell in tl.static_range(4):  # read again, from the cache
            row = clamped(first, y, x, cell, height, width)[:, None]
            bias = cell * (heads * channels) + c
            of_key = biased(key + row * key_row + c, key_bias + bias, mask, c_mask)
            of_value = biased(value + row * value_row + c, value_bias + bias, mask, c_mask)
            logit = tl.sum(asks * of_key, 1) * (scale * LOG2E)
            weight = tl.exp2(logit - largest) / total
            of_logit = weight * (tl.sum(of_out * of_value, 1) - mean) * scale
            of_query += of_logit[:, None] * of_key
            key_sum = tl.sum(of_logit[:, None] * asks, 0)
            value_sum = tl.sum(weight[:, None] * of_out, 0)
            key_sums += tl.where(of_cell == cell, key_sum[None, :], 0.0)
            value_sums += tl.where(of_cell == cell, value_sum[None, :], 0.0)
            at = (here * heads + head) * 4 + cell
            tl.store(weights + at, weight, inside)
            tl.store(of_logits + at, of_logit, inside)
        tl.store(query_grad + place, of_query.to(query_grad.dtype.element_ty), mask)
        # From the row and column outside the map on, where cells are clamped all the same.
        corner_y = tl.minimum(tl.maximum(y, -1), height - 1) + 1
        corner_x = tl.minimum(tl.maximum(x, -1), width - 1) + 1
        corner = (pixel // (height * width) * (height + 1) + corner_y) * (width + 1) + corner_x
        if head == 0:
            tl.store(corners + pixel, corner, inside)
    place = group.to(tl.int64) * (8 * heads * channels) + of_cell * (heads * channels) + c[None, :]
    known = (of_cell < 4) & c_mask[None, :]
    tl.store(sums + place, key_sums, known)
    tl.store(sums + place + 4 * heads * channels, value_sums, known)


@triton.jit(do_not_specialize=["rows", "height", "width"])
@no_type_check
def cells_kernel(
    query,
    grad,
    weights,
    of_logits,
    order,
    starts,
    key_grad,
    value_grad,
    rows,
    height,
    width,
    query_row: tl.constexpr,
    heads: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """Some pixels of the source: sums over those that looked at them.

    These are known by corners, of which four have a cell here; at the border of the map, where
    cells are clamped, several of their cells.
    """
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    inside = row < rows
    y = row // width % height
    x = row % width
    first = row // (height * width) * (height + 1)
    c = tl.arange(0, lanes)
    c_mask = c < channels
    head = c // (channels // heads)
    of_key = tl.zeros((rows_at_once, lanes), tl.float32)
    of_value = tl.zeros((rows_at_once, lanes), tl.float32)
    for turn in range(16):
        corner_y, corner_x = y - turn // 8, x - turn // 4 % 2
        cell = turn % 4
        cell_y = tl.minimum(tl.maximum(corner_y + cell // 2, 0), height - 1)
        cell_x = tl.minimum(tl.maximum(corner_x + cell % 2, 0), width - 1)
        here = inside & (cell_y == y) & (cell_x == x)
        corner = (first + corner_y + 1) * (width + 1) + corner_x + 1
        start = tl.load(starts + corner, here, 0)
        end = tl.load(starts + corner + 1, here, 0)
        for i in range(tl.max(end - start, 0)):
            known = start + i < end
            pixel = tl.load(order + start + i, known, 0)[:, None]
            mask = known[:, None] & c_mask
            at = (pixel * heads + head) * 4 + cell
            asks = tl.load(query + pixel * query_row + c, mask, 0.0).to(tl.float32)
            of_key += tl.load(of_logits + at, mask, 0.0) * asks
            of_out = tl.load(grad + pixel * channels + c, mask, 0.0).to(tl.float32)
            of_value += tl.load(weights + at, mask, 0.0) * of_out
    place = row.to(tl.int64)[:, None] * channels + c
    mask = inside[:, None] & c_mask
    tl.store(key_grad + place, of_key.to(key_grad.dtype.element_ty), mask)
    tl.store(value_grad + place, of_value.to(value_grad.dtype.element_ty), mask)


def differentiate_encoding(
    grad: Float[Tensor, "r c"],
    flow: Float32[Tensor, "f 2 h w"],
    frequency: Float32[Tensor, " _"],
) -> Float32[Tensor, "f 2 h w"]:
    """Gradient of flow from that of what `gpu_rows.encode` gives."""
    out = torch.empty_like(flow, memory_format=torch.contiguous_format)
    rows, channels = grad.shape
    constants = rows_constants(channels)
    programs = triton.cdiv(rows, constants["rows_at_once"])
    if programs:
        kernel: Any = encoding_kernel
        tensors = (grad.contiguous(), flow.contiguous(), frequency, out)
        with torch.cuda.device_of(flow):
            kernel[programs,](*tensors, rows, flow[0, 0].numel(), snap=SNAP, **constants)
    return out


@triton.jit(do_not_specialize=["rows", "pixels"])
@no_type_check
def encoding_kernel(
    grad,
    flow,
    frequency,
    out,
    rows,
    pixels,
    snap: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """See `differentiate_encoding`: the first half of the channels is of y, the last of x."""
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    c = tl.arange(0, lanes)
    half: tl.constexpr = channels // 2
    inside = row < rows
    mask = inside[:, None] & (c < channels)
    of_map = row.to(tl.int64) // pixels * (2 * pixels) + row % pixels
    move_x = tl.load(flow + of_map, inside, 0.0)
    move_y = tl.load(flow + of_map + pixels, inside, 0.0)
    move_x = move_x - tl.floor(move_x + snap)
    move_y = move_y - tl.floor(move_y + snap)
    channel = c % half
    turns = tl.load(frequency + channel // 2, c < channels, 0.0)[None, :]
    is_y = (c < half)[None, :]
    angle = tl.where(is_y, move_y[:, None], move_x[:, None]) * turns
    slope = tl.where((channel % 2 == 0)[None, :], tl.cos(angle), -tl.sin(angle)) * turns
    at = row.to(tl.int64)[:, None] * channels + c
    given = tl.load(grad + at, mask, 0.0).to(tl.float32) * slope
    tl.store(out + of_map, tl.sum(tl.where(is_y, 0.0, given), 1), inside)
    tl.store(out + of_map + pixels, tl.sum(tl.where(is_y, given, 0.0), 1), inside)
