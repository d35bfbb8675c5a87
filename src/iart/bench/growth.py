"""How time and memory grow with frames, with pixels and with tiles, just below and above borders.

The network pads pictures to whole attention windows, and flow to whole steps of its pyramid, so a
picture one pixel wider may cost a column of windows more. What a pixel costs just above a border,
against what it costs at it, is the height of that jump.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from operator import mul

import torch

from iart.bench.measure import check_memory, load_network, made_clip
from iart.bench.peaks import Size, enlarge, peaks_of_a_process, peaks_on_device
from iart.bench.probes import now
from iart.device import pick_precision
from iart.errors import OptionsError
from iart.inference.tiles import plan_tiles
from iart.inference.tiling import tile_multiple
from iart.model import IART

FRAMES = (1, 2, 3, 4, 6, 8, 12, 16)
SCALES = (1, 1.5, 2, 3)
"""Of the sides of the picture, where borders are looked at."""


@dataclass(frozen=True)
class Cost:
    """Of one pass over a clip of some size."""

    size: Size
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


def measure_growth(
    name: str,
    device: str = "auto",
    *,
    frames: int = 2,
    height: int = 96,
    width: int = 128,
    precision: str = "float32",
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
        precision: one of `iart.device.PRECISIONS`.
        repeats: passes.
        progress: is told passes done, and how many there are.

    Raises:
        OptionsError: "bicubic", or the width is too small for tiles.
        WeightsError: no such model or file.
        DeviceError: this machine lacks the device, the precision or the memory.
    """
    model = load_network(name, device)
    place = model.extract.weight.device
    pick_precision(precision, place)
    for count, scale in ((max(FRAMES), 1), (frames, max(SCALES))):
        check_memory(model, count, round(scale * height), round(scale * width))
    series = growing_sizes(model, frames, height, width)
    sizes = [size for part in series for size in part]
    seconds = dict.fromkeys(sizes, float("inf"))
    for i, size in enumerate(list(seconds) * (repeats + 1)):
        taken = _seconds(model, size, precision)
        if i >= len(seconds):  # the first of each warms up
            seconds[size] = min(seconds[size], taken)
        if progress:
            progress(i + 1, len(seconds) * (repeats + 1))
    held = peaks_of_a_process if place.type == "cpu" else peaks_on_device
    peaks = held(name, device, list(seconds), precision)
    costs = {
        size: Cost(size, seconds[size], peak) for size, peak in zip(seconds, peaks, strict=True)
    }
    by_frames, by_pixels, by_tiles = (tuple(costs[size] for size in part) for part in series)
    threads = torch.get_num_threads()
    return Growth(name, str(place), precision, threads, by_frames, by_pixels, by_tiles)


def growing_sizes(model: IART, frames: int, height: int, width: int) -> tuple[list[Size], ...]:
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
        [Size(count, height, width) for count in FRAMES],
        [Size(frames, h + step, w + step) for h, w in corners for step in (-1, 0, 1)],
        [
            Size(frames, height, side, tile)
            for side in (width, one, one + 1, (one + two) // 2, two, two + 1)
        ],
    )


def jumps(costs: Sequence[Cost], cost_of: Callable[[Cost], float]) -> dict[Size, float]:
    """For each size a pixel above another: how much more a pixel costs there, as a share."""
    return {
        above.size: cost_of(above) / above.size.pixels * at.size.pixels / cost_of(at) - 1
        for at, above in pairwise(costs)
        if above.size.width == at.size.width + 1
    }


def straight_line(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """What the straight line gives at each x that is closest to y, as a share of y."""
    weights = [value**-2.0 for value in y]
    mean_x = fsum(map(mul, weights, x)) / fsum(weights)
    mean_y = fsum(map(mul, weights, y)) / fsum(weights)
    rise = fsum(w * (u - mean_x) * (v - mean_y) for w, u, v in zip(weights, x, y, strict=True))
    run = fsum(w * (u - mean_x) ** 2 for w, u in zip(weights, x, strict=True))
    return [mean_y + rise / run * (u - mean_x) for u in x]


def _seconds(model: IART, size: Size, precision: str) -> float:
    device = model.extract.weight.device
    clip = made_clip(size.frames, size.height, size.width).to(device)
    started = now(device)
    enlarge(model, clip, size, precision)
    return now(device) - started
