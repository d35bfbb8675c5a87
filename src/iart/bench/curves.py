"""How cost grows, as a table, as JSON and as a picture."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from iart.bench.growth import Cost, Growth, jumps, straight_line
from iart.errors import OutputError
from iart.plot import chart_file, lines_chart
from iart.weights.tensorfile import atomic_file

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
class Finding:
    """How linear one cost is in one thing."""

    cost: str
    grows: str
    from_line: float
    """How far the straight line that fits best lies from a measured cost, at most, as a share."""
    jump: float | None
    """How much more a pixel costs where a picture is a pixel wider, at most, as a share."""


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
    for found in find(growth):
        jump = (
            "" if found.jump is None else f"; a pixel more costs up to {found.jump:+.1%} per pixel"
        )
        lines.append(
            f"{found.cost} against {found.grows}: within {found.from_line:.1%} of a line{jump}"
        )
    return "\n".join(lines)


def find(growth: Growth) -> list[Finding]:
    """How linear each cost is in what grows; nothing of one that was too little to be seen."""
    found: list[Finding] = []
    for series, (grows, place_of) in SERIES.items():
        costs: tuple[Cost, ...] = getattr(growth, series)
        for name, (_, cost_of) in COSTS.items():
            heights = [cost_of(cost) for cost in costs]
            if min(heights) <= 0:
                continue
            line = straight_line([place_of(cost) for cost in costs], heights)
            off = max(abs(y / height - 1) for y, height in zip(line, heights, strict=True))
            steps = jumps(costs, cost_of).values()
            found.append(Finding(name, grows, off, max(steps, default=None)))
    return found


def write_growth(growth: Growth, folder: Path) -> list[Path]:
    """Write growth.json and growth.svg into a folder, which is made if missing.

    Raises:
        OutputError: the operating system refuses.
    """
    content = {
        "growth.json": json.dumps(
            {**asdict(growth), "findings": [asdict(found) for found in find(growth)]}, indent=1
        ),
        "growth.svg": chart_file(_charts(growth)),
    }
    prepare_folder(folder)
    for name, text in content.items():
        with atomic_file(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in content]


def prepare_folder(folder: Path) -> None:
    """Make a folder for results, if it is missing.

    Raises:
        OutputError: the operating system refuses, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(f"cannot write to '{folder}': {error.strerror or error}") from error


def _charts(growth: Growth) -> list[str]:
    """Each cost against each thing that grows, beside the straight line that fits best."""
    charts: list[str] = []
    for series, (grows, place_of) in SERIES.items():
        costs: tuple[Cost, ...] = getattr(growth, series)
        places = [place_of(cost) for cost in costs]
        names = [f"{cost.size.frames} × {cost.size.width}x{cost.size.height}" for cost in costs]
        for name, (unit, cost_of) in COSTS.items():
            measured = [cost_of(cost) for cost in costs]
            if min(measured) <= 0:
                continue
            lines = {
                f"{name}, measured": measured,
                "straight line": straight_line(places, measured),
            }
            charts.append(
                lines_chart(
                    lines, names, title=f"{name} against {grows}", unit=unit, axis=grows, at=places
                )
            )
    return charts
