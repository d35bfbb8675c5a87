"""Line charts as SVG text: no scripts, colours from the page, readable by a screen reader."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import takewhile

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 38  # margins
MARKED = 150  # points up to which each has a mark that names it under the pointer
LEGEND = 16  # height of the line of names above several lines

STYLE = """
:root { color-scheme: light dark; --line: #0b6fc2; --other: #c2500b; --soft: #8884; }
@media (prefers-color-scheme: dark) { :root { --line: #6cb6ff; --other: #ffa657; } }
svg.chart { width: 100%; font: 11px system-ui, sans-serif; }
.chart text { fill: currentColor; } .mid { text-anchor: middle; } .end { text-anchor: end; }
.chart path { fill: none; } path.grid { stroke: var(--soft); }
path.line { stroke: var(--line); stroke-width: 1.5; } path.other { stroke: var(--other); }
path.mean { stroke: currentColor; stroke-dasharray: 5 4; opacity: .6; }
.dot { fill: var(--line); } .equal { fill: none; stroke: var(--line); stroke-width: 1.5; }
.dot.other { fill: var(--other); } .equal.other { stroke: var(--other); }
.chart text.name { fill: var(--line); } .chart text.name.other { fill: var(--other); }
"""
"""CSS that charts need."""


def lines_chart(
    lines: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    title: str,
    unit: str,
    axis: str,
    at: Sequence[float] | None = None,
    from_zero: bool = False,
    logarithmic: bool = False,
) -> str:
    """A chart of one or two lines over the same points; the mean of each as a dashed line.

    Infinite values break a line and are marked at the top edge.

    Args:
        lines: values by name of the line; names are shown if there are two lines.
        names: what each point is called.
        title: what the chart shows, in words.
        unit: label of the vertical axis.
        axis: label of the horizontal axis, which counts points from 0.
        at: where on the horizontal axis, which starts at 0, the points lie, ascending; means are
            not drawn then. None counts the points.
        from_zero: start the vertical axis at 0.
        logarithmic: make the vertical axis logarithmic, if values above 0 span a factor of 4.
    """
    finite = [value for values in lines.values() for value in values if math.isfinite(value)]
    count = max(map(len, lines.values()))
    lowest, highest = min(finite, default=0.0), max(finite, default=1.0)
    logarithmic = logarithmic and 0 < 4 * lowest < highest
    if logarithmic:
        ticks, scale = _log_ticks(lowest, highest), math.log
    else:
        ticks, scale = _ticks(0.0 if from_zero else lowest, highest), float
    low, high = scale(ticks[0]), scale(ticks[-1])
    places = [float(place) for place in (range(count) if at is None else at)]
    last = places[-1] if places else 0.0
    top = TOP + (LEGEND if len(lines) > 1 else 0)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x_of(place: float) -> float:
        share = place / last if last > 0 else 0.5
        return round(LEFT + (right - LEFT) * share, 1)

    def y_of(value: float) -> float:
        height = min(scale(value), high) if value > 0 or not logarithmic else low
        return round(top + (bottom - top) * (high - height) / (high - low), 1)

    told_at = [f"{tick:.4g}" for tick in ticks] if logarithmic else _tick_texts(ticks)
    parts = [_grid(y_of(tick), text, right) for tick, text in zip(ticks, told_at, strict=True)]
    for place in _whole_ticks(math.floor(last) + 1):
        x = x_of(float(place))
        parts.append(f'<path class="grid" d="M{x} {bottom}v4"/>')
        parts.append(f'<text x="{x}" y="{bottom + 17}" class="mid">{place}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 4}" class="mid">{escape(axis)}</text>'
    )
    centre = (top + bottom) / 2
    turned = f'x="12" y="{centre}" transform="rotate(-90 12 {centre})"'
    parts.append(f'<text {turned} class="mid">{escape(unit)}</text>')
    told: list[str] = []
    for name, values, other in zip(lines, lines.values(), ("", " other"), strict=False):
        if len(lines) > 1:
            place = f'x="{right if other else LEFT}" class="name{other}{" end" if other else ""}"'
            parts.append(f'<text {place} y="{TOP}">{escape(name)}</text>')
        parts += _line(values, names, name, other, [x_of(place) for place in places], y_of)
        if at is None:
            parts += _mean(values, y_of)
        told.append(f"{name} {_summary(values)}".strip())
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}: {escape("; ".join(told))}">{"".join(parts)}</svg>'
    )


def chart_file(charts: Sequence[str]) -> str:
    """Charts below each other as the text of one SVG file."""
    height = HEIGHT * len(charts)
    placed = "".join(
        chart.replace("<svg ", f'<svg y="{HEIGHT * i}" height="{HEIGHT}" ', 1)
        for i, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{2 * WIDTH}" height="{2 * height}"><style>{STYLE}</style>{placed}</svg>\n'
    )


def _summary(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "all infinite"
    mean = math.fsum(finite) / len(finite)
    return f"lowest {min(finite):.4f}, highest {max(finite):.4f}, mean {mean:.4f}"


def _mean(values: Sequence[float], y_of: Callable[[float], float]) -> Iterator[str]:
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        y = y_of(math.fsum(finite) / len(finite))
        yield f'<path class="mean" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'


def _line(
    values: Sequence[float],
    names: Sequence[str],
    name: str,
    other: str,
    xs: Sequence[float],
    y_of: Callable[[float], float],
) -> Iterator[str]:
    """A line and its marks."""
    for run in _finite_runs(values):
        line = "L".join(f"{xs[i]} {y_of(values[i])}" for i in run)
        yield f'<path class="line{other}" d="M{line}"/>'
    for index, value in enumerate(values if len(values) <= MARKED else []):
        kind, text = ("dot", f"{value:.4f}") if math.isfinite(value) else ("equal", "infinite")
        point = f"{name}, {names[index]}" if name else names[index]
        yield (
            f'<circle class="{kind}{other}" cx="{xs[index]}" cy="{y_of(value)}" r="2.4">'
            f"<title>{escape(point)}: {text}</title></circle>"
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


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose [low, high], with 2 and 5 times these where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [digit * 10.0**power for power in range(first, last) for digit in digits]
    ticks.append(10.0**last)
    return ticks[max(bisect_right(ticks, low) - 1, 0) : bisect_left(ticks, high) + 1]


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
