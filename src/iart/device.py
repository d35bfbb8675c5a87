"""Where the network runs: device, precision, and how much memory a window needs.

This is the only file that asks for a GPU.
"""

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

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


@runtime_checkable
class NetworkSizes(Protocol):
    """What the memory formula reads of `iart.model.IARTConfig`."""

    channels: Final[int]
    head_channels: Final[int]
    flow_channels: Final[tuple[int, ...]]
    flow_levels: Final[int]
    depths: Final[tuple[int, ...]]
    heads: Final[tuple[int, ...]]
    window: Final[tuple[int, int, int]]


# Numbers per low-resolution pixel that live at the same time, counted in the code and found again
# by measurement (docs/performance.md).
PAIR_FRAMES = 32  # two frames, normalised and in pyramids, the warped one, flows
PAIR_COPIES = 2  # of a level's widest input and output: as they are, and as convolutions order them
FUSE_COPIES = 13  # of the three maps: input, residuals, q k v, attended, in windows and out of them
HEAD_COPIES = 3  # of the widest map at 4h × 4w: before, after and between two layers
OUTPUT = 48  # an enlarged frame
# What allocators keep of freed blocks instead of giving it back: a share, up to a limit in bytes.
RETAINED_SHARE, RETAINED_LIMIT = 0.6, 200_000_000


def estimate_memory(
    config: NetworkSizes, frames: int, height: int, width: int, precision: str = "float32"
) -> int:
    """Peak memory in bytes of the network on one window, its input and output included.

    That is the largest of four steps (flow, fusion, head, output) plus what outlives them. Weights
    and what the process holds besides are not included. Good to ±25% of peaks measured on the CPU;
    those scatter as much where blocks are about as large as those the allocator gives back.

    Args:
        config: an `IARTConfig`.
        frames: of the window.
        height: in pixels, of the picture or tile that the network sees.
        width: in pixels, of the picture or tile that the network sees.
        precision: one of `PRECISIONS`.
    """
    feature = PRECISIONS[precision].itemsize
    c, pairs = config.channels, 2 * (frames - 1)
    _, window_h, window_w = config.window
    k = 3 * window_h * window_w
    pixels = height * width
    windowed = _round_up(height, window_h) * _round_up(width, window_w)
    pyramid = 2 ** (config.flow_levels - 1)
    sides = (max(_round_up(side, pyramid), 2 * pyramid) for side in (height, width))
    widths = (8, *config.flow_channels, 2)
    widest = max(a + b for a, b in pairwise(widths))

    flow = 4 * pairs * (PAIR_FRAMES + PAIR_COPIES * widest) * prod(sides)
    # Plain and shifted blocks alternate; a shifted one has a bias for each of 4 kinds of windows.
    heads = sum(d * n for d, n in zip(config.depths, config.heads, strict=True))
    biases = 4 * k * k * heads * (1 + 4) / 2
    fuse = feature * c * (2 * frames * pixels + 3 * FUSE_COPIES * windowed) + biases
    head = pixels * feature * (c * frames + 16 * HEAD_COPIES * config.head_channels)
    outputs = pixels * 4 * OUTPUT * frames
    held = pixels * 4 * (3 * frames + 2 * pairs)
    live = held + max(flow, fuse, head + outputs, pixels * feature * c * frames + 2 * outputs)
    return round(live + min(RETAINED_SHARE * live, RETAINED_LIMIT))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on `device`; None if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kibibytes = {name: value.split()[0] for name, _, value in (x.partition(":") for x in lines)}
    return 1024 * int(kibibytes["MemAvailable"]) if "MemAvailable" in kibibytes else None
