"""A benchmark's record as text, Markdown, CSV and HTML; and all of these as files.

Infinite scores (equal frames) are `inf` everywhere but in JSON, where they are "Infinity".
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from iart.evaluate.results import FLICKER, TEMPORAL, TLP, ClipRecord, CropRecord, Record, to_json
from iart.files.complete import complete_file, make_folder
from iart.reports.charts import lines_chart
from iart.reports.page import document, image

# ---- what every report says: labels, rows of scores, facts of the run, notes


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        label: its name, with its unit.
        better: "higher" or "lower".
        published: decimals that papers give.
    """

    label: str
    better: str
    published: int


METRICS = {
    "psnr": Metric("PSNR dB", "higher", 2),
    "ssim": Metric("SSIM", "higher", 4),
    "lpips": Metric("LPIPS", "lower", 4),
    "dists": Metric("DISTS", "lower", 4),
    TEMPORAL: Metric("tOF px", "lower", 3),
    FLICKER: Metric("flicker", "lower", 3),
    TLP: Metric("tLP", "lower", 4),
    "blockiness": Metric("blockiness", "lower", 3),
    "sharpness": Metric("sharpness", "higher", 3),
}
DIGITS = 4
MISSING = "-"


@dataclass(frozen=True)
class Row:
    """One line of the table of scores.

    Attributes:
        name: the clip, or what else the line is.
        frames: how many frames were scored; None where that has no meaning.
        values: scores by metric; differences in a row of kind "difference".
        seconds: wall clock time; None where that has no meaning.
        remark: how the clip was treated, "" if as the protocol says.
        kind: "clip", "mean", "published" or "difference".
    """

    name: str
    frames: int | None
    values: dict[str, float]
    seconds: float | None = None
    remark: str = ""
    kind: str = "clip"


def metrics_of(record: Record) -> list[str]:
    """The metrics that any clip has, in the order of METRICS, others last."""
    found = dict.fromkeys(name for clip in record.clips for name in clip.means())
    return [name for name in METRICS if name in found] + [n for n in found if n not in METRICS]


def label_of(metric: str) -> str:
    """A metric's name with its unit."""
    return METRICS[metric].label if metric in METRICS else metric


def rows_of(record: Record) -> list[Row]:
    """A row per clip, the mean, and if there is a published score, that and the difference."""
    rows = [
        Row(clip.name, len(clip.frames), clip.means(), clip.seconds, _remark(clip))
        for clip in record.clips
    ]
    means, expected = record.means(), record.protocol.expected
    rows.append(Row("mean", sum(len(clip.frames) for clip in record.clips), means, kind="mean"))
    if expected:
        remark = record.protocol.expected_of or ""
        rows.append(Row("published", None, dict(expected), remark=remark, kind="published"))
        difference = {
            name: 0.0 if means[name] == value else means[name] - value
            for name, value in expected.items()
            if name in means
        }
        rows.append(Row("difference", None, difference, kind="difference"))
    return rows


def cells_of(row: Row, metrics: Sequence[str]) -> list[str]:
    """A row as shown: name, frames, scores, seconds.

    Scores have 4 decimals and are "inf" for equal frames; published ones have the decimals of
    papers, differences their sign.
    """
    return [
        row.name,
        "" if row.frames is None else str(row.frames),
        *(_score_text(row, metric) for metric in metrics),
        "" if row.seconds is None else f"{row.seconds:.1f}",
    ]


def _score_text(row: Row, metric: str) -> str:
    value = row.values.get(metric)
    if value is None:
        return MISSING
    if row.kind == "published" and metric in METRICS:
        return f"{value:.{METRICS[metric].published}f}"
    return f"{value:+.{DIGITS}f}" if row.kind == "difference" else f"{value:.{DIGITS}f}"


