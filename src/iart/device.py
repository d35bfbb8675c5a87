"""Where the network runs: device, precision, and how much memory a window needs.

This is the only file that asks for a GPU.
"""

from collections.abc import Iterator
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
PAIR_FRAMES = 30  # two frames, normalised and in pyramids, the warped one, flows
PAIR_COPIES = 2  # of what a layer of a level gives: before and after ReLU, beside its input
FUSE_MAPS = 9  # what a step fuses, the same normalised, and what blocks overwrite: three maps each
GROUP_MAPS = 3  # what the convolution between two groups gives
BLOCK_COPIES = 8  # of windows in hand: themselves, normed twice, attended, twice as wide twice
GRID_BYTES = 3 * 8 * 4  # where the cells of three maps lie in windows, plain and shifted
HEAD_COPIES = 3  # of the widest map at 4h × 4w: before and after it is shuffled, and convolved
OUTPUT = 48  # an enlarged frame
FLOW_PIXELS = 2**18  # of pairs whose flow is computed together, as `iart.model.flow` says
# What the CPU has in hand at once, as `iart.model` says: cells of windows, numbers at 4h × 4w in a
# stripe, and the rows at h × w that it has at least.
CPU_CELLS, CPU_HEAD, CPU_ROWS = 2**13, 2**20, 4
# What allocators keep of freed blocks instead of giving it back: a share, up to a limit in bytes.
RETAINED_SHARE, RETAINED_LIMIT = 0.9, 250_000_000


def estimate_memory(
    config: NetworkSizes,
    frames: int,
    height: int,
    width: int,
    precision: str = "float32",
    device: str = "cpu",
) -> int:
    """Peak memory in bytes that one window takes of the system, to plan with.

    What is in use, and what allocators keep of freed blocks besides: good to ±30%, as that depends
    on the order in which blocks come and go. Weights and what the process holds are not included.

    Args:
        config: an `IARTConfig`.
        frames: of the window.
        height: in pixels, of the picture that the network sees.
        width: in pixels, of the picture that the network sees.
        precision: one of `PRECISIONS`.
        device: its type: the CPU computes in smaller pieces than others.
    """
    return _with_retained(memory_in_use(config, frames, height, width, precision, device))


def memory_in_use(
    config: NetworkSizes,
    frames: int,
    height: int,
    width: int,
    precision: str = "float32",
    device: str = "cpu",
) -> int:
    """Peak memory in bytes of the network on one window, its input and output included.

    That is the largest of three steps (flow, fusion, head) plus what outlives them: good to ±10%.
    See `estimate_memory` for arguments and for what it takes of the system.
    """
    pixels = height * width
    pairs = min(frames - 1, max(1, FLOW_PIXELS // pixels))
    features = pixels * PRECISIONS[precision].itemsize * config.channels * frames
    outputs = pixels * 4 * OUTPUT * frames
    another = 4 * pixels * OUTPUT if frames > 1 else 0  # beside the frames that are done
    return _clip_bytes(frames, pixels) + max(
        _flow_bytes(config, pairs, height, width),
        features + _fuse_bytes(config, height, width, precision, device),
        features + _head_bytes(config, height, width, precision, device) + outputs + another,
    )


def estimate_tiled_memory(
    config: NetworkSizes,
    frames: int,
    height: int,
    width: int,
    tile: int,
    flow_tile: int,
    precision: str = "float32",
    device: str = "cpu",
) -> tuple[int, int]:
    """Peak memory in bytes where every step of the network sees one tile after another.

    On the CPU the head sees whole pictures all the same.

    Args:
        config: an `IARTConfig`.
        frames: of the window.
        height: in pixels, of the whole picture.
        width: in pixels, of the whole picture.
        tile: side in pixels.
        flow_tile: side in pixels of the pieces that flow is computed in.
        precision: one of `PRECISIONS`.
        device: its type.

    Returns:
        Of the network on one tile; and of what is held of the whole picture meanwhile, input and
        output included, where the clip lies.
    """
    h, w = min(height, tile), min(width, tile)
    flow_sides = min(height, flow_tile), min(width, flow_tile)
    head_sides = (height, width) if device == "cpu" else (h, w)  # there it computes in stripes
    network = max(
        _flow_bytes(config, 1, *flow_sides),
        _fuse_bytes(config, h, w, precision, device),
        _head_bytes(config, *head_sides, precision, device) + 4 * OUTPUT * h * w,
    )
    pixels, feature = height * width, PRECISIONS[precision].itemsize * config.channels
    # While a row of tiles is joined it is there twice: a map, or an enlarged frame.
    features = feature * pixels * frames
    held = _clip_bytes(frames, pixels) + max(
        features + feature * (pixels + h * width),
        features + 4 * OUTPUT * (pixels * (frames + 1) + h * width),
    )
    return _with_retained(network), held


def _clip_bytes(frames: int, pixels: int) -> int:
    """Frames and the flows between them, both ways."""
    return 4 * pixels * (3 * frames + 2 * 2 * (frames - 1))


def _flow_bytes(config: NetworkSizes, pairs: int, height: int, width: int) -> int:
    pyramid = 2 ** (config.flow_levels - 1)
    sides = (max(_round_up(side, pyramid), 2 * pyramid) for side in (height, width))
    widest = max(a + PAIR_COPIES * b for a, b in pairwise((8, *config.flow_channels, 2)))
    return 4 * pairs * (PAIR_FRAMES + widest) * prod(sides)


def _fuse_bytes(config: NetworkSizes, height: int, width: int, precision: str, device: str) -> int:
    """Three maps and what becomes of them; besides, windows in hand or a group's convolution."""
    _, window_h, window_w = config.window
    k = 3 * window_h * window_w
    pixels = height * width
    cells = all_cells = 3 * _round_up(height, window_h) * _round_up(width, window_w)
    if device == "cpu":
        cells = min(cells, max(k, CPU_CELLS // k * k))
    feature = PRECISIONS[precision].itemsize * config.channels
    before = min(cells, all_cells - cells)  # cells of the windows that were in hand before
    besides = max(
        BLOCK_COPIES * cells + before, GROUP_MAPS * pixels if len(config.depths) > 1 else 0
    )
    # Plain and shifted blocks alternate; a shifted one has a bias for each of 4 kinds of windows.
    heads = sum(d * n for d, n in zip(config.depths, config.heads, strict=True))
    biases = 2 * k * k * heads * (1 + 4)
    return feature * (FUSE_MAPS * pixels + besides) + GRID_BYTES * pixels + biases


def _head_bytes(config: NetworkSizes, height: int, width: int, precision: str, device: str) -> int:
    row, rows = 16 * width * config.head_channels, height
    if device == "cpu":
        rows = min(height, max(CPU_ROWS, CPU_HEAD // row))
    copies = HEAD_COPIES + (rows < height)  # rows of a stripe are joined to those above
    return PRECISIONS[precision].itemsize * copies * rows * row


def _with_retained(live: int) -> int:
    return round(live + min(RETAINED_SHARE * live, RETAINED_LIMIT))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


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
