"""Which code computes attention and alignment: PyTorch's, C++ on the CPU or Triton on GPUs."""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from iart.errors import OptionsError
from iart.model.kernels import cpu, operators, plain

BACKENDS = ("native", "torch", "triton")
"""What computes attention and alignment: PyTorch's operations, on the CPU with our kernels where
they can be had; these operations alone; or, on a GPU and without a gradient, our Triton kernels."""
CAPABILITY = (8, 0)
"""Of GPUs for the Triton kernels, at least."""
GPU_CHANNELS = 64
"""Of a head, that the Triton kernels can take at most."""
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


def failure_of_triton(device: torch.device) -> str | None:
    """Try the Triton kernels on a few numbers: None if PyTorch gives the same, else what is wrong.

    They are compiled on the spot, by Triton and a C compiler: much of that may be missing or old.
    """
    try:
        from iart.model.kernels import gpu
    except ImportError as error:
        return str(error)
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float16, 2**-8), (torch.float32, 1e-4)):

        def numbers(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        (q, k, v), bias = numbers(3, 2, 2, 48, 12), numbers(2, 48, 48)
        query, key, value = numbers(3, 30, 24)
        moves = 2 * numbers(30, 2, dtype=torch.float32)
        (key_bias, value_bias), size = numbers(2, 4, 24), (5, 6)
        try:
            got = (
                gpu.attend(q, k, v, bias),
                gpu.resample(query, key, value, key_bias, value_bias, moves.floor(), size, heads=2),
            )
        except Exception as error:  # noqa: BLE001  # of Triton, a compiler, a driver: any class
            lines = str(error).strip().splitlines()
            return f"its kernels do not run ({lines[0] if lines else type(error).__name__})"
        biases = key_bias.float(), value_bias.float()
        asks, places = query.float().view(30, 2, 12), torch.arange(30, device=device)
        expected = (
            attend_fused(q.float(), k.float(), v.float(), bias.float()),
            plain.resample(asks, key.float(), value.float(), biases, moves.floor(), places, size),
        )
        for ours, theirs in zip(got, expected, strict=True):
            if not torch.allclose(ours.float(), theirs, rtol=tolerance, atol=tolerance):
                return "its kernels give other numbers than PyTorch"
    return None


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
