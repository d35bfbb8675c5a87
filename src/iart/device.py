"""Where the network runs: device, precision, and the memory that is free there.

This is the only file that asks for a GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int16, Shaped
from torch import Tensor

from iart.errors import DeviceError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What features may be computed in; flow and coordinates are float32 in every one of them."""
TENSOR_CORES = (7, 0)
"""Compute capability of the first GPUs whose float16 is faster than their float32."""


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto" is the first GPU that CUDA or ROCm offers, else the CPU.

    "mps" (Apple) has to be asked for by name: nobody has compared its results with the others' yet.

    Raises:
        DeviceError: the name is not a device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device '{name}'. Pass auto, cpu, cuda, cuda:N or mps")
    available = available_devices()
    wanted = "cuda:0" if device == torch.device("cuda") else str(device)
    if wanted not in available and device.type not in available:
        raise DeviceError(
            f"device '{name}' is not available (found: {', '.join(available)}). "
            "Pass one of these, or auto"
        )
    return device


def available_devices() -> list[str]:
    """Names of what `pick_device` accepts on this machine."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def threads_per_process(devices: Sequence[str]) -> int | None:
    """CPU threads for each of several processes on the CPU; None if at most one computes there.

    Args:
        devices: one for each process; the same one may come twice.

    Raises:
        DeviceError: none is named, or this machine lacks one.
    """
    if not devices:
        raise DeviceError("no device is named; pass some, such as 0,1 or cuda:0,cpu")
    on_cpu = [pick_device(device).type for device in devices].count("cpu")
    return max(1, torch.get_num_threads() // on_cpu) if on_cpu > 1 else None


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that features are computed in on `device`.

    "auto" is float16 on GPUs of CUDA or ROCm that multiply it in tensor cores, else float32.

    Raises:
        DeviceError: the name is unknown, or the device cannot compute in it.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES
        return torch.float16 if fast else torch.float32
    if name not in PRECISIONS:
        raise DeviceError(f"unknown precision '{name}'. Pass auto, {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise DeviceError("precision float16 needs a GPU. Pass float32 or bfloat16 on the CPU")
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(f"device '{device}' has no bfloat16. Pass float32 or float16")
    return PRECISIONS[name]


def precision_name(dtype: torch.dtype) -> str:
    """The one of `PRECISIONS`, by its type."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def wider_precision(device: torch.device) -> str:
    """For what float16 cannot hold: half as many bytes as float32 if the device computes in it."""
    return "bfloat16" if device.type != "cuda" or torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run features in `dtype`; float32 changes nothing. Weights and flow stay float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def computed_in(x: Tensor) -> torch.dtype:
    """The type that a matrix product with this tensor has: that of autocast where it is on."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # PyTorch has none for meta
        return x.dtype
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run in the types that tensors have, whatever `autocast` holds outside."""
    known = device.type != "meta"  # for which PyTorch has no autocast
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def own_queue(device: torch.device) -> AbstractContextManager[object]:
    """In the block, what this thread asks a GPU for goes beside what others ask, not after it.

    Tensors may go from thread to thread once `wait_for` has returned; and what made them must not
    let go of them before the thread that took them has called it, too.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))


def wait_for(device: torch.device) -> None:
    """Return when the device has done what this thread has asked for; on the CPU it has already."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def staging(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the processor, not filled, that is copied to or from a device without waiting."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor on a device; nobody waits for a GPU, so it must stay as it is."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # itself if it is already
    return tensor.to(device, non_blocking=device.type != "mps")


def upload(numbers: np.ndarray, device: torch.device) -> Float[Tensor, "h w"]:
    """Bytes, unsigned numbers of 16 bits or float32 as float32 on a device.

    They go to a GPU as they are stored, while the processor does other things.
    """
    if device.type == "cpu":
        return torch.from_numpy(numbers.astype(np.float32))
    wide = numbers.dtype == np.uint16  # with which PyTorch hardly computes
    if wide:
        numbers = numbers.view(np.int16)
    dtype = torch.from_numpy(np.empty(0, numbers.dtype)).dtype
    waiting = staging(numbers.shape, dtype, device)
    waiting.numpy()[:] = numbers
    there = send(waiting, device)
    return unsigned(there) if wide else there.float()


def download(planes: Sequence[Float[Tensor, "_ _"]], dtype: np.dtype) -> list[np.ndarray]:
    """Whole numbers in float32, or any, as arrays of a type that `upload` takes.

    Waits once for all, and not for what other threads have asked a GPU for. Arrays of planes on the
    CPU stay float32.
    """
    device = planes[0].device
    if device.type == "cpu":
        return [plane.numpy() for plane in planes]
    narrow = [stored(plane, dtype) for plane in planes]
    made = [staging(x.shape, x.dtype, device) for x in narrow]
    for target, source in zip(made, narrow, strict=True):
        target.copy_(source, non_blocking=device.type == "cuda")
    wait_for(device)
    return [x.numpy().view(dtype) for x in made]


def unsigned(bits: Int16[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """What numbers of 16 bits are without a sign."""
    return bits.int().bitwise_and_(0xFFFF).float()


def stored(plane: Float[Tensor, "h w"], dtype: np.dtype) -> Shaped[Tensor, "h w"]:
    """Whole numbers in the bytes of a type; float32 stays."""
    if dtype == np.uint16:
        return plane.int().short()  # the lower 16 bits
    return plane.to(torch.uint8) if dtype == np.uint8 else plane


PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
"""Where Linux tells about memory, and about the limits that containers have."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on `device`; None if the system does not tell.

    On the CPU of Linux, that is what is available without swapping and within the limits of the
    process's control groups. Of a GPU, what PyTorch keeps without using it counts as free.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return None
    try:
        kibibytes = _numbers(PROC / "meminfo")
        groups = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    if "MemAvailable" not in kibibytes:
        return None
    return min([1024 * kibibytes["MemAvailable"], *_left_in_groups(groups)])


def release_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of a GPU's memory without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _left_in_groups(lines: list[str]) -> Iterator[int]:
    """What each control group that has a limit leaves; files are as kernel docs describe them."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            root, limit, used = CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        while group.is_relative_to(root):
            try:
                left = int((group / limit).read_text()) - int((group / used).read_text())
                # Files that the kernel remembers are forgotten when memory is short.
                yield left + _numbers(group / "memory.stat").get("inactive_file", 0)
            except (OSError, ValueError):  # no such group to see here, or "max": no limit
                pass
            group = group.parent


def _numbers(path: Path) -> dict[str, int]:
    """Of a file of lines "name: number …"."""
    words = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
