"""A benchmark's record as one HTML file that needs nothing else: no scripts, no network."""

import base64
from collections.abc import Iterable, Iterator
from html import escape

from iart.evaluate.record import Crop, Record
from iart.evaluate.summary import (
    METRICS,
    facts_of,
    label_of,
    metrics_of,
    notes_of,
    rows_of,
    score_text,
)
from iart.plot import STYLE as CHART_STYLE
from iart.plot import line_chart

PLOTTED = ("psnr", "ssim")
PLOTTED_CLIPS = 24  # at most so many clips get charts: those with the lowest scores
PICTURES = (("LR", "lr"), ("bicubic", "bicubic"), ("result", "result"), ("ground truth", "gt"))

STYLE = (
    CHART_STYLE
    + """
:root { --muted: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --muted: #a5a5a5; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
.wide { overflow: auto; max-height: 46rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--soft); }
th { position: sticky; top: 0; background: Canvas; }
th:first-child, td:first-child, .remark { text-align: left; }
tr.mean td { font-weight: 600; } tr:not(.clip) + .clip td { border-top: 2px solid currentColor; }
.charts { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
.charts figure { margin: 0; flex: 1 1 400px; max-width: 530px; }
.crop { display: flex; flex-wrap: wrap; gap: .6rem; }
.crop figure { margin: 0; } figcaption { color: var(--muted); font-size: .85rem; }
.crop img { width: 256px; display: block; image-rendering: pixelated; }
"""
)


def html(record: Record) -> str:
    """The page: facts, scores, charts of each frame's scores, crops."""
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{_fact(name, v)}</dd>" for name, v in facts_of(record)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in notes_of(record))
    parts = [
        f"<dl>{facts}</dl>",
        "<h2>Scores</h2>",
        _table(record),
        f"<ul>{notes}</ul>" if notes else "",
        *_charts(record),
        *_crops(record),
    ]
    return document(f"{record.protocol.name}: {record.model}", parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A page under a title that needs nothing else.

    Args:
        title: text.
        parts: HTML, one below the other; empty ones are left out.
    """
    title = escape(title)
    body = "\n".join(part for part in (f"<h1>{title}</h1>", *parts) if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _fact(name: str, value: str) -> str:
    return f"<code>{escape(value)}</code>" if name in ("command", "weights") else escape(value)


def _table(record: Record) -> str:
    metrics = metrics_of(record)
    better = {name: f"{metric.better} is better" for name, metric in METRICS.items()}
    header = "".join(
        f'<th scope="col" title="{escape(better.get(name, ""))}">{escape(label_of(name))}</th>'
        for name in metrics
    )
    lines = [
        f'<tr><th scope="col">clip</th><th scope="col">frames</th>{header}'
        '<th scope="col">seconds</th><th scope="col" class="remark"></th></tr>'
    ]
    # The mean on top: a set may have thousands of clips.
    for row in sorted(rows_of(record), key=lambda row: row.kind == "clip"):
        cells = [
            row.name,
            "" if row.frames is None else str(row.frames),
            *(score_text(row, metric) for metric in metrics),
            "" if row.seconds is None else f"{row.seconds:.1f}",
        ]
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        remark = f'<td class="remark">{escape(row.remark)}</td>'
        lines.append(f'<tr class="{row.kind}">{data}{remark}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _charts(record: Record) -> Iterator[str]:
    """Scores of each frame; where clips have one scored frame each, those of the clips, sorted."""
    clips = record.clips
    if all(len(clip.frames) <= 1 for clip in clips):
        if len(clips) > 1:
            yield "<h2>Scores of the clips, sorted</h2>"
            points = [(clip.name, clip.means()) for clip in clips]
            yield _figures(points, "all clips", "clips, lowest first", in_order=False)
        return
    yield "<h2>Scores of each frame</h2>"
    yield "<p>Dashed: the clip's mean. Hollow: equal to the ground truth, infinite.</p>"
    if len(clips) > PLOTTED_CLIPS:
        yield f"<p>The {PLOTTED_CLIPS} lowest of {len(clips)} clips; all are in frames.csv.</p>"
        clips = sorted(clips, key=lambda clip: clip.means().get("psnr", 0.0))[:PLOTTED_CLIPS]
    for clip in clips:
        yield f"<h3>{escape(clip.name)}</h3>"
        points = [(frame.name, frame.values) for frame in clip.frames]
        yield _figures(points, clip.name, "frame", in_order=True)


def _figures(
    points: list[tuple[str, dict[str, float]]], what: str, axis: str, *, in_order: bool
) -> str:
    """A chart of each plotted metric over named points."""
    charts: list[str] = []
    for metric in PLOTTED:
        pairs = [(values[metric], name) for name, values in points if metric in values]
        if pairs:
            label = label_of(metric)
            values, names = zip(*(pairs if in_order else sorted(pairs)), strict=True)
            chart = line_chart(values, names, title=f"{label} of {what}", unit=label, axis=axis)
            charts.append(f"<figure>{chart}</figure>")
    return f'<div class="charts">{"".join(charts)}</div>'


def _crops(record: Record) -> Iterator[str]:
    if not any(clip.crops for clip in record.clips):
        return
    yield "<h2>Where bicubic, result and ground truth differ most</h2>"
    yield "<p>Every pixel is shown as it is, four times enlarged.</p>"
    for clip in record.clips:
        for crop in clip.crops:
            place = f"{clip.name}, {crop.frame}, x {crop.x}, y {crop.y}"
            yield f"<h3>{escape(place)}</h3>"
            yield f'<div class="crop">{"".join(_pictures(crop, place))}</div>'


def _pictures(crop: Crop, place: str) -> Iterator[str]:
    for label, field in PICTURES:
        png: bytes | None = getattr(crop, field)
        if png is not None:
            data = base64.b64encode(png).decode()
            yield (
                f'<figure><img src="data:image/png;base64,{data}"'
                f' alt="{escape(f"{label}: {place}")}"><figcaption>{label}</figcaption></figure>'
            )
