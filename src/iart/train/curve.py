"""The learning curve of a run as a picture: loss above, scores of validations below."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from iart.weights.tensorfile import atomic_file

WIDTH, PANEL = 900, 300  # pixels
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 40, 44  # margins of a panel
INK, GRID, COLOURS = "#222222", "#dddddd", ("#1f6fb2", "#c2571a", "#3a8a3a", "#8a3a8a")

Points = list[tuple[float, float]]


def draw_curve(log: Path, target: Path) -> None:
    """Draw what a log holds; without two points of anything nothing is drawn."""
    losses, scores = read_curves(log)
    panels = [("loss", {"loss": losses}, True)] if len(losses) > 1 else []
    psnr = {name: points for name, points in scores.items() if len(points) > 1}
    if psnr:
        panels.append(("validation, PSNR in dB", psnr, False))
    if not panels:
        return
    image = Image.new("RGB", (WIDTH, PANEL * len(panels)), "white")
    for i, (title, curves, logarithmic) in enumerate(panels):
        _panel(ImageDraw.Draw(image), i * PANEL, title, curves, logarithmic=logarithmic)
    with atomic_file(target) as file:
        image.save(file, "PNG")


def read_curves(log: Path) -> tuple[Points, dict[str, Points]]:
    """(loss by step, PSNR of each validated set by step); what was done again counts once."""
    by_step: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        for name, value in entry.items():
            if (name == "loss" or "psnr" in name) and value is not None:
                by_step.setdefault(name, {})[entry["step"]] = value
    curves = {name: sorted(points.items()) for name, points in by_step.items()}
    losses = [(float(x), y) for x, y in curves.pop("loss", [])]
    return losses, {
        name.removeprefix("val/"): [(float(x), y) for x, y in points]
        for name, points in curves.items()
    }


def thinned(points: Points, limit: int = 300) -> Points:
    """Means of neighbours, so that at most about `limit` points are left to draw."""
    size = -(-len(points) // limit)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x) / len(x), sum(y) / len(y)) for x, y in (zip(*g, strict=True) for g in groups)]


def ticks(low: float, high: float, *, logarithmic: bool = False) -> list[float]:
    """Round numbers in [low, high]: up to six, evenly apart or, on a logarithmic axis, 1 2 5 10."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        inside = [value for value in fine if low <= value <= high]
        return inside if len(inside) > 1 else ticks(low, high)
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit * 6 > high - low)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _panel(
    draw: ImageDraw.ImageDraw,
    top: int,
    title: str,
    curves: dict[str, Points],
    *,
    logarithmic: bool,
) -> None:
    """One chart, its curves named above it."""
    font = ImageFont.load_default(size=15)
    everything = [point for points in curves.values() for point in points]
    low_x, high_x = _span([x for x, _ in everything])
    values = [y for _, y in everything]
    logarithmic = logarithmic and min(values) > 0
    low_y, high_y = _span(values)
    if logarithmic:
        low_y, high_y = min(values) / 1.05, max(values) * 1.05
    scale: Callable[[float], float] = math.log if logarithmic else float

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x)
        up = (scale(y) - scale(low_y)) / (scale(high_y) - scale(low_y))
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            top + PANEL - BOTTOM - up * (PANEL - TOP - BOTTOM),
        )

    bottom = place(low_x, low_y)[1]
    for value in ticks(low_y, high_y, logarithmic=logarithmic):
        _, y = place(low_x, value)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
        draw.text((LEFT - 8, y), f"{value:.4g}", fill=INK, font=font, anchor="rm")
    for value in ticks(low_x, high_x):
        x, _ = place(value, low_y)
        draw.line([(x, bottom), (x, bottom + 5)], fill=INK)
        draw.text((x, bottom + 8), f"{value:,.0f}", fill=INK, font=font, anchor="mt")
    draw.line([(LEFT, bottom), (WIDTH - RIGHT, bottom)], fill=INK)
    draw.text((WIDTH - RIGHT, top + PANEL - 6), "steps", fill=INK, font=font, anchor="rs")
    draw.text((LEFT, top + 14), title, fill=INK, font=font)
    right = WIDTH - RIGHT
    for i, (name, points) in reversed(list(enumerate(curves.items()))):
        colour = COLOURS[i % len(COLOURS)]
        line = [place(x, y) for x, y in thinned(points)]
        draw.line(line, fill=colour, width=2, joint="curve")
        if len(line) <= 60:
            for x, y in line:
                draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        if len(curves) > 1 or name != title:
            draw.text((right, top + 14), name, fill=colour, font=font, anchor="ra")
            right -= int(draw.textlength(name, font=font)) + 20


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, apart."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or max(abs(high) * 0.01, 1e-6)
    return low - margin, high + margin
