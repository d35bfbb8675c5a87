"""The page that tells how two discs were brought together, and what was left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
import torch

from iart.data.pair.check import KEPT, REASONS, PairedSegment
from iart.data.pair.clips import ClipWriter, PairedClip
from iart.data.pair.disc import Disc, Thumbnails
from iart.data.pair.moments import Course
from iart.reports.charts import lines_chart
from iart.reports.details import png_of, sheet
from iart.reports.page import document, image, table

_SHOWN = 8  # pairs on the sheet
_SIDE = 96  # of a detail, in pixels of the low resolution
_POINTS = 300  # of the chart


def report(
    discs: tuple[Disc, Disc],
    thumbnails: tuple[Thumbnails, Thumbnails],
    course: Course,
    segments: Sequence[PairedSegment],
    found: Sequence[PairedClip],
    parts: Mapping[str, Sequence[PairedClip]],
    writer: ClipWriter,
) -> str:
    """The page; needs nothing else.

    Args:
        discs: DVD and Blu-ray.
        thumbnails: of both.
        course: of the film.
        segments: of the DVD.
        found: all clips that could be written.
        parts: those that are written: "train" and "val".
        writer: that has written them.
    """
    chosen = sorted((clip for part in parts.values() for clip in part), key=lambda c: c.first)
    count = Counter(verdict for segment in segments for verdict in segment.verdicts)
    total, kept = count.total(), count[KEPT]
    spreads = [segment.spread for segment in segments if segment.kept]
    facts = {
        "DVD": _disc(discs[0], thumbnails[0]),
        "Blu-ray": _disc(discs[1], thumbnails[1]),
        "speed": f"{course.speed:.5f} seconds of the Blu-ray per second of the DVD",
        "frames of the DVD that fit": f"{kept} of {total} ({kept / total:.1%})",
        "clips": f"{len(found)} found, of {sum(map(len, found))} frames; {len(chosen)} written, of"
        f" {sum(map(len, chosen))}; {len(parts['val'])} of them held out for validation",
        "framings of single frames differ by": f"{np.median(spreads):.3f} pixels of the DVD, in"
        f" half of the segments; at most {max(spreads):.3f}",
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return document(
        f"Pairs of {discs[0].path.name} and {discs[1].path.name}",
        [
            f"<dl>{rows}</dl>",
            "<p>The ground truth is the Blu-ray resampled to the DVD's grid, hence softer than a"
            " picture that was made at that size.</p>",
            "<h2>What was left out</h2>",
            table(("reason", "frames", "share"), (
                (reason, str(count[reason]), f"{count[reason] / total:.2%}") for reason in REASONS
            )),
            "<h2>How well frames fit over the film</h2>",
            f'<div class="charts"><figure>{_chart(segments, thumbnails[0])}</figure></div>',
            "<h2>Pairs</h2>",
            _pictures(chosen, writer),
            "<h2>Segments</h2>",
            _segments(segments, thumbnails),
        ],
    )  # fmt: skip


def _disc(disc: Disc, thumbnails: Thumbnails) -> str:
    info, active = disc.info, disc.active
    fields = f", {info.fields.describe()}" if info.fields else ""
    return (
        f"{disc.path}: {info.width}x{info.height}, picture {active}, {len(thumbnails)} frames at"
        f" {thumbnails.rate:.3f} per second{fields}"
    )


def _chart(segments: Sequence[PairedSegment], dvd: Thumbnails) -> str:
    values = np.array([value for segment in segments for value in segment.confidence])
    edges = np.linspace(0, len(values), min(_POINTS, len(values)) + 1).round().astype(int)
    pieces = [values[a:b] for a, b in pairwise(edges)]
    minutes = [float(dvd.times[a] - dvd.times[0]) / 60 for a in edges[:-1]]
    return lines_chart(
        {
            "mean": [float(piece.mean()) for piece in pieces],
            "lowest": [float(piece.min()) for piece in pieces],
        },
        [f"minute {minute:.2f}" for minute in minutes],
        title="Similarity of each frame to its partner",
        unit="similarity",
        axis="minute of the DVD",
        at=minutes,
        from_zero=True,
    )


def _segments(segments: Sequence[PairedSegment], thumbnails: tuple[Thumbnails, Thumbnails]) -> str:
    heads = ("DVD", "Blu-ray", "frames", "kept", "least similar", "framings differ by", "gain",
             "brighter by", "left out")  # fmt: skip

    def row(segment: PairedSegment) -> tuple[str, ...]:
        partner = next((p for p in segment.partners if p >= 0), None)
        left = Counter(verdict for verdict in segment.verdicts if verdict != KEPT)
        return (
            _clock(float(thumbnails[0].times[segment.first])),
            "" if partner is None else _clock(float(thumbnails[1].times[partner])),
            str(len(segment.partners)),
            str(segment.kept),
            f"{min(segment.confidence):.3f}",
            f"{segment.spread:.3f} px",
            f"{segment.gain:.3f}",
            f"{segment.level:+.1f}",
            ", ".join(f"{n} {reason}" for reason, n in left.items()),
        )

    return table(heads, map(row, segments))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:06.3f}"


def _pictures(clips: Sequence[PairedClip], writer: ClipWriter) -> str:
    """The middle of some clips: the DVD enlarged, and the Blu-ray on its grid."""
    chosen = [clips[n] for n in np.linspace(0, len(clips) - 1, min(_SHOWN, len(clips))).astype(int)]
    side = min(_SIDE, *(min(clip.box.width, clip.box.height) for clip in chosen))
    rows = []
    for clip in chosen:
        scale = writer.size(clip)[0] // clip.box.height
        top, left = (clip.box.height - side) // 2, (clip.box.width - side) // 2
        middle = len(clip) // 2
        details = []
        for name, factor in (("LQ", 1), ("GT", scale)):
            place = (factor * n for n in (top, left, side, side))
            picture = writer.frames(name, clip).read([middle], *place)[0]
            details.append(picture.repeat(scale // factor, 0).repeat(scale // factor, 1))
        change = 255 * (np.full(4, (0.5, 0.5, 0.5, 1)) @ writer.color(clip) - 0.5)
        told = ", ".join(f"{name} {value:+.1f}" for name, value in zip("RGB", change, strict=True))
        heading = f"{clip.name}, frame {middle}; mid-grey differs on the DVD by {told}"
        rows.append((heading, [torch.from_numpy(each).permute(2, 0, 1) for each in details]))
    png = png_of(sheet(("DVD", "Blu-ray"), rows, zoom=1))
    return image(png, f"Details of {len(rows)} pairs")
