"""One clip through the network: time, memory and arithmetic of every stage.

The yardstick is the machine's own matmul rate, measured in the same run, in float32 and in the
precision used. Operations are those that the path needs (a multiply-add counts 2): each pixel
projected once, the last block and what follows for the middle frame only, padding not counted.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.device import PRECISIONS, free_memory, pick_device
from iart.errors import DeviceError, OptionsError
from iart.model import IART, IARTConfig
from iart.model.kernels.dispatch import backend_in_use
from iart.model.memory import memory_in_use
from iart.runtime import peak_memory as peak_of_process
from iart.weights import load_model

CELLS = 4  # that a pixel attends to in alignment
INTERPOLATION_TAPS = {"nearest": 1, "bilinear": 4, "bicubic": 16}
DERIVED = ("operations", "frames_per_second", "matmul_share", "peak_bytes")
MATMULS = 5
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices; a GPU is done with small ones before it is at its full rate."""


@dataclass(frozen=True)
class Stage:
    """One part of the network during one pass."""

    name: str
    seconds: float
    operations: float
    floor_seconds: float
    """What its operations would take at the matmul rate of its precision: flow is in float32."""
    peak_bytes: int
    """Most memory held at any moment of this stage: on a CPU by the process, else on the device."""

    @property
    def matmul_share(self) -> float:
        """Of the matmul rate, that this stage reaches."""
        return self.floor_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class BenchResult:
    """One measured pass over a clip."""

    model: str
    frames: int
    height: int
    width: int
    device: str
    precision: str
    backend: str
    """One of `iart.model.kernels.dispatch.BACKENDS`."""
    threads: int
    stages: tuple[Stage, ...]
    """flow, align, fuse and upsample; the first convolution counts to upsample."""
    seconds: float
    matmul_rates: dict[str, float]
    """By precision, operations per second of a matrix product in the same run."""
    psnr: float | None
    """Of the output against that of float32, RGB clamped to [0, 1], in dB; None for float32."""

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
        """What the operations would take at the matmul rate, over what the pass took."""
        return sum(stage.floor_seconds for stage in self.stages) / self.seconds

    @property
    def peak_bytes(self) -> int:
        """Most memory held at any moment of the pass."""
        return max(stage.peak_bytes for stage in self.stages)


def load_network(name: str, device: str, precision: str = "auto", backend: str = "auto") -> IART:
    """What to measure: a name or file of `load_model`, or "full", the published configuration.

    Weights of "full" are random, the same every time: speed does not depend on them.

    Raises:
        OptionsError: "bicubic", which is no network, or no such backend.
        WeightsError: no such model or file.
        DeviceError: this machine lacks the device or the precision.
    """
    if name == "full":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = IART(IARTConfig())
        model = model.requires_grad_(False).eval().to(pick_device(device))
        model.precision, model.backend = precision, backend
        return model
    model = load_model(name, device, precision, backend=backend)
    if not isinstance(model, IART):
        raise OptionsError(f"'{name}' is not a network: bench measures IART. Pass light or full")
    return model


def measure(
    model: IART,
    frames: int = 3,
    height: int = 96,
    width: int = 128,
    *,
    repeats: int = 3,
    name: str = "",
) -> BenchResult:
    """Run the network on a made clip, once for memory and `repeats` times for speed.

    The fastest pass counts: whatever else the machine does can only slow it down.

    Args:
        model: runs where its parameters lie, in its precision and backend.
        frames: of the clip.
        height: of the input, in pixels.
        width: of the input, in pixels.
        repeats: passes.
        name: of the model, for the result.

    Raises:
        DeviceError: the device lacks the memory.
    """
    device, precision = model.extract.weight.device, model.precision
    dtype = PRECISIONS[precision]
    check_memory(model, frames, height, width)
    clip = made_clip(frames, height, width).to(device)
    with torch.inference_mode():
        psnr = None
        if dtype != torch.float32:
            psnr = _psnr(model(clip), model.in_precision("float32")(clip))
        peaks = StagePeaks(device)
        with watched(model, peaks):
            model(clip)
        passes: list[tuple[float, dict[str, float]]] = []
        for _ in range(repeats):
            times = StageTimes(device)
            with watched(model, times):
                started = now(device)
                model(clip)
                seconds = now(device) - started
            passes.append((seconds, times.seconds()))
        seconds, stage_seconds = min(passes, key=lambda item: item[0])
        rates = {
            word: matmul_rate(device, PRECISIONS[word])
            for word in dict.fromkeys(("float32", precision))
        }
    operations = count_operations(model.config, frames, height, width)
    stages = tuple(
        Stage(
            stage,
            stage_seconds[stage],
            operations[stage],
            operations[stage] / rates["float32" if stage == "flow" else precision],
            peaks.bytes[stage],
        )
        for stage in STAGES
    )
    return BenchResult(
        name,
        frames,
        height,
        width,
        str(device),
        precision,
        backend_in_use(model.backend, device, dtype),
        torch.get_num_threads(),
        stages,
        seconds,
        rates,
        psnr,
    )


