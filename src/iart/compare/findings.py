"""What a comparison finds: scores of every frame, details that differ most; and both as files.

Convention: pictures are uint8 RGB `3 h w`; scores are of RGB, see `iart.pictures.scores`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape

from jaxtyping import UInt8
from torch import Tensor

from iart.pictures.scores import psnr, ssim
from iart.reports.charts import chart_file, lines_chart
from iart.reports.details import Places, png_of, sheet
from iart.reports.page import document, image, table

ZOOM = 3
"""Pixels of the sheet per pixel of a detail."""
PLACES = 6
PLACE_PIXELS = 96


@dataclass(frozen=True)
class VideoScores:
    """Scores of a video, frame by frame.

    Attributes:
        label: which video.
        psnr: in dB; infinite where a frame is equal.
        ssim: at most 1.
    """

    label: str
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]

    @property
    def equal(self) -> int:
        """How many frames are equal."""
        return sum(map(math.isinf, self.psnr))

    @property
    def mean_psnr(self) -> float:
        """Over the frames that differ; infinite if none does."""
        finite = [value for value in self.psnr if math.isfinite(value)]
        return math.fsum(finite) / len(finite) if finite else math.inf

    @property
    def mean_ssim(self) -> float:
        """Over all frames."""
        return math.fsum(self.ssim) / len(self.ssim)

    @property
    def worst_frame(self) -> int:
        """The frame, from 0, with the lowest PSNR."""
        return min(range(len(self.psnr)), key=self.psnr.__getitem__)


class Comparison:
    """Takes the pictures of one moment after the other and keeps numbers and details.

    Attributes:
        times: of the moments in seconds.
        places: where the pictures differ most; named by frame number and time.
    """

    def __init__(self, labels: Sequence[str], *, has_truth: bool) -> None:
        """Start empty.

        Args:
            labels: of the videos that are shown, all different.
            has_truth: two videos are scored against a third; else the first against the second.
        """
        self.times: list[Fraction] = []
        self.places = Places(count=PLACES, size=PLACE_PIXELS)
        self._labels = labels
        self._scores: list[list[tuple[float, float]]] = [[] for _ in range(1 + has_truth)]

    def add(
        self,
        pictures: Sequence[UInt8[Tensor, "3 h w"]],
        scored: Sequence[UInt8[Tensor, "3 h2 w2"]],
        time: Fraction,
    ) -> None:
        """Look at the pictures of the next moment.

        Args:
            pictures: in the order of the labels.
            scored: likewise, and at the end what they are scored against.
            time: of the moment, in seconds.
        """
        for scores, picture in zip(self._scores, scored, strict=False):
            scores.append((psnr(picture, scored[-1]), ssim(picture, scored[-1])))
        name = f"frame {len(self.times)} at {float(time):.3f} s"
        self.places.add(name, dict(zip(self._labels, pictures, strict=True)))
        self.times.append(time)

    def scores(self) -> tuple[VideoScores, ...]:
        """Of each video that is scored."""
        return tuple(
            VideoScores(label, *zip(*pairs, strict=True))
            for label, pairs in zip(self._labels, self._scores, strict=False)
        )


def files(
    found: Comparison, labels: Sequence[str], truth: str, notes: Sequence[str], video: str
) -> tuple[bytes, bytes, bytes]:
    """The sheet (PNG), the charts (SVG) and the page (HTML), which needs nothing else.

    Args:
        found: complete.
        labels: of the videos that are shown.
        truth: label of what the scores are against.
        notes: shown on the page.
        video: name of the comparison to watch, which lies beside the page.
    """
    places = found.places.found
    rows = [
        (f"{place.frame}, x {place.x}, y {place.y}", list(place.pictures.values()))
        for place in places
    ]
    png = png_of(sheet(labels, rows, zoom=ZOOM))
    charts = _charts(found, truth)
    parts = [
        f'<p>Scores are of RGB against {escape(truth)}. <a href="{escape(video)}">Watch the'
        " comparison</a>, if it lies beside this page.</p>",
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else "",
        "<h2>Scores</h2>",
        _table(found),
        "<h2>Scores of each frame</h2>",
        "<p>Dashed: the mean of frames that differ. Hollow: equal, infinite.</p>",
        f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>',
        "<h2>Where they differ most</h2>",
        f"<p>Every pixel is shown as it is, {ZOOM} times larger.</p>",
        image(png, f"details of {', '.join(labels)}", style="max-width: 100%"),
    ]
    html = document(" | ".join(labels), parts)
    return png, chart_file(charts).encode(), html.encode()


def _charts(found: Comparison, truth: str) -> list[str]:
    names = [f"frame {i} at {float(time):.3f} s" for i, time in enumerate(found.times)]
    scores = found.scores()
    charts = (
        ("PSNR in dB", {s.label: s.psnr for s in scores}),
        ("SSIM", {s.label: s.ssim for s in scores}),
    )
    return [
        lines_chart(lines, names, title=f"{unit} against {truth}", unit=unit, axis="frame")
        for unit, lines in charts
    ]


def _table(found: Comparison) -> str:
    header = ("", "PSNR", "SSIM", "lowest PSNR", "equal frames")
    rows = [
        (
            scores.label,
            f"{scores.mean_psnr:.2f} dB",
            f"{scores.mean_ssim:.4f}",
            f"{scores.psnr[scores.worst_frame]:.2f} dB (frame {scores.worst_frame})",
            f"{scores.equal} of {len(found.times)}",
        )
        for scores in found.scores()
    ]
    return table(header, rows)
