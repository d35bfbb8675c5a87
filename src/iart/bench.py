"""Speed and memory of the network, measured stage by stage against what the machine can do.

The yardstick is the machine's own matmul rate, measured in the same run. Operations are those that
the path needs (a multiply-add counts 2): each pixel projected once, the last block and what follows
for the middle frame only, padding not counted.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from iart.device import pick_device
from iart.errors import OptionsError
from iart.model import IART, IARTConfig
from iart.weights import load_model

MATMUL_SIDE = 2048
CELLS = 4  # that a pixel attends to in alignment
INTERPOLATION_TAPS = {"nearest": 1, "bilinear": 4, "bicubic": 16}
STAGES = ("flow", "align", "fuse", "upsample")


@dataclass(frozen=True)
class Stage:
    """One part of the network during one pass."""

    name: str
    seconds: float
    operations: float
    peak_bytes: int
    """Most memory the process held at any moment of this stage."""


@dataclass(frozen=True)
class BenchResult:
    """One measured pass over a clip."""

    frames: int
    height: int
    width: int
    device: str
    threads: int
    stages: tuple[Stage, ...]
    """flow, align, fuse and upsample; the first convolution counts to upsample."""
    seconds: float
    matmul_rate: float
    """Operations per second of a 2048³ float32 matrix product in the same run."""

    @property
    def operations(self) -> float:
        """Of the whole pass."""
        return sum(stage.operations for stage in self.stages)

    @property
    def frames_per_second(self) -> float:
        """Input frames, each enlarged ×4."""
        return self.frames / self.seconds

    @property
    def matmul_share(self) -> float:
        """The pass's operations per second over the machine's matmul rate."""
        return self.operations / self.seconds / self.matmul_rate

    @property
    def peak_bytes(self) -> int:
        """Most memory the process held at any moment of the pass."""
        return max(stage.peak_bytes for stage in self.stages)


def load_network(name: str, device: str) -> IART:
    """What to measure: a name or file of `load_model`, or "full", the published configuration.

    Weights of "full" are random: speed does not depend on them.

    Raises:
        OptionsError: "bicubic", which is no network.
        WeightsError: no such model or file.
        DeviceError: this machine lacks the device.
    """
    if name == "full":
        return IART(IARTConfig()).eval().to(pick_device(device))
    model = load_model(name, device)
    if not isinstance(model, IART):
        raise OptionsError(f"'{name}' is not a network: bench measures IART. Pass light or full")
    return model


def format_result(result: BenchResult) -> str:
    """A table for people: per stage milliseconds, operations, share of the matmul rate, memory."""
    title = (
        f"{result.frames} frames of {result.width}x{result.height} on {result.device}, "
        f"{result.threads} threads; matmul {result.matmul_rate / 1e9:.0f} GFLOP/s"
    )
    lines = [title, f"{'stage':<9}{'ms':>9}{'GFLOP':>9}{'of matmul':>11}{'peak MB':>9}"]
    rows = [(s.name, s.seconds, s.operations, s.peak_bytes) for s in result.stages]
    rows.append(("all", result.seconds, result.operations, result.peak_bytes))
    for name, seconds, operations, peak in rows:
        share = operations / seconds / result.matmul_rate if seconds else 0.0
        lines.append(
            f"{name:<9}{seconds * 1e3:>9.1f}{operations / 1e9:>9.2f}"
            f"{share:>11.1%}{peak / 1e6:>9.0f}"
        )
    per_pixel = result.operations / (result.frames * result.height * result.width)
    lines.append(
        f"{result.frames_per_second:.2f} frames/s, {per_pixel / 1e6:.2f} MFLOP per input pixel"
    )
    return "\n".join(lines)


def to_json(result: BenchResult) -> str:
    """The same for programs; seconds, operations and bytes."""
    derived = ("operations", "frames_per_second", "matmul_share", "peak_bytes")
    return json.dumps({**asdict(result), **{name: getattr(result, name) for name in derived}})


def count_operations(config: IARTConfig, frames: int, height: int, width: int) -> dict[str, float]:
    """Operations each stage needs for a clip of `frames` frames of `height` × `width` pixels."""
    c, mid, head = config.channels, config.mid_channels, config.head_channels
    cells = prod(config.window)
    flow_level = 49 * sum(i * o for i, o in pairwise((8, *config.flow_channels, 2)))
    flow = 2 * (frames - 1) * flow_level * sum(0.25**level for level in range(config.flow_levels))

    alignments = config.branches * (max(frames - 1, 0) + max(frames - 2, 0))
    taps = INTERPOLATION_TAPS.get(config.alignment)
    align = alignments * (3 * c * c + 2 * CELLS * c if taps is None else taps * c)

    # Per pixel: q k v, attention, projection and MLP, of three frames or for the middle one.
    block = 3 * (8 * c * c + 2 * cells * c)
    last_block = 6 * c * c + (6 * c * c + 2 * cells * c)
    convs = 27 * c * c * (len(config.depths) - 1) + 9 * c * c + 9 * c * c
    fuse = config.branches * frames * (block * (sum(config.depths) - 1) + last_block + convs)

    upsample = frames * (
        27 * c + 9 * c * mid + 36 * mid * mid + 4 * 36 * mid * head + 16 * 9 * head * (head + 3)
    )
    pixels = height * width
    return {
        name: 2.0 * pixels * count
        for name, count in zip(STAGES, (flow, align, fuse, upsample), strict=True)
    }


def measure(
    model: IART,
    frames: int = 3,
    height: int = 96,
    width: int = 128,
    *,
    repeats: int = 3,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Run the network on a random clip, once for memory and `repeats` times for speed.

    The fastest pass counts: whatever else the machine does can only slow it down.
    """
    device = model.extract.weight.device
    clip = torch.rand(1, frames, 3, height, width, device=device)
    with torch.inference_mode():
        if progress:
            progress("memory")
        with _stage_hooks(model, _PeakMemory(device)) as memory:
            model(clip)
        passes = []
        for i in range(repeats):
            if progress:
                progress(f"pass {i + 1} of {repeats}")
            with _stage_hooks(model, _Timer(device)) as times:
                started = _now(device)
                model(clip)
                passes.append((_now(device) - started, times.values))
        seconds, times = min(passes, key=lambda item: item[0])
        rate = matmul_rate(device)
    operations = count_operations(model.config, frames, height, width)
    stages = tuple(
        Stage(name, times[name], operations[name], int(memory.values[name])) for name in STAGES
    )
    return BenchResult(
        frames, height, width, str(device), torch.get_num_threads(), stages, seconds, rate
    )


