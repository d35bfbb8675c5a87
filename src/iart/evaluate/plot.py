"""Line charts as SVG text: no scripts, colours from the page, readable by a screen reader."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import takewhile

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 38  # margins
MARKED = 150  # points up to which each has a mark that names it under the pointer


def line_chart(
    values: Sequence[float], names: Sequence[str], *, title: str, unit: str, axis: str
) -> str:
    """A chart of values against their index, with their mean as a dashed line.

    Infinite values break the line and are marked at the top edge.

    Args:
        values: one per point.
        names: what each point is called.
        title: what the chart shows, in words.
        unit: label of the vertical axis.
        axis: label of the horizontal axis, which counts points from 0.
    """
    finite = [value for value in values if math.isfinite(value)]
    ticks = _ticks(min(finite, default=0.0), max(finite, default=1.0))
    low, high = ticks[0], ticks[-1]
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x_of(index: int) -> float:
        share = index / (len(values) - 1) if len(values) > 1 else 0.5
        return round(LEFT + (right - LEFT) * share, 1)

    def y_of(value: float) -> float:
        return round(TOP + (bottom - TOP) * (high - min(value, high)) / (high - low), 1)

    parts = [_grid(y_of(tick), _tick_text(tick, ticks), right) for tick in ticks]
    for index in _whole_ticks(len(values)):
        x = x_of(index)
        parts.append(f'<path class="grid" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{bottom + 17}" class="mid">{index}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 4}" class="mid">{escape(axis)}</text>'
    )
    centre = (TOP + bottom) / 2
    turned = f'x="12" y="{centre}" transform="rotate(-90 12 {centre})"'
    parts.append(f'<text {turned} class="mid">{escape(unit)}</text>')
    words = "all infinite"
    if finite:
        mean = math.fsum(finite) / len(finite)
        words = f"lowest {min(finite):.4f}, highest {max(finite):.4f}, mean {mean:.4f}"
        parts.append(f'<path class="mean" d="M{LEFT} {y_of(mean)}H{right}"/>')
    for run in _finite_runs(values):
        line = "L".join(f"{x_of(i)} {y_of(values[i])}" for i in run)
        parts.append(f'<path class="line" d="M{line}"/>')
    for index, value in enumerate(values if len(values) <= MARKED else []):
        kind, text = ("dot", f"{value:.4f}") if math.isfinite(value) else ("equal", "infinite")
        parts.append(
            f'<circle class="{kind}" cx="{x_of(index)}" cy="{y_of(value)}" r="2.4">'
            f"<title>{escape(names[index])}: {text}</title></circle>"
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}: {words}">{"".join(parts)}</svg>'
    )


def _grid(y: float, text: str, right: int) -> str:
    return (
        f'<path class="grid" d="M{LEFT} {y}H{right}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" class="end">{text}</text>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that enclose [low, high], evenly apart."""
    span = max(high - low, abs(high) * 1e-3, 1e-4)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 4 >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _tick_text(tick: float, ticks: Sequence[float]) -> str:
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{tick:.{decimals}f}"


def _whole_ticks(size: int) -> Iterator[int]:
    """About six of the indices [0, size), evenly apart."""
    step = next(s for p in range(12) for s in (10**p, 2 * 10**p, 5 * 10**p) if s * 6 >= size - 1)
    return iter(range(0, size, step))


def _finite_runs(values: Sequence[float]) -> Iterator[list[int]]:
    """Indices of finite values, in runs without a gap."""
    index = 0
    while index < len(values):
        run = list(takewhile(lambda i: math.isfinite(values[i]), range(index, len(values))))
        if run:
            yield run
        index += len(run) + 1
