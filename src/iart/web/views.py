"""Pieces of HTML for the page; everything that comes from files or clients is escaped."""

import io
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import av
from av.error import FFmpegError
from PIL import Image

from iart.errors import InputError
from iart.files.images import natural_key
from iart.web.jobs import JobProgress, PageJob

THUMBNAIL_PIXELS = 240
_PLAYED = (".mp4", ".webm")


def table(lines: Iterable[tuple[str, str]], caption: str) -> str:
    """Labelled lines."""
    rows = (
        f"<tr><th scope=row>{escape(label)}</th><td>{escape(text)}</td></tr>"
        for label, text in lines
    )
    return f"<table class=facts><caption>{escape(caption)}</caption>{''.join(rows)}</table>"


def command(words: Sequence[str]) -> str:
    """The command that would do the same."""
    line = shlex.join(["iart", *words])
    return f"<p class=command>The same from a terminal:</p><pre tabindex=0>{escape(line)}</pre>"


def error(message: str) -> str:
    """What was refused; read out by screen readers."""
    return f"<p role=alert class=error>{escape(message)}</p>" if message else ""


def status(what: str, progress: JobProgress, *, job: str = "") -> str:
    """How far something is, and for a job that can be stopped, a button."""
    if progress.done:
        text = f"{progress.done}{f' of {progress.total}' if progress.total else ''} frames"
    else:
        text = "waiting" if progress.state == "waiting" else "beginning"
    button = f" <button type=button data-job={job} data-action=stop>Stop</button>" if job else ""
    return f"<p role=status>{what}: {text} …{button}</p>"


def before_and_after(before: str, after: str) -> str:
    """Two videos on top of each other, parted by a line that a slider moves.

    Args:
        before: address of the video on the left.
        after: of the one on the right, of the same size and length.
    """
    attributes = "muted loop playsinline preload=auto"
    return (
        '<figure class=before-after style="--at:50%"><div class=window tabindex=0><div class=stack>'
        f'<video {attributes} src="{escape(before)}" aria-label="before"></video>'
        f'<video {attributes} class=after src="{escape(after)}" aria-label="after"></video>'
        "</div></div>"
        "<figcaption><span>before</span>"
        '<input type=range min=0 max=100 value=50 step=1 aria-label="Line between both">'
        "<span>after</span><button type=button class=play>Play</button>"
        "<button type=button class=size aria-pressed=false>Actual size</button>"
        "</figcaption></figure>"
    )


SYNCHRONOUS = """
const figure = () => element.querySelector('.before-after');
element.addEventListener('input', event => {
  if (event.target.type === 'range') figure().style.setProperty('--at', event.target.value + '%');
});
element.addEventListener('click', event => {
  if (event.target.classList.contains('size')) {
    const isActual = figure().classList.toggle('actual');
    event.target.setAttribute('aria-pressed', isActual);
    const view = figure().querySelector('.window');  // its middle
    view.scrollLeft = (view.scrollWidth - view.clientWidth) / 2;
    view.scrollTop = (view.scrollHeight - view.clientHeight) / 2;
  }
  if (!event.target.classList.contains('play')) return;
  const videos = [...figure().querySelectorAll('video')];
  const plays = videos[0].paused;
  videos.forEach(video => { if (plays) video.play(); else video.pause(); });
  event.target.textContent = plays ? 'Pause' : 'Play';
});
element.addEventListener('timeupdate', event => {
  const [first, second] = figure().querySelectorAll('video');
  if (event.target === first && Math.abs(first.currentTime - second.currentTime) > 0.03)
    second.currentTime = first.currentTime;
}, true);
"""
"""Moves the line of `before_and_after`, shows pixels as they are, keeps its videos together."""

