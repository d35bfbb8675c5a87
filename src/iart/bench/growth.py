"""How time and memory grow with frames, with pixels and with tiles, just below and above borders.

The network pads pictures to whole attention windows, and flow to whole steps of its pyramid, so a
picture one pixel wider may cost a column of windows more. What a pixel costs just above a border,
against what it costs at it, is the height of that jump.

On a CPU only the process tells of memory, and it keeps much of what it has freed for later. So a
process of its own measures there (`python -m iart.bench.growth`), in which glibc gives back what is
freed.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iart.bench.measure import (
    check_memory,
    load_network,
    made_clip,
    now,
    peak_memory,
    reset_peak_memory,
)
from iart.errors import DeviceError, OptionsError
from iart.files.complete import complete_file, writing
from iart.model import IART
from iart.reports.charts import chart_file, lines_chart
from iart.upscaling.budget import Tiling, tile_multiple
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.tiles import plan_tiles

# ---- most memory in use


GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_ARENA_MAX": "1"}
"""Environment in which glibc takes blocks above 16 KiB from the system one by one."""


@dataclass(frozen=True)
class ClipSize:
    """What is shown to the network: whole pictures, or tiles of at most `tile` pixels a side."""

    frames: int
    height: int
    width: int
    tile: int | None = None

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.frames * self.height * self.width


def enlarge(
    model: IART, clip: Float[Tensor, "1 t 3 h w"], size: ClipSize
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """One pass, in one piece or in tiles."""
    enlarger = Enlarger(model, Tiling(size.frames, 0, size.tile))
    return enlarger.enlarge(clip[0], slice(0, size.frames))[0]


def peaks_on_device(
    name: str, device: str, sizes: Sequence[ClipSize], precision: str, backend: str = "native"
) -> list[int]:
    """Bytes for each size, the clip and its enlargement included, the weights not."""
    model = load_network(name, device, precision, backend)
    place = model.extract.weight.device
    peaks: list[int] = []
    for size in sizes:
        held = 0
        for _ in range(2):  # the first time, libraries take what they keep
            anew = reset_peak_memory(place)
            before = peak_memory(place)
            clip = made_clip(size.frames, size.height, size.width).to(place)
            enlarge(model, clip, size)
            more = peak_memory(place) - before
            held = more if anew else max(held, more)  # a peak that stays grows the first time
            del clip
        peaks.append(held)
    return peaks


def peaks_of_a_process(
    name: str, device: str, sizes: Sequence[ClipSize], precision: str, backend: str = "native"
) -> list[int]:
    """The same, measured in a process of its own; where peaks stay, in one for every size."""
    peaks: list[int] = []
    anew = reset_peak_memory(torch.device("cpu"))
    for some in [sizes] if anew else [[size] for size in sizes]:
        task = {"name": name, "device": device, "precision": precision, "backend": backend}
        words = json.dumps({**task, "sizes": [asdict(size) for size in some]})
        done = subprocess.run(
            [sys.executable, "-m", "iart.bench.growth"],
            input=words,
            env={**os.environ, **GIVES_BACK},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            raise DeviceError(f"memory could not be measured: {last}")
        peaks += json.loads(done.stdout)
    return peaks


FRAMES = (1, 2, 3, 4, 6, 8, 12, 16)
SCALES = (1, 1.5, 2, 3)
"""Of the sides of the picture, where borders are looked at."""


@dataclass(frozen=True)
class Cost:
    """Of one pass over a clip of some size."""

    size: ClipSize
    seconds: float
    peak_bytes: int
    """Most memory in use, the clip and its enlargement included, weights and libraries not."""


@dataclass(frozen=True)
class Growth:
    """Three series of costs."""

    model: str
    device: str
    precision: str
    threads: int
    by_frames: tuple[Cost, ...]
    by_pixels: tuple[Cost, ...]
    """Sizes come by three: a pixel below, at and a pixel above borders of windows, both sides."""
    by_tiles: tuple[Cost, ...]
    """Widths, among them the last ones with one and with two tiles, and the next ones."""


CostOf = Callable[[Cost], float]
SERIES: dict[str, tuple[str, CostOf]] = {
    "by_frames": ("frames", lambda cost: float(cost.size.frames)),
    "by_pixels": ("kilopixels per frame", lambda cost: cost.size.height * cost.size.width / 1e3),
    "by_tiles": ("width of a frame in tiles", lambda cost: float(cost.size.width)),
}
"""Of `Growth`: what grows, and how much of it there is."""
COSTS: dict[str, tuple[str, CostOf]] = {
    "time": ("seconds", lambda cost: cost.seconds),
    "memory": ("MB", lambda cost: cost.peak_bytes / 1e6),
}
"""What grows with it, and its unit."""


@dataclass(frozen=True)
class Curve:
    """One cost against one thing that grows, and how linear it is."""

    cost: str
    grows: str
    costs: tuple[Cost, ...]
    places: list[float]
    """How much there is of what grows, for each of the costs."""
    measured: list[float]

    @property
    def line(self) -> list[float]:
        """What the straight line that fits best gives for each of the costs."""
        return straight_line(self.places, self.measured)

    @property
    def from_line(self) -> float:
        """How far that line lies from a measured cost, at most, as a share."""
        return max(abs(y / seen - 1) for y, seen in zip(self.line, self.measured, strict=True))

    @property
    def jump(self) -> float | None:
        """How much more a pixel costs where a picture is a pixel wider, at most, as a share."""
        return max(jumps(self.costs, COSTS[self.cost][1]).values(), default=None)


def measure_growth(
    name: str,
    device: str = "auto",
    *,
    frames: int = 2,
    height: int = 96,
    width: int = 128,
    precision: str = "auto",
    backend: str = "auto",
    repeats: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> Growth:
    """Measure every size in turn, `repeats` times over; the fastest pass of each counts.

    Memory is measured apart, on a CPU in a process of its own.

    Args:
        name: see `load_network`.
        device: see `load_network`.
        frames: of the clips whose pictures grow.
        height: of the pictures whose number grows, and the smallest otherwise; whole windows.
        width: see height; tiles are twice as wide.
        precision: see `load_network`.
        backend: see `load_network`.
        repeats: passes.
        progress: is told passes done, and how many there are.

    Raises:
        OptionsError: "bicubic", no such backend, or the width is too small for tiles.
        WeightsError: no such model or file.
        DeviceError: this machine lacks the device, the precision or the memory.
    """
    model = load_network(name, device, precision, backend)
    place = model.extract.weight.device
    for count, scale in ((max(FRAMES), 1), (frames, max(SCALES))):
        check_memory(model, count, round(scale * height), round(scale * width))
    series = growing_sizes(model, frames, height, width)
    sizes = [size for part in series for size in part]
    seconds = dict.fromkeys(sizes, float("inf"))
    for i, size in enumerate(list(seconds) * (repeats + 1)):
        taken = _seconds(model, size)
        if i >= len(seconds):  # the first of each warms up
            seconds[size] = min(seconds[size], taken)
        if progress:
            progress(i + 1, len(seconds) * (repeats + 1))
    held = peaks_of_a_process if place.type == "cpu" else peaks_on_device
    peaks = held(name, device, list(seconds), model.precision, model.backend)
    costs = {
        size: Cost(size, seconds[size], peak) for size, peak in zip(seconds, peaks, strict=True)
    }
    by_frames, by_pixels, by_tiles = (tuple(costs[size] for size in part) for part in series)
    threads = torch.get_num_threads()
    return Growth(name, str(place), model.precision, threads, by_frames, by_pixels, by_tiles)


def growing_sizes(model: IART, frames: int, height: int, width: int) -> tuple[list[ClipSize], ...]:
    """Sizes by frames, by pixels and by tiles.

    Raises:
        OptionsError: the width is too small for tiles of twice as much.
    """
    multiple, tile = tile_multiple(model), 2 * width
    try:
        counts = [len(plan_tiles(side, tile, multiple)) for side in range(4 * tile)]
    except OptionsError as error:
        raise OptionsError(f"{error}: it is twice the width. Pass a larger --width") from error
    one, two = (max(n for n, count in enumerate(counts) if count == few) for few in (1, 2))
    corners = [
        [max(1, round(scale * side / multiple)) * multiple for side in (height, width)]
        for scale in SCALES
    ]
    return (
        [ClipSize(count, height, width) for count in FRAMES],
        [ClipSize(frames, h + step, w + step) for h, w in corners for step in (-1, 0, 1)],
        [
            ClipSize(frames, height, side, tile)
            for side in (width, one, one + 1, (one + two) // 2, two, two + 1)
        ],
    )


def curves(growth: Growth) -> Iterator[Curve]:
    """Each cost against what grows; nothing of one that was too little to be seen."""
    for series, (grows, place_of) in SERIES.items():
        costs: tuple[Cost, ...] = getattr(growth, series)
        places = [place_of(cost) for cost in costs]
        for name, (_, cost_of) in COSTS.items():
            measured = [cost_of(cost) for cost in costs]
            if min(measured) > 0:
                yield Curve(name, grows, costs, places, measured)


def jumps(costs: Sequence[Cost], cost_of: Callable[[Cost], float]) -> dict[ClipSize, float]:
    """For each size a pixel above another: how much more a pixel costs there, as a share."""
    return {
        above.size: cost_of(above) / above.size.pixels * at.size.pixels / cost_of(at) - 1
        for at, above in pairwise(costs)
        if above.size.width == at.size.width + 1
    }


def straight_line(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """What the straight line gives at each x that is closest to y, as a share of y."""
    return np.polyval(np.polyfit(x, y, 1, w=1 / np.array(y)), x).tolist()


def format_growth(growth: Growth) -> str:
    """A table for people, and what is to be learnt from it."""
    lines = [
        f"{growth.model} on {growth.device} in {growth.precision}, {growth.threads} threads",
        f"{'frames':>6}{'size':>10}{'tile':>6}{'ms':>10}{'ns/pixel':>10}{'peak MB':>9}",
    ]
    for series in SERIES:
        for cost in getattr(growth, series):
            size = cost.size
            lines.append(
                f"{size.frames:>6}{f'{size.width}x{size.height}':>10}{size.tile or '':>6}"
                f"{cost.seconds * 1e3:>10.1f}{cost.seconds / size.pixels * 1e9:>10.0f}"
                f"{cost.peak_bytes / 1e6:>9.1f}"
            )
    for found in curves(growth):
        jump = (
            "" if found.jump is None else f"; a pixel more costs up to {found.jump:+.1%} per pixel"
        )
        lines.append(
            f"{found.cost} against {found.grows}: within {found.from_line:.1%} of a line{jump}"
        )
    return "\n".join(lines)


def write_growth(growth: Growth, folder: Path) -> list[Path]:
    """Write growth.json and growth.svg into a folder, which is made if missing.

    Raises:
        OutputError: the operating system refuses.
    """
    found = list(curves(growth))
    told = ("cost", "grows", "from_line", "jump")
    findings = [{name: getattr(curve, name) for name in told} for curve in found]
    content = {
        "growth.json": json.dumps({**asdict(growth), "findings": findings}, indent=1),
        "growth.svg": chart_file([_chart(curve) for curve in found]),
    }
    prepare_folder(folder)
    for name, text in content.items():
        with complete_file(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in content]


def prepare_folder(folder: Path) -> None:
    """Make a folder for results, if it is missing.

    Raises:
        OutputError: the operating system refuses, or nothing can be written there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _seconds(model: IART, size: ClipSize) -> float:
    device = model.extract.weight.device
    clip = made_clip(size.frames, size.height, size.width).to(device)
    started = now(device)
    enlarge(model, clip, size)
    return now(device) - started


def _chart(curve: Curve) -> str:
    return lines_chart(
        {f"{curve.cost}, measured": curve.measured, "straight line": curve.line},
        [f"{c.size.frames} × {c.size.width}x{c.size.height}" for c in curve.costs],
        title=f"{curve.cost} against {curve.grows}",
        unit=COSTS[curve.cost][0],
        axis=curve.grows,
        at=curve.places,
        from_zero=True,
    )


if __name__ == "__main__":
    task = json.load(sys.stdin)
    sizes = [ClipSize(**size) for size in task.pop("sizes")]
    json.dump(peaks_on_device(sizes=sizes, **task), sys.stdout)