def shorten(rows: Sequence[Row], most: int) -> list[Row | None]:
    """Rows for a table that people read: of more than `most` clips the lowest and the highest.

    Clips are ranked by their first metric; None stands for those left out.
    """
    clips = [row for row in rows if row.kind == "clip"]
    if len(clips) <= most:
        return list(rows)
    ranked = sorted(clips, key=lambda row: next(iter(row.values.values()), math.inf))
    rest = [row for row in rows if row.kind != "clip"]
    return [*ranked[: most // 2], None, *ranked[-(most - most // 2) :], *rest]


def facts_of(record: Record) -> list[tuple[str, str]]:
    """Name and value of all that is needed to repeat the run."""
    protocol = record.protocol
    colour = {"rgb": "RGB", "y": "Y (BT.601)"}[protocol.colour]
    border = f"{protocol.border} pixels of each side left out" if protocol.border else "all pixels"
    seconds = math.fsum(clip.seconds for clip in record.clips)
    facts = [
        ("protocol", f"{protocol.name}: {protocol.description}"),
        ("compared", f"{colour}, 8 bits, {border}; mean over frames, then over clips"),
        ("command", record.command),
        ("model", record.model),
        ("weights", f"sha256 {record.weights_hash}" if record.weights_hash else None),
        ("device", record.device),
        ("precision", record.precision),
        ("versions", f"iart {record.iart_version}, torch {record.torch_version}"),
        ("time", f"{seconds:.1f} s"),
        ("date", record.date.isoformat(sep=" ", timespec="seconds")),
    ]
    return [(name, value) for name, value in facts if value]


def notes_of(record: Record) -> list[str]:
    """The record's notes, and how to read what is in its scores."""
    notes = list(record.notes)
    scores = [
        frame.values["psnr"] for c in record.clips for frame in c.frames if "psnr" in frame.values
    ]
    finite = [score for score in scores if math.isfinite(score)]
    if equal := len(scores) - len(finite):
        mean = (
            f"; the mean of the others is {math.fsum(finite) / len(finite):.4f} dB"
            if finite
            else ""
        )
        notes.append(
            f"{equal} of {len(scores)} frames equal their ground truth: their PSNR is infinite, and"
            f" so is a mean that holds one{mean}"
        )
    if TEMPORAL in metrics_of(record):
        notes.append(
            "tOF (Chu et al. 2020) in pixels, less is better; tables in papers show it times 10"
        )
    return notes


def _remark(clip: ClipRecord) -> str:
    made = "LR made here" if clip.lr_made else ""
    return ", ".join(text for text in (made, clip.windowed) if text)


# ---- forms


SHOWN_CLIPS = 40  # in tables that people read; CSV and JSON hold all
PLOTTED = ("psnr", "ssim")
PLOTTED_CLIPS = 24  # at most so many clips get charts: those with the lowest scores
CODE = ("command", "weights")  # facts that are shown as such
PICTURES = (("LR", "lr"), ("bicubic", "bicubic"), ("result", "result"), ("ground truth", "gt"))


def table(record: Record) -> str:
    """Facts, scores per clip and mean, published scores, notes: plain text for a terminal."""
    facts = facts_of(record)
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    return "\n".join(
        [*lines, "", *_aligned(_cells(record)), "", *(f"note: {n}" for n in notes_of(record))]
    ).rstrip()


def markdown(record: Record) -> str:
    """The same as a Markdown page."""
    cells = [[_escaped(cell) for cell in row] for row in _cells(record)]
    numeric = len(metrics_of(record)) + 2
    rule = ["---"] + ["---:"] * numeric + ["---"] * (len(cells[0]) - numeric - 1)
    score_lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
    facts = [
        f"- {name}: {_code(value) if name == 'command' else _escaped(value)}"
        for name, value in facts_of(record)
    ]
    notes = [f"- {_escaped(note)}" for note in notes_of(record)]
    title = f"# {_escaped(record.protocol.name)}: {_escaped(record.model)}"
    parts = [[title], score_lines, facts, *([["Notes:"], notes] if notes else [])]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def clips_csv(record: Record) -> str:
    """A row per clip, and the mean, published and difference rows (column `kind` says which).

    Every row carries the run's facts, so that tables of several runs can be put together.
    """
    metrics, facts = metrics_of(record), _csv_facts(record)
    notes = " | ".join(notes_of(record))
    header = ["kind", "clip", "frames", *metrics, "seconds", "remark", *facts, "notes"]
    rows = [
        [
            row.kind,
            row.name if row.kind == "clip" else "",
            row.frames,
            *(row.values.get(metric) for metric in metrics),
            row.seconds,
            row.remark,
            *facts.values(),
            notes,
        ]
        for row in rows_of(record)
    ]
    return _csv([header, *rows])


def frames_csv(record: Record) -> str:
    """A row per frame, with the run's facts in every row."""
    metrics, facts = metrics_of(record), _csv_facts(record)
    # tOF is of pairs of frames, and the record has its mean alone.
    metrics = [m for m in metrics if any(m in f.values for c in record.clips for f in c.frames)]
    rows = [
        [clip.name, index, frame.name, *(frame.values.get(m) for m in metrics), *facts.values()]
        for clip in record.clips
        for index, frame in enumerate(clip.frames)
    ]
    return _csv([["clip", "index", "frame", *metrics, *facts], *rows])


def write_reports(record: Record, folder: Path) -> list[Path]:
    """Write report.md, report.json, clips.csv, frames.csv and report.html, each atomically.

    Returns:
        The files.

    Raises:
        OutputError: the folder cannot be made or a file cannot be written.
    """
    make_folder(folder)
    texts = {
        "report.md": markdown(record),
        "report.json": to_json(record) + "\n",
        "clips.csv": clips_csv(record),
        "frames.csv": frames_csv(record),
        "report.html": html(record),
    }
    for name, text in texts.items():
        with complete_file(folder / name) as file:
            file.write(text.encode("utf-8", errors="backslashreplace"))  # names of any bytes
    return [folder / name for name in texts]


def _cells(record: Record) -> list[list[str]]:
    """Header and rows of the table of scores, remarks only if there are any."""
    metrics, rows = metrics_of(record), rows_of(record)
    remarks = any(row.remark for row in rows)
    left_out = len(record.clips) - SHOWN_CLIPS

    def cells(row: Row | None) -> list[str]:
        if row is None:
            return [f"({left_out} more)", "", *("" for _ in metrics), "", *([""] * remarks)]
        return [*cells_of(row, metrics), *([row.remark] if remarks else [])]

    header = ["clip", "frames", *map(label_of, metrics), "seconds", *(["remark"] * remarks)]
    return [header, *map(cells, shorten(rows, SHOWN_CLIPS))]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns of equal width: the first and the remarks to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    remark = len(rows[0]) - 1 if rows[0][-1] == "remark" else len(rows[0])
    return [
        "  ".join(
            cell.ljust(width) if i in (0, remark) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _csv_facts(record: Record) -> dict[str, str]:
    return {
        "protocol": record.protocol.name,
        "colour": record.protocol.colour,
        "model": record.model,
        "weights_sha256": record.weights_hash or "",
        "device": record.device,
        "precision": record.precision or "",
        "iart_version": record.iart_version,
        "torch_version": record.torch_version,
        "date": record.date.isoformat(),
        "command": record.command,
    }


def _csv(rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue()


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    special = "\\`*_[]<>|#"
    return "".join(f"\\{c}" if c in special else c for c in " ".join(text.split()))


def _code(text: str) -> str:
    """Text as inline code, whatever backticks it holds."""
    text, fence = " ".join(text.split("\n")), "`"
    while fence in text:
        fence += "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def html(record: Record) -> str:
    """The page: facts, scores, charts of each frame's scores, crops."""
    shown = [
        (n, f"<code>{escape(v)}</code>" if n in CODE else escape(v)) for n, v in facts_of(record)
    ]
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in shown)
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
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells_of(row, metrics))
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
            chart = lines_chart(
                {"": values}, names, title=f"{label} of {what}", unit=label, axis=axis
            )
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


def _pictures(crop: CropRecord, place: str) -> Iterator[str]:
    for label, field in PICTURES:
        png: bytes | None = getattr(crop, field)
        if png is not None:
            shown = image(png, f"{label}: {place}")
            yield f"<figure>{shown}<figcaption>{label}</figcaption></figure>"
