"""Where the network runs: device, precision, and how much memory a window needs.

This is the only file that asks for a GPU.
"""

import torch

from iart.errors import DeviceError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What features may be computed in; flow and coordinates are float32 in every one of them."""


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


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that features are computed in on `device`.

    Raises:
        DeviceError: the name is unknown, or the device cannot compute in it.
    """
    if name not in PRECISIONS:
        raise DeviceError(f"unknown precision '{name}'. Pass {', '.join(PRECISIONS)}")
    if name == "float16" and device.type == "cpu":
        raise DeviceError("precision float16 needs a GPU. Pass float32 or bfloat16 on the CPU")
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(f"device '{device}' has no bfloat16. Pass float32 or float16")
    return PRECISIONS[name]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Run features in `dtype`; weights, flow and coordinates stay float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