def matmul_rate(device: torch.device, repeats: int = 5) -> float:
    """Operations per second of float32 matrix products, the best of `repeats`."""
    a = torch.rand(MATMUL_SIDE, MATMUL_SIDE, device=device)
    torch.mm(a, a)
    seconds = []
    for _ in range(repeats):
        started = _now(device)
        torch.mm(a, a)
        seconds.append(_now(device) - started)
    return 2 * MATMUL_SIDE**3 / min(seconds)


class _Probe:
    """Reads something before and after each call of a stage."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.values: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def before(self) -> None: ...
    def after(self, stage: str) -> None: ...


class _Timer(_Probe):
    def before(self) -> None:
        self.started = _now(self.device)

    def after(self, stage: str) -> None:
        self.values[stage] += _now(self.device) - self.started


class _PeakMemory(_Probe):
    def before(self) -> None:
        reset_peak_memory(self.device)

    def after(self, stage: str) -> None:
        self.values[stage] = max(self.values[stage], peak_memory(self.device))


@contextmanager
def _stage_hooks(model: IART, probe: "_Probe") -> Iterator["_Probe"]:
    parts: list[tuple[str, nn.Module]] = [
        ("flow", model.flow),
        ("align", model.align),
        ("upsample", model.extract),
        ("upsample", model.head),
        *(("fuse", branch) for branch in model.branches.values()),
    ]
    handles = []
    for name, module in parts:

        def before(_module: nn.Module, _inputs: tuple[object, ...]) -> None:
            probe.before()

        def after(
            _module: nn.Module, _inputs: tuple[object, ...], _output: Tensor, name: str = name
        ) -> None:
            probe.after(name)

        handles += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        ]
    try:
        yield probe
    finally:
        for handle in handles:
            handle.remove()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now, where the system can (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Most bytes held since `reset_peak_memory`: on the CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
