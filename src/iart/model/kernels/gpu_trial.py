"""A trial of the Triton kernels on a few numbers, before they are used on a GPU."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from iart.model.kernels import SCALE, plain


def failure_of_triton(
    device: torch.device, kernels: Literal["inference", "gradients", "flow"] = "inference"
) -> str | None:
    """Try the Triton kernels on a few numbers: None if PyTorch gives the same, else what is wrong.

    They are compiled on the spot, by Triton and a C compiler: much of that may be missing or old.

    Args:
        device: where.
        kernels: which of them; flow has its own, as they are not taken on every GPU.
    """
    try:
        from iart.model.kernels import (
            gpu,
            gpu_align_gradients,
            gpu_flow,
            gpu_gradients,
            gpu_rows,
        )
    except ImportError as error:
        return str(error)
    for dtype, tolerance in ((torch.float16, 2**-8), (torch.float32, 1e-4)):
        if kernels == "inference":
            tried = _tried(device, dtype, gpu, gpu_rows)
        elif kernels == "gradients":
            tried = _tried_gradients(device, dtype, gpu_gradients, gpu_align_gradients)
        else:
            tried = _tried_flow(device, gpu_flow)
        try:
            got = [x.float() for x in tried]
        except Exception as error:  # noqa: BLE001  # of Triton, a compiler, a driver: any class
            lines = str(error).strip().splitlines()
            return f"its kernels do not run ({lines[0] if lines else type(error).__name__})"
        for ours, theirs in zip(got[::2], got[1::2], strict=True):
            if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance):
                return "its kernels give other numbers than PyTorch"
    return None


def _tried(device: torch.device, dtype: torch.dtype, gpu: Any, gpu_rows: Any) -> Iterator[Tensor]:
    """What each kernel gives, and after it what PyTorch does."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    (q, k, v), bias = numbers(3, 2, 2, 48, 12), numbers(2, 2, 48, 48)
    yield gpu.attend(q, k, v, bias, (1, 1))
    wide = q.float(), k.float(), v.float()
    ones = (
        F.scaled_dot_product_attention(*(x[i : i + 1] for x in wide), attn_mask=bias[i].float())
        for i in range(2)
    )
    yield torch.cat(list(ones))

    (query, key, value), size = numbers(3, 30, 24), (5, 6)
    flow, last_flow = 2 * numbers(2, 1, 2, *size, dtype=torch.float32)
    key_bias, value_bias = numbers(2, 4, 24)
    yield gpu.resample(query, key, value, key_bias, value_bias, flow, heads=2)
    asks, places = query.float().view(30, 2, 12) / 12**0.5, torch.arange(30, device=device)
    floor, biases = flow[0].flip(0).flatten(1).T.floor(), (key_bias.float(), value_bias.float())
    yield plain.resample(asks, key.float(), value.float(), biases, floor, places, size)

    weight, shift = numbers(2, 24, dtype=torch.float32)
    rows = torch.tensor([3, 0, 30, 29], device=device)  # the third is padding
    cells = F.pad(query.float(), (0, 0, 0, 1))[rows]
    yield gpu_rows.norm_rows(query, rows, weight, shift, 1e-5, dtype)
    yield F.layer_norm(cells, (24,), weight, shift) * (rows < 30)[:, None]
    added, normed = gpu_rows.add_norm_rows(query.float(), rows, key[:4], weight, shift, 1e-5)
    yield added
    yield cells + key[:4].float()
    yield normed
    yield F.layer_norm(cells + key[:4].float(), (24,), weight, shift)
    out = query.clone()
    gpu_rows.add_to_rows(out, rows, key[:4], value[:4])
    yield out
    yield query.float().index_put((rows[[0, 1, 3]],), (key[:4] + value[:4]).float()[[0, 1, 3]])

    frequency = numbers(6, dtype=torch.float32)
    yield gpu_rows.encode(key.view(1, *size, 24), flow, frequency, dtype)
    angles = ((flow - flow.floor())[0].flip(0).flatten(1).T[..., None] * frequency).double()
    yield key.float() + torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
    yield gpu_rows.chain_flows(flow, last_flow)[1:]
    lines, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in size)
    grid = torch.stack(((flow[:, 0] + columns) / 2.5, (flow[:, 1] + lines[:, None]) / 2), -1) - 1
    yield flow + F.grid_sample(last_flow, grid, align_corners=True)


def _tried_flow(device: torch.device, gpu_flow: Any) -> Iterator[Tensor]:
    """What two layers of flow give, and after it what PyTorch does."""
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 5, 6, 8), (7, 7, 8, 6), (6,), (7, 7, 6, 2), (2,)
    x, *layers = (torch.randn(n, generator=generator).to(device) for n in shapes)
    first, first_bias, last, last_bias = layers
    middle = gpu_flow.convolve(plain.split(SCALE * x), plain.split(first), first_bias, False)
    yield gpu_flow.convolve(middle, plain.split(last), last_bias, True)
    maps = x.permute(0, 3, 1, 2).double()
    for filters, bias in ((first, first_bias), (last, last_bias)):
        maps = F.conv2d(
            maps if filters is first else maps.relu(),
            filters.permute(3, 2, 0, 1).double(),
            bias.double(),
            padding=3,
        )
    yield maps.float()


def _tried_gradients(
    device: torch.device, dtype: torch.dtype, gpu: Any, gpu_align: Any
) -> Iterator[Tensor]:
    """What each kernel gives, and after it what PyTorch does."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    (q, k, v, grad), bias = numbers(4, 3, 2, 48, 12), numbers(2, 2, 48, 48)
    ours = gpu.differentiate(q, k, v, bias, (1, 2), grad)
    of_kinds = zip(*(x.float().split((1, 2)) for x in (q, k, v, grad)), bias.float(), strict=True)
    theirs = [plain.differentiate(q, k, v, b, g) for q, k, v, g, b in of_kinds]
    for mine, parts in zip(ours[:3], zip(*theirs, strict=True), strict=False):
        yield mine
        yield torch.cat(parts)
    yield ours[3]
    yield torch.stack([of_bias for *_, of_bias in theirs])

    maps, biases, size = [*numbers(3, 30, 24)], [*numbers(2, 4, 24)], (5, 6)
    flow, grad = 2 * numbers(1, 2, *size, dtype=torch.float32), numbers(30, 24)
    by_pixel, places = flow[0].flip(0).flatten(1).T, torch.arange(30, device=device)

    def aligned(query: Tensor, key: Tensor, value: Tensor, *biases: Tensor) -> Tensor:
        asks, (of_key, of_value) = query.view(30, 2, 12) / 12**0.5, biases
        return plain.resample(asks, key, value, (of_key, of_value), by_pixel.floor(), places, size)

    *ours, of_biases = gpu_align.differentiate_resample(*maps, *biases, flow, 2, grad)
    wide = (x.float() for x in (*maps, *biases))
    theirs = torch.func.vjp(aligned, *wide)[1](grad.float())
    for mine, other in zip((*ours, *of_biases), theirs, strict=True):
        yield mine
        yield other

    frequency = numbers(6, dtype=torch.float32)
    yield gpu_align.differentiate_encoding(grad, flow, frequency)
    angles = (by_pixel - by_pixel.floor())[..., None] * frequency
    slopes = torch.stack((angles.cos(), -angles.sin()), -1) * frequency[:, None]
    of_flow = (slopes.flatten(2) * grad.float().view(30, 2, 12)).sum(-1)
    yield of_flow.flip(1).T.reshape(flow.shape)
