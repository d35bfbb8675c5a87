"""A benchmark's record as text: terminal, Markdown, CSV; and all reports as files.

Infinite scores (equal frames) are `inf` everywhere but in JSON, where they are "Infinity".
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from iart.errors import OutputError
from iart.evaluate.page import html
from iart.evaluate.record import Record, to_json
from iart.evaluate.summary import (
    Row,
    facts_of,
    label_of,
    metrics_of,
    notes_of,
    rows_of,
    score_text,
    shorten,
)
from iart.weights.tensorfile import atomic_file

SHOWN_CLIPS = 40  # in tables that people read; CSV and JSON hold all


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder '{folder}': {error.strerror or error}") from error
    texts = {
        "report.md": markdown(record),
        "report.json": to_json(record) + "\n",
        "clips.csv": clips_csv(record),
        "frames.csv": frames_csv(record),
        "report.html": html(record),
    }
    for name, text in texts.items():
        with atomic_file(folder / name) as file:
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
        return [
            row.name,
            "" if row.frames is None else str(row.frames),
            *(score_text(row, metric) for metric in metrics),
            "" if row.seconds is None else f"{row.seconds:.1f}",
            *([row.remark] if remarks else []),
        ]

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
