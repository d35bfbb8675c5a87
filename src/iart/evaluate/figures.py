"""What every report says, whatever its form: labels, rows of scores, facts of the run, notes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from iart.evaluate.record import FLICKER, TEMPORAL, TLP, ClipRecord, Record


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