def format_result(result: BenchResult) -> str:
    """A table for people: per stage milliseconds, operations, share of the matmul rate, memory."""
    model = f"{result.model}, " if result.model else ""
    title = (
        f"{model}{result.frames} frames of {result.width}x{result.height} on {result.device} in "
        f"{result.precision}, {result.threads} threads, backend {result.backend}"
    )
    lines = [title, f"{'stage':<9}{'ms':>9}{'GFLOP':>9}{'of matmul':>11}{'peak MB':>9}"]
    rows = [(s.name, s.seconds, s.operations, s.matmul_share, s.peak_bytes) for s in result.stages]
    whole = result.seconds, result.operations, result.matmul_share, result.peak_bytes
    rows.append(("all", *whole))
    for name, seconds, operations, share, peak in rows:
        lines.append(
            f"{name:<9}{seconds * 1e3:>9.1f}{operations / 1e9:>9.2f}"
            f"{share:>11.1%}{peak / 1e6:>9.0f}"
        )
    per_pixel = result.operations / (result.frames * result.height * result.width)
    lines.append(
        f"{result.frames_per_second:.2f} frames/s, {per_pixel / 1e6:.2f} MFLOP per input pixel"
    )
    rates = (f"{name} {rate / 1e9:.0f}" for name, rate in result.matmul_rates.items())
    lines.append(f"matmul in GFLOP/s: {', '.join(rates)}")
    if result.psnr is not None:
        lines.append(f"{result.psnr:.1f} dB against the output of float32")
    return "\n".join(lines)


def to_json(result: BenchResult) -> str:
    """The same for programs; seconds, operations and bytes."""
    stages = [{**asdict(s), "matmul_share": s.matmul_share} for s in result.stages]
    derived = {name: getattr(result, name) for name in DERIVED}
    return json.dumps({**asdict(result), "stages": stages, **derived})


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


def check_memory(model: IART, frames: int, height: int, width: int) -> None:
    """Refuse a clip that takes more than there is: the system would end the process, unexplained.

    Raises:
        DeviceError: it does.
    """
    device = model.extract.weight.device
    needed = memory_in_use(model.config, frames, height, width, device=device.type)
    free = free_memory(device)
    if free is not None and needed > free:
        raise DeviceError(
            f"{frames} frames of {width}x{height} need {needed / 1e9:.1f} GB of memory, and "
            f"{device} has {free / 1e9:.1f} GB to spare. Pass fewer or smaller frames"
        )


def made_clip(
    frames: int, height: int, width: int
) -> Float[Tensor, "1 {frames} 3 {height} {width}"]:
    """A pan over smooth blobs of all sizes, 2 pixels per frame, the same every time, in [0, 1].

    Noise would be a bad judge of a precision: nothing in it can be followed from frame to frame.
    """
    generator = torch.Generator().manual_seed(0)
    long = width + 2 * frames
    picture = torch.zeros(1, 3, height, long)
    for size in (4, 8, 16, 32):
        cells = 1, 3, height // size + 2, long // size + 2
        blobs = torch.rand(cells, generator=generator) - 0.5
        large = F.interpolate(blobs, scale_factor=float(size), mode="bicubic")
        picture += size**0.5 / 16 * large[..., :height, :long]
    picture = (picture + 0.5).clamp(0, 1)
    return torch.stack([picture[..., 2 * i : 2 * i + width] for i in range(frames)], dim=1)


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of matrix products, the best of a few."""
    side = MATMUL_SIDE.get(device.type, MATMUL_SIDE["cpu"])
    a = torch.rand(side, side, device=device).to(dtype)
    torch.mm(a, a)
    seconds = []
    for _ in range(MATMULS):
        started = now(device)
        torch.mm(a, a)
        seconds.append(now(device) - started)
    return 2 * side**3 / min(seconds)


def _psnr(made: Tensor, exact: Tensor) -> float:
    error = (made.float().clamp(0, 1) - exact.clamp(0, 1)).square().mean()
    return float(-10 * error.clamp(min=1e-12).log10())


# ---- probes: time and memory of the stages, and of the process


STAGES: tuple[str, ...] = ("flow", "align", "fuse", "upsample")
CLEAR_REFS = Path("/proc/self/clear_refs")
"""Of Linux: where a process resets its peak."""


class StageTimes:
    """Seconds of each stage; on a GPU by its own clock, so that nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []

    def before(self) -> None:
        """A stage begins."""
        self._started = self._mark()

    def after(self, stage: str) -> None:
        """The stage that began last has ended."""
        self._spans.append((stage, self._started, self._mark()))

    def seconds(self) -> dict[str, float]:
        """Of all calls of each stage."""
        sums = dict.fromkeys(STAGES, 0.0)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for stage, start, end in self._spans:
            if isinstance(start, torch.cuda.Event):
                assert isinstance(end, torch.cuda.Event)
                sums[stage] += start.elapsed_time(end) / 1e3
            else:
                assert not isinstance(end, torch.cuda.Event)
                sums[stage] += end - start
        return sums

    def _mark(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class StagePeaks:
    """Most bytes held during any call of each stage."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = dict.fromkeys(STAGES, 0)

    def before(self) -> None:
        """A stage begins."""
        reset_peak_memory(self._device)

    def after(self, stage: str) -> None:
        """The stage that began last has ended."""
        self.bytes[stage] = max(self.bytes[stage], peak_memory(self._device))


@contextmanager
def watched(model: IART, probe: StageTimes | StagePeaks) -> Iterator[None]:
    """In the block, the probe is told of every stage that the model goes through."""
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
        yield
    finally:
        for handle in handles:
            handle.remove()


def now(device: torch.device) -> float:
    """Seconds, after all that the device has to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> bool:
    """Let `peak_memory` count from now; false where the system cannot.

    CUDA can, and Linux but for sandboxes that lack a part of /proc.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int:
    """Most bytes held since `reset_peak_memory`: on the CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_of_process()
