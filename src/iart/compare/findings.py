"""What a comparison found, as files: a sheet of details, charts, and both on a page."""

import base64
import io
from collections.abc import Sequence
from html import escape

from iart.compare.sheet import sheet
from iart.compare.tally import Tally
from iart.evaluate.page import document
from iart.plot import chart_file, lines_chart

ZOOM = 3


def files(
    tally: Tally, labels: Sequence[str], notes: Sequence[str], video: str
) -> tuple[bytes, bytes, bytes]:
    """The sheet (PNG), the charts (SVG) and the page (HTML), which needs nothing else.

    Args:
        tally: complete.
        labels: of the videos.
        notes: shown on the page.
        video: name of the comparison to watch, which lies beside the page.
    """
    places = tally.places.found
    rows = [
        (f"{place.frame}, x {place.x}, y {place.y}", list(place.pictures.values()))
        for place in places
    ]
    png = io.BytesIO()
    sheet(labels, rows, zoom=ZOOM).save(png, "PNG")
    charts = _charts(tally, labels[-1])
    parts = [
        f'<p>Scores are of RGB against {escape(labels[-1])}. <a href="{escape(video)}">Watch the'
        " comparison</a>, if it lies beside this page.</p>",
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else "",
        "<h2>Scores</h2>",
        _table(tally),
        "<h2>Scores of each frame</h2>",
        "<p>Dashed: the mean of frames that differ. Hollow: equal, infinite.</p>",
        f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>',
        "<h2>Where they differ most</h2>",
        f"<p>Every pixel is shown as it is, {ZOOM} times larger.</p>",
        f'<img style="max-width: 100%" alt="details of {escape(", ".join(labels))}"'
        f' src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">',
    ]
    html = document(" | ".join(labels), parts)
    return png.getvalue(), chart_file(charts).encode(), html.encode()


def _charts(tally: Tally, truth: str) -> list[str]:
    names = [f"frame {i} at {float(time):.3f} s" for i, time in enumerate(tally.times)]
    scores = tally.scores()
    charts = (
        ("PSNR in dB", {s.label: s.psnr for s in scores}),
        ("SSIM", {s.label: s.ssim for s in scores}),
    )
    return [
        lines_chart(lines, names, title=f"{unit} against {truth}", unit=unit, axis="frame")
        for unit, lines in charts
    ]


def _table(tally: Tally) -> str:
    header = ("", "PSNR", "SSIM", "lowest PSNR", "equal frames")
    rows = [
        (
            scores.label,
            f"{scores.mean_psnr:.2f} dB",
            f"{scores.mean_ssim:.4f}",
            f"{scores.psnr[scores.worst_frame]:.2f} dB (frame {scores.worst_frame})",
            f"{scores.equal} of {len(tally.times)}",
        )
        for scores in tally.scores()
    ]
    lines = ["".join(f'<th scope="col">{cell}</th>' for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
