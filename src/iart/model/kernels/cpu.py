"""Attention in windows and implicit alignment on the CPU, in C++.

Attention is softmax(QKᵀ / √d + B) V, head by head, some windows at a time. What PyTorch offers for
it stores all logits as soon as B has a gradient, and its fused kernel takes a third longer on
windows of a few hundred cells. Here the logits stay in the processor's cache, and the gradient
computes them again (as FlashAttention does, Dao et al. 2022, algorithm 4).

The C++ is compiled for this very processor when it is first needed. That takes half a second,
Linux, a processor with AVX2, and g++ or what `CXX` names. Elsewhere PyTorch's own operations do the
same; on Linux a note says why.

Letters: s windows, n heads, q queries, k cells, d channels of a head, p pixels, r rows of maps
flattened over (b h w), c = n·d.
"""

import ctypes
import logging
import math
import os
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("attend.cpp", "align.cpp"))
# OpenMP goes to the compiler alone, past the linker: its library, and its threads, are to be those
# that PyTorch has loaded.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-Xpreprocessor", "-fopenmp"),
    *("-shared", "-fPIC", "-nostdlib", "-fno-exceptions"),
)
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
    """See `iart.model.kernels.dispatch.resample`; None as above."""
    inputs = query, key, value, *biases, floor
    if any((x.dtype, x.device.type) != (torch.float32, "cpu") for x in inputs):
        return None
    kernels = _kernels()
    if kernels is None or query.shape[2] % 4:
        return None
    inputs = [x.contiguous() for x in inputs]
    places = places.contiguous()
    out = torch.empty_like(inputs[0]).flatten(1)
    kernels.iart_resample(
        *(x.data_ptr() for x in (out, *inputs, places)), _MapSizes(*query.shape, *size), _threads()
    )
    return out


def has_kernels() -> bool:
    """Whether this machine has the kernels; compiles them if that is still to be done."""
    return _kernels() is not None


def _suitable(bias: Float[Tensor, "n q k"], *maps: Float[Tensor, "s n _ d"]) -> ctypes.CDLL | None:
    if any((x.dtype, x.device.type) != (torch.float32, "cpu") for x in (bias, *maps)):
        return None
    if any(x.stride(3) != 1 for x in maps) or not maps[0].numel():
        return None
    kernels = _kernels()
    return None if kernels is None or maps[0].shape[2] % kernels.iart_lanes() else kernels


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
