"""Which code computes attention, alignment, flow: PyTorch's, C++ on the CPU, Triton on GPUs."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from iart.errors import OptionsError
from iart.model.kernels import cpu, gpu_operators, gpu_trial, operators, plain

BACKENDS = ("native", "torch", "triton")
"""What computes attention and alignment: PyTorch's operations, on the CPU with our kernels where
they can be had; these operations alone; or, on a GPU, our Triton kernels, some of flow's too."""
CAPABILITY = (8, 0)
"""Of GPUs for the Triton kernels, at least."""
OF_TRAINING = ((8, 0), (9, 0), (10, 0), (10, 3))
"""Of most GPUs that multiply halves 16 times as fast as float32: A100, H100, H200, B200, B300.
Others do so 2 to 4 times as fast, and three products of halves take as long as one of float32."""
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
        lacking = gpu_trial.failure_of_triton(device)
    if lacking is None:
        _log.info("attention and alignment: Triton kernels on %s", device)
    else:
        _log.info("attention and alignment: PyTorch's operations, not Triton: %s", lacking)
    return lacking


@cache
def _has(kernels: Literal["gradients", "flow"], device: torch.device) -> bool:
    """Whether these Triton kernels can be used there, too. Told once if they cannot."""
    # In a thread of its own, which knows nothing of autocast, checkpoints or modes around the call.
    with ThreadPoolExecutor(1) as thread:
        lacking = thread.submit(gpu_trial.failure_of_triton, device, kernels).result()
    if lacking is not None:
        _log.info("%s: PyTorch's operations, not Triton: %s", kernels, lacking)
    return lacking is None


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
    return not operators.needs_gradient(inputs) or _has("gradients", device)


def suits_split(backend: str, reference: Tensor, other: Tensor, *weights: Tensor) -> bool:
    """Whether the convolutions of flow are those of `gpu_flow`: without a gradient."""
    inputs = reference, other, *weights
    if operators.needs_gradient(inputs) or {x.dtype for x in weights} != {torch.float32}:
        return False
    if not suits_triton(backend, *inputs):
        return False
    device = reference.device
    return device.type == "meta" or (_is_of_training(device) and _has("flow", device))


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


def _is_of_training(device: torch.device) -> bool:
    # AMD's GPUs count otherwise.
    return torch.version.hip is None and torch.cuda.get_device_capability(device) in OF_TRAINING


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
