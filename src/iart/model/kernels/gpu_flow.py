"""The convolutions of flow on GPUs, in Triton: float32 out of products of halves.

GPUs that are made for training multiply halves 16 times as fast as float32. A float32 number is the
sum of two halves, but for 2^-23 of it: x = high + low / 2^11, and x·w = high·high + (high·low +
low·high) / 2^11, but for 2^-21 of it at most, 2^-24 on average. Products of halves are exact in
float32. What sums them up in the GPU cuts off instead of rounding, so that only the products of one
place go through it together, and sums over places are those of float32.

Maps keep their channels last and are kept as both halves, split once, where they are made.
Importing this module needs Triton. Letters: p pixels of maps flattened over (b h w), i channels in,
o channels out.

Reference: Ootomo, Yokota: "Recovering single precision accuracy from Tensor Cores while surpassing
the FP32 theoretical peak performance", 2022.
"""

from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float16, Float32
from torch import Tensor

from iart.model.kernels import LOW, SCALE

PIXELS = 128  # of a program
CHANNELS = 32  # that are read at once, at most


def convolve(
    x: Float16[Tensor, "2 b h w i"],
    weight: Float16[Tensor, "2 7 7 i o"],
    bias: Float32[Tensor, " o"],
    last: bool,
) -> Tensor:
    """7×7 convolution, zero padding of 3 pixels.

    Args:
        x: numbers times `SCALE`, as `iart.model.kernels.plain.split` gives them.
        weight: of the same, without `SCALE`; only the first stride is free.
        bias: added.
        last: whether this is the last of a level.

    Returns:
        The last gives float32, b o h w. Others end with ReLU and give what the next one takes.
    """
    _, b, h, w, _ = x.shape
    channels = len(bias)
    out = bias.new_empty(b, channels, h, w) if last else x.new_empty(2, b, h, w, channels)
    pixels = b * h * w
    kernel: Any = convolve_kernel
    tensors = (x.contiguous(), weight, bias.contiguous(), out)
    if pixels:
        with torch.cuda.device_of(x):
            kernel[triton.cdiv(pixels, PIXELS),](
                *tensors, pixels, h, w, **convolve_constants(*tensors[:3], last)
            )
    return out


def convolve_constants(x: Tensor, weight: Tensor, bias: Tensor, last: bool) -> dict[str, Any]:
    """What does not depend on the size of the maps."""
    channels, given = len(bias), x.shape[-1]
    return {
        "weights": weight.stride(0),
        "side": weight.shape[1],
        "given": given,
        "channels": channels,
        "last": last,
        "lanes": max(16, triton.next_power_of_2(channels)),
        "given_at_once": min(CHANNELS, max(16, triton.next_power_of_2(given))),
        "pixels_at_once": PIXELS,
        "scale": SCALE,
        "low": LOW,
        "num_warps": 4,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }


@triton.jit(do_not_specialize=["pixels", "height", "width"])
@no_type_check  # the checker of types in tests would hide its source
def convolve_kernel(
    x,
    weight,
    bias,
    out,
    pixels,
    height,
    width,
    weights: tl.constexpr,
    side: tl.constexpr,
    given: tl.constexpr,
    channels: tl.constexpr,
    last: tl.constexpr,
    lanes: tl.constexpr,
    given_at_once: tl.constexpr,
    pixels_at_once: tl.constexpr,
    scale: tl.constexpr,
    low: tl.constexpr,
):
    """Some pixels, all channels, place by place of the window."""
    pixel = tl.program_id(0) * pixels_at_once + tl.arange(0, pixels_at_once)
    row = pixel // width % height
    column = pixel % width
    here = pixel.to(tl.int64)
    plane = pixels.to(tl.int64)
    o = tl.arange(0, lanes)
    o_mask = o < channels
    blocks: tl.constexpr = (given + given_at_once - 1) // given_at_once
    summed = tl.zeros((pixels_at_once, lanes), tl.float32)
    for turn in range(side * side * blocks):
        place = turn // blocks
        move_y = place // side - side // 2
        move_x = place % side - side // 2
        i = turn % blocks * given_at_once + tl.arange(0, given_at_once)
        inside = (row + move_y >= 0) & (row + move_y < height) & (pixel < pixels)
        inside = inside & (column + move_x >= 0) & (column + move_x < width)
        at = x + (here + move_y * width + move_x)[:, None] * given + i
        mask = inside[:, None] & (i < given)
        high = tl.load(at, mask, 0.0)
        rest = tl.load(at + plane * given, mask, 0.0)
        of_weight = weight + (place * given + i)[:, None] * channels + o
        mask = (i < given)[:, None] & o_mask
        weight_high = tl.load(of_weight, mask, 0.0)
        weight_rest = tl.load(of_weight + weights, mask, 0.0)
        small = tl.dot(high, weight_rest)
        small = tl.dot(rest, weight_high, small)
        # With a sum to begin with, or Triton would let the GPU's unit sum up over places, too.
        summed += tl.dot(high, weight_high, small * (1 / low))
    y = summed * (1 / scale) + tl.load(bias + o, o_mask, 0.0)
    inside = (pixel < pixels)[:, None] & o_mask
    if last:
        size = height * width
        at = out + (here // size * (size * channels) + here % size)[:, None] + o * size
        tl.store(at, y, inside)
    else:
        y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL) * scale
        high = y.to(tl.float16)
        rest = (y - high.to(tl.float32)) * low
        at = out + here[:, None] * channels + o
        tl.store(at, high, inside)
        tl.store(at + plane * channels, rest.to(tl.float16), inside)
