"""What surrounds attention and alignment on GPUs, in Triton; without a gradient.

PyTorch gathers, normalises, adds and scatters in a launch each, and every one writes maps to memory
that the next one reads. Here rows of maps are read and written once. Importing this module needs
Triton. Letters: r rows of maps flattened over (b h w), m rows gathered, c channels.
"""

from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Float32, Int
from torch import Tensor

from iart.model.kernels import SNAP

NUMBERS = 4096  # of a program: so many rows as that makes
# Of `chain_flows`, whose products and sums are rounded one by one, as PyTorch's are.
CHAIN_CONSTANTS = {"pixels_at_once": 256, "num_warps": 4, "enable_fp_fusion": False}


def norm_rows(
    x: Float[Tensor, "r c"],
    source: Int[Tensor, " m"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
    dtype: torch.dtype,
) -> Float[Tensor, "m c"]:
    """Gather rows and normalise each; rows from r on are padding, and 0."""
    out = x.new_empty(len(source), x.shape[1], dtype=dtype)
    _launch(norm_rows_kernel, out, x, source, weight, bias, out, len(source), len(x), eps=eps)
    return out


def add_norm_rows(
    x: Float[Tensor, "r c"],
    source: Int[Tensor, " m"],
    y: Float[Tensor, "m c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> tuple[Float[Tensor, "m c"], Float[Tensor, "m c"]]:
    """Gathered rows plus `y` in the type of `x`; and these normalised, in the type of `y`."""
    added = x.new_empty(y.shape)
    out = torch.empty_like(y, memory_format=torch.contiguous_format)
    tensors = (x, source, y.contiguous(), weight, bias, added, out)
    _launch(add_norm_rows_kernel, out, *tensors, len(source), len(x), eps=eps)
    return added, out


def add_to_rows(
    out: Float[Tensor, "r c"],
    target: Int[Tensor, " m"],
    x: Float[Tensor, "m c"],
    y: Float[Tensor, "m c"],
) -> None:
    """Write x + y to rows of `out`; where the row is r or more, nothing."""
    _launch(add_to_rows_kernel, x, out, target, x, y.contiguous(), len(target), len(out))


def encode(
    current: Float[Tensor, "b h w c"],
    flow: Float32[Tensor, "f 2 h w"],
    frequency: Float32[Tensor, " _"],
    dtype: torch.dtype,
) -> Float[Tensor, "r c"]:
    """Pixels plus the sine encoding of where flow ends inside its cell; r = f·h·w.

    Flows are of as many maps as are given, or of a multiple; `frequency` of each pair of channels,
    see `iart.model.align.sine_encoding`.
    """
    *_, h, w = flow.shape
    rows, c = len(flow) * h * w, current.shape[-1]
    out = current.new_empty(rows, c, dtype=dtype)
    maps = current.contiguous()
    sizes = (rows, len(maps) * h * w, h * w)
    _launch(encode_kernel, out, maps, flow.contiguous(), frequency, out, *sizes, snap=SNAP)
    return out


def chain_flows(
    flow: Float32[Tensor, "b 2 h w"], last_flow: Float32[Tensor, "b 2 h w"]
) -> Float32[Tensor, "f 2 h w"]:
    """Flow, and after it flow + warp(last_flow, flow), see `iart.model.flow.warp`; f = 2·b."""
    b, _, h, w = flow.shape
    out = flow.new_empty(2 * b, 2, h, w)
    pixels = b * h * w
    kernel: Any = chain_flows_kernel
    with torch.cuda.device_of(flow):
        kernel[triton.cdiv(pixels, CHAIN_CONSTANTS["pixels_at_once"]),](
            flow.contiguous(), last_flow.contiguous(), out, pixels, h, w, **CHAIN_CONSTANTS
        )
    return out


def rows_constants(channels: int) -> dict[str, Any]:
    """What does not depend on the number of rows."""
    lanes = triton.next_power_of_2(channels)
    rows_at_once = max(1, NUMBERS // lanes)
    sizes = {"channels": channels, "lanes": lanes, "rows_at_once": rows_at_once}
    return sizes | {"num_warps": 4, "enable_fp_fusion": True}


def _launch(kernel: Any, rows: Float[Tensor, "m c"], *inputs: Any, **constants: Any) -> None:
    constants |= rows_constants(rows.shape[1])
    programs = triton.cdiv(len(rows), constants["rows_at_once"])
    if programs:
        with torch.cuda.device_of(rows):
            kernel[programs,](*inputs, **constants)


@triton.jit
@no_type_check  # the checker of types in tests would hide its source
def _normed(x, weight, bias, c, c_mask, channels: tl.constexpr, eps: tl.constexpr):
    """Rows normalised; lanes beyond their channels hold 0."""
    mean = tl.sum(x, 1) / channels
    centred = tl.where(c_mask[None, :], x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / channels
    of_weight = tl.load(weight + c, c_mask, 0.0).to(tl.float32)
    of_bias = tl.load(bias + c, c_mask, 0.0).to(tl.float32)
    return centred * (1 / tl.sqrt(variance + eps))[:, None] * of_weight + of_bias


@triton.jit(do_not_specialize=["rows", "inside"])
@no_type_check
def norm_rows_kernel(
    x,
    source,
    weight,
    bias,
    out,
    rows,
    inside,
    eps: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """See `norm_rows`."""
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    c = tl.arange(0, lanes)
    c_mask = c < channels
    place = tl.load(source + row, row < rows, inside)
    known = (place < inside)[:, None]
    cells = tl.load(x + place[:, None] * channels + c, known & c_mask, 0.0).to(tl.float32)
    made = tl.where(known, _normed(cells, weight, bias, c, c_mask, channels, eps), 0.0)
    mask = (row < rows)[:, None] & c_mask
    at = row.to(tl.int64)[:, None] * channels + c
    tl.store(out + at, made.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["rows", "inside"])
@no_type_check
def add_norm_rows_kernel(
    x,
    source,
    y,
    weight,
    bias,
    added,
    out,
    rows,
    inside,
    eps: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """See `add_norm_rows`."""
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    c = tl.arange(0, lanes)
    c_mask = c < channels
    place = tl.load(source + row, row < rows, inside)
    known = (place < inside)[:, None]
    mask = (row < rows)[:, None] & c_mask
    at = row.to(tl.int64)[:, None] * channels + c
    cells = tl.load(x + place[:, None] * channels + c, known & c_mask, 0.0).to(tl.float32)
    cells += tl.load(y + at, mask, 0.0).to(tl.float32)
    tl.store(added + at, cells.to(added.dtype.element_ty), mask)
    made = _normed(cells, weight, bias, c, c_mask, channels, eps)
    tl.store(out + at, made.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["rows", "inside"])
@no_type_check
def add_to_rows_kernel(
    out,
    target,
    x,
    y,
    rows,
    inside,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """See `add_to_rows`."""
    row = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    c = tl.arange(0, lanes)
    place = tl.load(target + row, row < rows, inside)
    mask = (place < inside)[:, None] & (c < channels)
    at = row.to(tl.int64)[:, None] * channels + c
    made = tl.load(x + at, mask, 0.0).to(tl.float32) + tl.load(y + at, mask, 0.0).to(tl.float32)
    tl.store(out + place[:, None] * channels + c, made.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["rows", "map_rows", "pixels"])
@no_type_check
def encode_kernel(
    current,
    flow,
    frequency,
    out,
    rows,
    map_rows,
    pixels,
    snap: tl.constexpr,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    rows_at_once: tl.constexpr,
):
    """See `encode`: the first half of the channels is of y, the last of x."""
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
    turns = tl.load(frequency + channel // 2, c < channels, 0.0)
    angle = tl.where((c < half)[None, :], move_y[:, None], move_x[:, None]) * turns[None, :]
    wave = tl.where((channel % 2 == 0)[None, :], tl.sin(angle), tl.cos(angle))
    here = (row % map_rows).to(tl.int64)[:, None] * channels + c
    made = tl.load(current + here, mask, 0.0).to(tl.float32) + wave
    at = row.to(tl.int64)[:, None] * channels + c
    tl.store(out + at, made.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["pixels", "height", "width"])
@no_type_check
def chain_flows_kernel(flow, last_flow, out, pixels, height, width, pixels_at_once: tl.constexpr):
    """See `chain_flows`: what lies outside of the map is 0."""
    pixel = tl.program_id(0) * pixels_at_once + tl.arange(0, pixels_at_once)
    inside = pixel < pixels
    size = height * width
    first = pixel // size * (2 * size)
    place = first + pixel % size
    move_x = tl.load(flow + place, inside, 0.0)
    move_y = tl.load(flow + place + size, inside, 0.0)
    # As `warp` and PyTorch's sampling round them.
    last_x, last_y = tl.maximum(width - 1, 1), tl.maximum(height - 1, 1)
    x = 2.0 * ((pixel % width).to(tl.float32) + move_x) / last_x.to(tl.float32) - 1.0
    y = 2.0 * ((pixel // width % height).to(tl.float32) + move_y) / last_y.to(tl.float32) - 1.0
    x = (x + 1.0) / 2.0 * (width - 1).to(tl.float32)
    y = (y + 1.0) / 2.0 * (height - 1).to(tl.float32)
    # Far outside is as far as outside: keeps wild flows within the range of integers.
    x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
    y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
    left, top = tl.floor(x), tl.floor(y)
    right_share, lower_share = x - left, y - top
    column, line = left.to(tl.int32), top.to(tl.int32)
    far_x, far_y = move_x, move_y
    for cell in tl.static_range(4):
        cell_x, cell_y = column + cell % 2, line + cell // 2
        share_x = right_share if cell % 2 else 1.0 - right_share
        share_y = lower_share if cell // 2 else 1.0 - lower_share
        known = inside & (cell_x >= 0) & (cell_x < width) & (cell_y >= 0) & (cell_y < height)
        there = last_flow + first + cell_y * width + cell_x
        far_x += share_x * share_y * tl.load(there, known, 0.0)
        far_y += share_x * share_y * tl.load(there + size, known, 0.0)
    tl.store(out + place, move_x, inside)
    tl.store(out + place + size, move_y, inside)
    tl.store(out + 2 * pixels + place, far_x, inside)
    tl.store(out + 2 * pixels + place + size, far_y, inside)
