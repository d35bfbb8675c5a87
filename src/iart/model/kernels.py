"""Other ways to the same numbers: C++ on the CPU, Triton on GPUs, or `torch.compile`.

The C++ is compiled for this very processor when it is first needed. That takes half a second,
Linux, a processor with AVX2, and g++ or what `CXX` names. Elsewhere PyTorch's own operations do the
same; on Linux a note says why.
"""

import ctypes
import importlib.util
import logging
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter

from iart.errors import OptionsError

SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("attend.cpp", "align.cpp"))
# OpenMP goes to the compiler alone, past the linker: its library, and its threads, are to be those
# that PyTorch has loaded.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-Xpreprocessor", "-fopenmp"),
    *("-shared", "-fPIC", "-nostdlib", "-fno-exceptions"),
)
BACKENDS = ("native", "torch", "triton", "compile")
"""What computes attention and alignment: PyTorch's operations, on the CPU with our kernels where
they can be had; these operations alone; on a GPU, and without a gradient, our kernels in Triton; or
what `torch.compile` makes of them, and of all that blocks do, for each shape."""
_backend = "native"
CPU = torch.device("cpu")
F = TypeVar("F", bound=Callable[..., Tensor])
_log = logging.getLogger(__name__)


class _Map(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("window", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("row", ctypes.c_int64),
    )


class _Sizes(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("windows", "heads", "queries", "keys", "channels")
    )


class _MapSizes(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("pixels", "heads", "channels", "height", "width")
    )


def attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
) -> Float[Tensor, "s n q d"] | None:
    """softmax(QKᵀ / √d + bias) V, in the memory order (s q n d).

    None if there is no kernel for that: on this machine, or for these types, sizes and strides.
    """
    strides = {x.stride(3) for x in (query, key, value)}
    if _suits_gpu(query, key, value, bias) and strides == {1} and query.shape[3] <= 64:
        from iart.model import gpu_kernels

        return gpu_kernels.attend(query, key, value, bias)
    kernels = _suitable(bias, query, key, value)
    if kernels is None:
        return None
    out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    out = out.transpose(1, 2)
    by_key = bias.mT.contiguous()
    kernels.iart_attend(
        *_maps(out, query, key, value), by_key.data_ptr(), _sizes(query, key), _threads()
    )
    return out


