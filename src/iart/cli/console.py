"""What a user sees on the terminal: errors, notes and progress, all on stderr."""

import json
import logging
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from iart.errors import IARTError
from iart.upscaling.film.request import Progress

LINE_EVERY_SECONDS = 10.0
INTERRUPTED = 130


def stderr() -> Console:
    """Made when needed: tests and shells redirect stderr."""
    return Console(stderr=True)


def say(text: str) -> None:
    """One line, as it is: paths may hold what a terminal library takes for markup."""
    stderr().print(text, markup=False, highlight=False, soft_wrap=True)


def print_labelled(lines: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """A label and its text on each line; on a terminal, long ones go on below, words kept whole."""
    lines = list(lines)
    column = 1 + max((len(label) for label, _ in lines), default=0)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for label, text in lines:
        first, below = f"{indent}{label:<{column}}", indent + " " * column
        wrapped = textwrap.wrap(
            text,
            max(width, len(first) + 20),
            initial_indent=first,
            subsequent_indent=below,
            break_long_words=False,
            break_on_hyphens=False,
        )
        print("\n".join(wrapped or [first.rstrip()]))


def as_json(content: Any) -> str:
    """For programs: infinite numbers, which JSON lacks, become the text "Infinity"."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: finite(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [finite(inner) for inner in value]
        return "Infinity" if value == math.inf else value

    return json.dumps(finite(content), indent=1, default=str)


@contextmanager
def reported(
    *, quiet: bool = False, verbose: bool = False, interrupted: str = "nothing was written"
) -> Iterator[None]:
    """Errors of ours become one line and exit code 1, Ctrl-C 130; notes of the library are shown.

    Args:
        quiet: show errors only.
        verbose: show where an error comes from.
        interrupted: what Ctrl-C leaves behind, unless the interruption says so itself.
    """
    handler = _Notes()
    logger = logging.getLogger("iart")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    except KeyboardInterrupt as stop:
        say(f"interrupted: {str(stop) or interrupted}")
        raise typer.Exit(INTERRUPTED) from None
    except IARTError as error:
        if verbose:
            stderr().print_exception()
        say(f"error: {error}")
        raise typer.Exit(1) from None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"note: {record.getMessage()}")


def progress_display(
    *, quiet: bool = False, every: float = LINE_EVERY_SECONDS
) -> AbstractContextManager[Callable[[Progress], None] | None]:
    """A bar on a terminal, a line every so many seconds elsewhere, nothing if quiet."""
    if quiet:
        return nullcontext(None)
    return _bar(describe_progress) if stderr().is_terminal else nullcontext(_lines(every=every))


@contextmanager
def count_display(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Progress of work that is counted: yields `show(done, total)`.

    Args:
        label: what is counted, plural: "files".
        quiet: show nothing.
    """
    began = time.monotonic()

    def describe(progress: Progress) -> str:
        return _counted(progress, label)

    display = _bar(describe) if stderr().is_terminal else nullcontext(_lines(describe))
    with nullcontext(None) if quiet else display as show:

        def count(done: int, total: int) -> None:
            if show is not None:
                show(Progress(done, total, time.monotonic() - began))

        yield count


def describe_progress(progress: Progress) -> str:
    """E.g. "120 of 3000 frames, 4.1 fps, 0:11:42 left"."""
    done, elapsed = progress.frames_done, progress.elapsed_seconds
    fps = (done - progress.frames_before) / elapsed if elapsed else 0.0
    slow = 0 < fps < 0.1  # which one digit would round away
    return _counted(progress, "frames", f"{1 / fps:.0f} s a frame" if slow else f"{fps:.1f} fps")


def _counted(progress: Progress, label: str, *more: str) -> str:
    done, total, elapsed = progress.frames_done, progress.frame_count, progress.elapsed_seconds
    if total is None or total < done:
        return ", ".join((f"{done} {label}", *more))
    fresh = done - progress.frames_before
    left = timedelta(seconds=round((total - done) * elapsed / fresh)) if fresh else "?"
    return ", ".join((f"{done} of {total} {label}", *more, f"{left} left"))


@contextmanager
def _bar(describe: Callable[[Progress], str]) -> Iterator[Callable[[Progress], None]]:
    text = TextColumn("{task.description}", markup=False)
    with Bar(BarColumn(), text, console=stderr(), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.frames_done,
                total=progress.frame_count,
                description=describe(progress),
            )

        yield show


def _lines(
    describe: Callable[[Progress], str] = describe_progress, every: float | None = None
) -> Callable[[Progress], None]:
    next_line = every = LINE_EVERY_SECONDS if every is None else every

    def show(progress: Progress) -> None:
        nonlocal next_line
        if progress.elapsed_seconds >= next_line:
            say(describe(progress))
            next_line = progress.elapsed_seconds + every

    return show