ACTIONS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-job]');
  if (button) trigger('click', {job: button.dataset.job, action: button.dataset.action});
});
"""
"""Tells the server which button of a job was pressed."""


def jobs_list(jobs: Sequence[tuple[PageJob, JobProgress]]) -> str:
    """The jobs with what can be done about each."""
    if not jobs:
        return "<p>Nothing has been started yet.</p>"
    return f"<ul class=jobs>{''.join(_job(job, progress) for job, progress in jobs)}</ul>"


def _job(job: PageJob, progress: JobProgress) -> str:
    name, state = escape(job.output), progress.state
    known = progress.total or 0
    share = f" value={min(progress.done, known)} max={known}" if known else ""
    share = " value=1 max=1" if state == "done" else share or " value=0 max=1"
    numbers = f"{progress.done}{f' of {known}' if known else ''} frames"
    if state == "running" and progress.done:
        numbers += f", {progress.speed}"
        numbers += f", {progress.left} left" if progress.left else ""
    text = progress.message if state in ("failed", "done") else numbers
    picture = ""
    if progress.done and state in ("running", "paused", "stopping"):
        address = f"thumbnail/{job.id}?frame={progress.done}"
        picture = f'<img alt="frame {progress.done}" src="{address}">'
    return (
        f"<li data-state={state}><div class=job><div class=about><strong>{name}</strong>"
        f" <span class=state>{state}</span><p>{escape(text)}</p>"
        f'<progress{share} aria-label="{name}"></progress>'
        f"<p class=actions>{_actions(job, progress)}</p>"
        f"<details><summary>Command</summary><pre tabindex=0>"
        f"{escape(shlex.join(['iart', *job.arguments]))}</pre></details></div>{picture}</div></li>"
    )


def _actions(job: PageJob, progress: JobProgress) -> str:
    state, found = progress.state, []
    if state in ("waiting", "running"):
        found.append(("pause", "Pause"))
    if state in ("paused", "failed"):
        found.append(("go on", "Go on"))
    if state != "stopping":
        found.append(("cancel", "Remove from the list" if state == "done" else "Cancel"))
    name = escape(job.output)
    parts = [
        f'<button type=button data-job={job.id} data-action="{action}"'
        f' aria-label="{label}: {name}">{label}</button>'
        for action, label in found
    ]
    path = Path(job.output)
    if state == "done" and path.suffix:
        if path.suffix in _PLAYED:
            parts.append(f'<a href="open/{job.id}" target=_blank>Open</a>')
        parts.append(f'<a href="download/{job.id}" download>Download</a>')
    return " ".join(parts)


def thumbnail(source: Path, frame: int) -> bytes:
    """A JPEG of the source near one of its frames; empty if there is none."""
    try:
        with av.open(str(_file_of(source, frame))) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or 25
            if frame and not source.is_dir():
                container.seek(int(frame / rate * av.time_base))
            image = next(container.decode(stream)).to_image()
    except (FFmpegError, InputError, IndexError, StopIteration, OSError, ValueError):
        return b""
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.BILINEAR)
    data = io.BytesIO()
    image.save(data, "jpeg", quality=80)
    return data.getvalue()


def _file_of(source: Path, frame: int) -> Path:
    if not source.is_dir():
        return source
    files = sorted(source.iterdir(), key=natural_key)
    return files[min(frame, len(files) - 1)]


STYLE = """
.gradio-container { max-width: 76rem !important; }
.facts { border-collapse: collapse; width: 100%; border: 0; }
.facts tr, .facts th, .facts td { border: 0; }
.facts caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
.facts th { text-align: left; font-weight: 500; padding: .15rem 1rem .15rem 0;
  vertical-align: top; }
.facts td { overflow-wrap: anywhere; padding: .15rem 0; }
.command { margin: .6rem 0 .2rem; }
pre { overflow-x: auto; padding: .5rem; border: 1px solid var(--border-color-primary);
  border-radius: 4px; }
.error { border-left: 4px solid #c62828; padding: .3rem .6rem; overflow-wrap: anywhere; }
.before-after { margin: 0; }
.before-after .stack { position: relative; background: #000; }
.before-after video { display: block; width: 100%; }
.before-after.actual .window { overflow: auto; max-height: 75vh; }
.before-after.actual .stack { width: max-content; }
.before-after.actual video { width: auto; max-width: none; }
.before-after figcaption > * { margin: 0; }
.before-after [aria-pressed=true] { font-weight: 700; }
.before-after .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.before-after .stack::after { content: ""; position: absolute; inset: 0 auto 0 var(--at);
  width: 2px; margin-left: -1px; background: #fff; mix-blend-mode: difference; }
.before-after figcaption { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center;
  padding-top: .4rem; }
.before-after input { flex: 1; min-width: 6rem; }
.jobs { list-style: none; padding: 0; margin: 0; }
.jobs li { border-bottom: 1px solid var(--border-color-primary); padding: .6rem 0; }
.job { display: flex; gap: 1rem; flex-wrap: wrap; }
.job .about { flex: 1 1 16rem; min-width: 0; }
.job strong, .job p { overflow-wrap: anywhere; }
.job p { margin: .2rem 0; }
.job img { width: 160px; align-self: flex-start; border-radius: 4px; }
.job progress { width: 100%; height: .8rem; }
.job .actions button, .before-after button, [role=status] button {
  border: 1px solid currentColor; border-radius: 4px; padding: .15rem .6rem; font: inherit; }
.job .actions a { text-decoration: underline; margin-left: .5rem; }
.job .state { opacity: .85; font-style: italic; }
button:focus-visible, a:focus-visible, input:focus-visible, pre:focus-visible,
summary:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
button[role=tab].selected { color: var(--body-text-color) !important; transition: none; }
.min_value, .max_value { color: var(--block-info-text-color) !important; }
iframe.report { width: 100%; height: 46rem; border: 1px solid var(--border-color-primary); }
"""