def differentiate(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
    grad: Float[Tensor, "s n q d"],
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Gradients of query, key, value and bias from that of what `attend` gives; None as there."""
    kernels = _suitable(bias, query, key, value, grad)
    if kernels is None:
        return None
    grads = [torch.empty_like(x) for x in (query, key, value)]
    by_key = bias.mT.contiguous()
    # So many that the threads have equal shares of the heads.
    parts = _threads() // math.gcd(_threads(), query.shape[1])
    bias_grads = by_key.new_zeros(parts, *by_key.shape)
    kernels.iart_differentiate(
        *_maps(query, key, value, grad, *grads),
        by_key.data_ptr(),
        bias_grads.data_ptr(),
        _sizes(query, key),
        parts,
        _threads(),
    )
    return grads[0], grads[1], grads[2], (bias_grads.sum(0) if parts > 1 else bias_grads[0]).mT


def resample(
    query: Float[Tensor, "p n d"],
    key: Float[Tensor, "r c"],
    value: Float[Tensor, "r c"],
    biases: tuple[Float[Tensor, "4 c"], Float[Tensor, "4 c"]],
    floor: Float[Tensor, "p 2"],
    places: Int[Tensor, " p"],
    size: tuple[int, int],
) -> Float[Tensor, "p c"] | None:
    """What `ImplicitAlign` does with its projections, without a gradient; None as above.

    Args:
        query: already scaled.
        key: of maps flattened over (b h w).
        value: of the same.
        biases: what each cell adds to its key and its value.
        floor: ⌊flow⌋, (y, x).
        places: rows of the pixels from which the flow starts.
        size: (h, w) of the maps.
    """
    inputs = query, key, value, *biases, floor
    if _suits_gpu(*inputs):  # there, all pixels come at once
        from iart.model import gpu_kernels

        asks, key, value = (x.contiguous() for x in (query.flatten(1), key, value))
        return gpu_kernels.resample(asks, key, value, *biases, floor, size, query.shape[1])
    suits = torch.float32, "cpu", False
    if any((x.dtype, x.device.type, x.requires_grad) != suits for x in inputs):
        return None
    kernels = _usable(*inputs)
    if kernels is None or query.shape[2] % 4:
        return None
    inputs = [x.contiguous() for x in inputs]
    places = places.contiguous()
    out = torch.empty_like(inputs[0]).flatten(1)
    kernels.iart_resample(
        *(x.data_ptr() for x in (out, *inputs, places)), _MapSizes(*query.shape, *size), _threads()
    )
    return out


@contextmanager
def chosen(backend: str) -> Iterator[None]:
    """In the block, all threads use this one of `BACKENDS`, or `torch` if it cannot be had.

    Raises:
        OptionsError: no such backend.
    """
    global _backend
    if backend not in BACKENDS:
        raise OptionsError(f"unknown backend '{backend}': pass {', '.join(BACKENDS)}")
    lacking = _lacking(backend)
    if lacking:
        _log.info("the backend is torch, not %s: %s", backend, lacking)
        backend = "torch"
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before


def in_use(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> str:
    """The one of `BACKENDS` that computes blocks now, on that device in that type."""
    if _backend == "native":
        suits = device.type == "cpu" and dtype == torch.float32
        return "native" if suits and _kernels() is not None else "torch"
    if _backend == "triton" and device.type != "cuda":
        return "torch"
    return _backend


def compiled(function: F) -> F:
    """Itself, or what `torch.compile` makes of it if that backend is chosen."""
    return cast("F", _compiled_by_torch(function)) if _backend == "compile" else function


@cache
def _compiled_by_torch(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=False)


def _lacking(backend: str) -> str | None:
    """Why this machine cannot do it; None if it can."""
    if backend == "triton":
        # PyTorch for GPUs brings it along; older ones have no products of bfloat16.
        usable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
        if not usable or importlib.util.find_spec("triton") is None:
            return "it needs Triton and a GPU of compute capability 8.0"
    if backend == "compile" and shutil.which(_compiler()[0]) is None:
        return _no_compiler(_compiler()[0])
    return None


def _suits_gpu(*inputs: Tensor) -> bool:
    return _backend == "triton" and all(x.is_cuda and not x.requires_grad for x in inputs)


def _suitable(bias: Float[Tensor, "n q k"], *maps: Float[Tensor, "s n _ d"]) -> ctypes.CDLL | None:
    if any((x.dtype, x.device.type) != (torch.float32, "cpu") for x in (bias, *maps)):
        return None
    if any(x.stride(3) != 1 for x in maps) or not maps[0].numel():
        return None
    kernels = _usable(bias, *maps)
    return None if kernels is None or maps[0].shape[2] % kernels.iart_lanes() else kernels


def _usable(*tensors: Tensor) -> ctypes.CDLL | None:
    """None where PyTorch only writes down what is done, or where a tensor has no numbers."""
    if _backend != "native" or torch.compiler.is_compiling():
        return None
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return None
    if any(type(x) not in (Tensor, Parameter) for x in tensors):
        return None
    return _kernels()


def _maps(*maps: Float[Tensor, "s n _ d"]) -> list[_Map]:
    return [_Map(x.data_ptr(), *x.stride()[:3]) for x in maps]


def _sizes(query: Float[Tensor, "s n q d"], key: Float[Tensor, "s n k d"]) -> _Sizes:
    s, n, q, d = query.shape
    return _Sizes(s, n, q, key.shape[2], d)


def _threads() -> int:
    return torch.get_num_threads()


@cache
def _kernels() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        kernels = _compiled()
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("attention and alignment do without their kernels: %s", _reason(error))
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int
    kernels.iart_attend.argtypes = [*[_Map] * 4, pointer, _Sizes, count]
    kernels.iart_differentiate.argtypes = [*[_Map] * 7, pointer, pointer, _Sizes, count, count]
    kernels.iart_resample.argtypes = [*[pointer] * 8, _MapSizes, count]
    for kernel in (kernels.iart_attend, kernels.iart_differentiate, kernels.iart_resample):
        kernel.restype = None
    return kernels


def _compiled() -> ctypes.CDLL:
    """Compiled anew by every process: that is quicker than to know whether an old one will do."""
    with tempfile.TemporaryDirectory(prefix="iart-") as folder:
        library = Path(folder) / "kernels.so"
        command = [*_compiler(), *FLAGS, "-o", str(library), *SOURCES]
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
        return ctypes.CDLL(str(library))


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "")
    try:
        return shlex.split(named) or ["g++"]
    except ValueError:  # a quote that is not closed
        return [named]


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == _compiler()[0]:
        return _no_compiler(error.filename)
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line]
        return f"{error.cmd[0]} did not compile its kernel: {lines[0] if lines else error}"
    return str(error)


def _no_compiler(name: str) -> str:
    return f"there is no compiler '{name}'. Install g++, or name another in CXX"
