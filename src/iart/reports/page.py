"""An HTML file that needs nothing else: no scripts, no network."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from iart.reports.charts import STYLE as CHART_STYLE

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


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, which scrolls where it is wide."""
    lines = ["".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def image(png: bytes, text: str, *, style: str = "") -> str:
    """A picture that stands in the page itself; `text` says what it shows."""
    data, style = base64.b64encode(png).decode(), style and f' style="{style}"'
    return f'<img src="data:image/png;base64,{data}" alt="{escape(text)}"{style}>'
