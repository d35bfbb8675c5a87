"""Which code computes attention and alignment: PyTorch's, C++ on the CPU or Triton on GPUs."""

import importlib.util
import logging

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from iart.errors import OptionsError
from iart.model.kernels import cpu, operators, plain

BACKENDS = ("native", "torch", "triton")
"""What computes attention and alignment: PyTorch's operations, on the CPU with our kernels where
they can be had; these operations alone; or, on a GPU and without a gradient, our Triton kernels."""
GPU_CHANNELS = 64
"""Of a head, that the Triton kernels can take at most."""
_log = logging.getLogger(__name__)


def usable_backend(name: str) -> str:
    """The backend of that name, or "torch" if this machine lacks it; a log line then says why.

    Raises:
        OptionsError: no such backend.
    """
    if name not in BACKENDS:
        raise OptionsError(f"unknown backend '{name}': pass {', '.join(BACKENDS)}")
    if name == "triton":
        # PyTorch for GPUs brings it along; older ones have no products of bfloat16.
        usable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
        if not usable or importlib.util.find_spec("triton") is None:
            lacking = "it needs Triton and a GPU of compute capability 8.0"
            _log.info("the backend is torch, not %s: %s", name, lacking)
            return "torch"
    return name


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
    maps = query, key, value
    fits = query.shape[3] <= GPU_CHANNELS and all(x.stride(3) == 1 for x in maps)
    if fits and _suits_gpu(backend, *maps, bias):
        return operators.attend(query, key, value, bias, backend)
    suits = query.device.type == "cpu" and query.dtype == torch.float32
    if suits and (backend == "native" or not _recorded()):
        return operators.attend(query, key, value, bias, backend)
    return attend_fused(query, key, value, bias)


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
    if _suits_gpu(backend, *maps, floor) or _suits_cpu(backend, *maps):
        return operators.resample(*maps, floor, places, size, backend)
    return plain.resample(query, key, value, biases, floor, places, size)


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


def _suits_gpu(backend: str, *inputs: Tensor) -> bool:
    return backend == "triton" and all(x.is_cuda and not x.requires_grad for x in inputs)
