"""Which code computes attention and alignment: PyTorch's, C++ on the CPU or Triton on GPUs."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from iart.errors import OptionsError
from iart.model.kernels import cpu, gpu_operators, operators, plain

BACKENDS = ("native", "torch", "triton")
"""What computes attention and alignment: PyTorch's operations, on the CPU with our kernels where
they can be had; these operations alone; or, on a GPU, our Triton kernels."""
CAPABILITY = (8, 0)
"""Of GPUs for the Triton kernels, at least."""
GPU_CHANNELS = 64
"""Of a head, that the Triton kernels can take at most."""
GPU_OPERAND = 256 * 32
"""Cells of a window times channels of a head, at least 32, both rounded up to powers of 2, that
those of gradients can take at most."""
_log = logging.getLogger(__name__)


def usable_backend(name: str, device: torch.device) -> str:
    """The backend of that name, or "torch" if there is none on the device; a log line says why.

    "auto" is the fastest that works there: on GPUs "triton", else "native". Which one a GPU has is
    told once.

    Raises:
        OptionsError: no such backend.
    """
    if name not in ("auto", *BACKENDS):
        raise OptionsError(f"unknown backend '{name}': pass auto, {', '.join(BACKENDS)}")
    if name == "auto":
        name = "triton" if device.type == "cuda" else "native"
    if name == "triton" and _lacking_of_triton(device) is not None:
        return "torch"
    return name


@cache
def _lacking_of_triton(device: torch.device) -> str | None:
    """Why the Triton kernels cannot be used there; None if they can. Told once for each device."""
    if device.type == "meta":  # nothing is computed there
        return None
    lacking = None
    # Older GPUs have no products of bfloat16.
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        lacking = "it needs a GPU of compute capability 8.0"
    else:
        lacking = failure_of_triton(device)
    if lacking is None:
        _log.info("attention and alignment: Triton kernels on %s", device)
    else:
        _log.info("attention and alignment: PyTorch's operations, not Triton: %s", lacking)
    return lacking


@cache
def _has_gradients(device: torch.device) -> bool:
    """Whether the Triton kernels of gradients can be used there too. Told once if they cannot."""
    # In a thread of its own, which knows nothing of autocast, checkpoints or modes around the call.
    with ThreadPoolExecutor(1) as thread:
        lacking = thread.submit(failure_of_triton, device, gradients=True).result()
    if lacking is not None:
        _log.info("gradients: PyTorch's operations, not Triton: %s", lacking)
    return lacking is None


def failure_of_triton(device: torch.device, *, gradients: bool = False) -> str | None:
    """Try the Triton kernels on a few numbers: None if PyTorch gives the same, else what is wrong.

    They are compiled on the spot, by Triton and a C compiler: much of that may be missing or old.

    Args:
        device: where.
        gradients: try those of gradients instead.
    """
    try:
        from iart.model.kernels import gpu, gpu_align_gradients, gpu_gradients, gpu_rows
    except ImportError as error:
        return str(error)
    for dtype, tolerance in ((torch.float16, 2**-8), (torch.float32, 1e-4)):
        tried = (
            _tried_gradients(device, dtype, gpu_gradients, gpu_align_gradients)
            if gradients
            else _tried(device, dtype, gpu, gpu_rows)
        )
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
    ones = (attend_fused(*(x[i : i + 1] for x in wide), bias=bias[i].float()) for i in range(2))
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


def backend_in_use(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The one of `BACKENDS` that computes on that device in that type if `backend` is asked for."""
    if backend == "native":
        suits = device.type == "cpu" and dtype == torch.float32
        return "native" if suits and cpu.has_kernels() else "torch"
    return "torch" if device.type != "cuda" else backend


def attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
    backend: str,
) -> Float[Tensor, "s n q d"]:
    """softmax(QKᵀ / √d + bias) V."""
    suits = query.device.type == "cpu" and query.dtype == torch.float32
    if suits and (backend == "native" or not _recorded()):
        return operators.attend(query, key, value, bias, backend)
    return attend_fused(query, key, value, bias)


