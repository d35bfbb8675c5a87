"""Attention in C++ for the CPU, compiled for this very processor when it is first needed.

That takes half a second, Linux, a processor with AVX2, and g++ or what `CXX` names. Elsewhere
PyTorch's own operations do the same; on Linux a note says why.
"""

import ctypes
import logging
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from iart.errors import OptionsError

SOURCE = Path(__file__).with_name("attend.cpp")
# OpenMP goes to the compiler alone, past the linker: its library, and its threads, are to be those
# that PyTorch has loaded.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-Xpreprocessor", "-fopenmp"),
    *("-shared", "-fPIC", "-nostdlib"),
)
BACKENDS = ("native", "torch")
"""What attends on the CPU: the kernel where there is one, or PyTorch's operations."""
_backend = "native"
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


def attend(
    query: Float[Tensor, "s n q d"],
    key: Float[Tensor, "s n k d"],
    value: Float[Tensor, "s n k d"],
    bias: Float[Tensor, "n q k"],
) -> Float[Tensor, "s n q d"] | None:
    """softmax(QKᵀ / √d + bias) V on the CPU, in the memory order (s q n d).

    None if there is no kernel for that: on this machine, or for these types, sizes and strides.
    """
    kernels = _suitable(query, key, value)
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
    kernels = _suitable(query, key, value, grad)
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


@contextmanager
def chosen(backend: str) -> Iterator[None]:
    """In the block, all threads use this one of `BACKENDS`, if there is a kernel.

    Raises:
        OptionsError: no such backend.
    """
    global _backend
    if backend not in BACKENDS:
        raise OptionsError(f"unknown backend '{backend}': pass {' or '.join(BACKENDS)}")
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before


def in_use() -> str:
    """The one of `BACKENDS` that attends now."""
    return "torch" if _backend == "torch" or _kernels() is None else "native"


def _suitable(*maps: Float[Tensor, "s n _ d"]) -> ctypes.CDLL | None:
    suits = torch.float32, "cpu", 1
    if any((x.dtype, x.device.type, x.stride(3)) != suits for x in maps) or not maps[0].numel():
        return None
    if _backend == "torch" or torch.compiler.is_compiling():
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
        _log.info("attention does without its kernel: %s", _reason(error))
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int
    kernels.iart_attend.argtypes = [*[_Map] * 4, pointer, _Sizes, count]
    kernels.iart_differentiate.argtypes = [*[_Map] * 7, pointer, pointer, _Sizes, count, count]
    kernels.iart_attend.restype = kernels.iart_differentiate.restype = None
    return kernels


def _compiled() -> ctypes.CDLL:
    """Compiled anew by every process: that is quicker than to know whether an old one will do."""
    with tempfile.TemporaryDirectory(prefix="iart-") as folder:
        library = Path(folder) / "attend.so"
        command = [*_compiler(), *FLAGS, "-o", str(library), str(SOURCE)]
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return ctypes.CDLL(str(library))


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == _compiler()[0]:
        return f"there is no compiler '{error.filename}'. Install g++, or name another in CXX"
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line]
        return f"{error.cmd[0]} did not compile its kernel: {lines[0] if lines else error}"
    return str(error)