def attend_windows(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    biases: Float[Tensor, "kinds n q k"],
    sections: Sequence[tuple[int, int]],
    backend: str,
) -> Float[Tensor, "s n q d"]:
    """The same in windows of several kinds, each with its bias.

    Args:
        query: of all windows.
        key: the same.
        value: the same.
        biases: of every kind.
        sections: (kind, windows), in turn.
        backend: one of `BACKENDS`.
    """
    inputs = query, key, value, biases
    fits = query.shape[3] <= GPU_CHANNELS
    if operators.needs_gradient(inputs):
        cells, channels = ((x - 1).bit_length() for x in key.shape[2:])
        fits &= 2 ** (cells + max(5, channels)) <= GPU_OPERAND
    if fits and suits_triton(backend, *inputs):
        counts = [dict(sections).get(kind, 0) for kind in range(len(biases))]
        return gpu_operators.attend_windows(*inputs, counts)
    kinds, counts = zip(*sections, strict=True)
    of_kind = biases.to(query.dtype).unbind()
    parts = zip(
        *(x.split(counts) for x in (query, key, value)),
        (of_kind[kind] for kind in kinds),
        strict=True,
    )
    # joined in the memory order that kernels give
    attended = [attend(q, k, v, bias, backend).transpose(1, 2) for q, k, v, bias in parts]
    return (attended[0] if len(attended) == 1 else torch.cat(attended)).transpose(1, 2)


def attend_fused(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
) -> Float[Tensor, "s n q d"]:
    """The same by PyTorch's fused kernels.

    Those of GPUs that know a bias take multiples of 8 channels (pytorch/pytorch#110630); for others
    PyTorch stores all logits. So channels are filled up with zeros, which add nothing.
    """
    d = query.shape[-1]
    if -d % 8:
        query, key, value = (F.pad(x, (0, -d % 8)) for x in (query, key, value))
    mask = bias.contiguous()[None]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=d**-0.5)
    return attended[..., :d]


def resample(
    query: Float[Tensor, "p n d"],
    key: Float[Tensor, "r c"],
    value: Float[Tensor, "r c"],
    biases: tuple[Float[Tensor, "4 c"], Float[Tensor, "4 c"]],
    floor: Float[Tensor, "p 2"],
    places: Int[Tensor, " p"],
    size: tuple[int, int],
    backend: str,
) -> Float[Tensor, "p c"]:
    """Σ_i softmax_i(query · (key[cell_i] + key_bias_i)) (value[cell_i] + value_bias_i).

    Args:
        query: already scaled.
        key: of maps flattened over (b h w).
        value: of the same.
        biases: what each cell adds to its key and its value.
        floor: ⌊flow⌋, (y, x).
        places: rows of the pixels from which the flow starts.
        size: (h, w) of the maps.
        backend: one of `BACKENDS`.
    """
    maps = query, key, value, *biases
    if _suits_cpu(backend, *maps):
        return operators.resample(*maps, floor, places, size, backend)
    return plain.resample(query, key, value, biases, floor, places, size)


def suits_triton(backend: str, *inputs: Tensor) -> bool:
    """Whether the operators of `gpu_operators` take these: on a GPU.

    Where tensors have no numbers, what is natively computed is what a GPU does.
    """
    device = inputs[0].device
    if device.type == "meta":
        return backend != "torch"
    if backend != "triton" or not all(_is_gpu(x.device) for x in inputs):
        return False
    return not operators.needs_gradient(inputs) or _has_gradients(device)


def _recorded() -> bool:
    """Whether PyTorch writes down what is done: then "torch" is to mean its own operations alone.

    Who loads what was written down needs no iart then.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _suits_cpu(backend: str, *inputs: Tensor) -> bool:
    suits = torch.float32, "cpu", False
    return backend == "native" and all(
        (x.dtype, x.device.type, x.requires_grad) == suits for x in inputs
    )


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
