"""Forms → command lines, and errors of commands → fields of forms."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from iart.errors import IARTError, InputError
from iart.upscaling.film.request import Flag, options_of_requests

_ERROR = re.compile(r"^(?:error: |│ (?:Invalid value for )?)(.*?)[\s│]*$", re.MULTILINE)
"""Of the library in a line, of wrong usage in a box."""
_LONGEST_VALUE = 200
PREVIEW_SECONDS = (0.05, 5.0, 1.0)
"""Shortest and longest length of a preview, and the longest that is not asked for."""
_PREVIEW_SETS = ("start_seconds", "end_seconds", "drop", "codec", "crf", "preset", "pixel_format")


class CommandError(IARTError):
    """A command has refused what a form says.

    Attributes:
        field: the option that it speaks of; None if it names none.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def flag_of(name: str) -> str:
    """How the command line calls an option."""
    flag: Flag = get_args(options_of_requests()[name].type)[1]
    return flag.name or f"--{name.replace('_', '-')}"


def flags(values: Mapping[str, Any], *, without: Sequence[str] = ()) -> list[str]:
    """Flags for the options of a form that are not left at their defaults.

    A value never becomes a flag of its own: it stands behind "=".

    Raises:
        InputError: a value is too long, or holds what no option takes.
    """
    words = []
    for name, field in options_of_requests().items():
        value = values.get(name)
        if name in without or value in (None, "", False) or str(value) == str(field.default):
            continue
        if value is True:
            words.append(flag_of(name))
            continue
        text = str(value).strip()
        if len(text) > _LONGEST_VALUE or not text.isprintable():
            raise InputError(f"{flag_of(name)} takes a short word, got {len(text)} characters")
        several = re.split(r"[\s,]+", text) if name == "drop" else [text]
        words += [f"{flag_of(name)}={word}" for word in several]
    return words


def preview_flags(values: Mapping[str, Any], start: float, seconds: float) -> list[str]:
    """Flags for a short piece without sound, in H.264 that browsers play."""
    return [
        *flags(values, without=_PREVIEW_SETS),
        *(f"--start={start:.3f}", f"--end={start + seconds:.3f}"),
        *("--codec=x264", "--pixel-format=yuv420p", "--crf=14"),
        *(f"--drop={kind}" for kind in ("audio", "subtitle", "attachment", "data")),
    ]


def preview_seconds(told: float | None) -> float | None:
    """How long a preview is to be on this machine, by what `info` told; None if unknown."""
    shortest, _, most = PREVIEW_SECONDS
    return None if told is None else min(max(told, shortest), most)


def iart_command(arguments: Sequence[str]) -> list[str]:
    """How a process of `iart` is started; modules in the current folder are not taken for ours."""
    return [sys.executable, "-P", "-m", "iart", *arguments]


def environment() -> dict[str, str]:
    """For such a process: messages in plain, long lines."""
    return os.environ | {"TERMINAL_WIDTH": "4000", "COLUMNS": "4000", "NO_COLOR": "1"}


def run_iart(arguments: Sequence[str], folder: Path) -> str:
    """What a short command prints.

    Raises:
        CommandError: it has failed; the error is its own.
    """
    done = subprocess.run(
        iart_command(arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    if done.returncode:
        raise error_of(done.stderr)
    return done.stdout


def info(
    source: Path, folder: Path, arguments: Sequence[str]
) -> tuple[list[tuple[str, str]], float | None]:
    """Labelled lines of `iart info`, and how long a preview is to be, in seconds, if it tells.

    Lines that come several times are apart.
    """
    (found,) = json.loads(run_iart(["info", str(source), "--json", *arguments], folder))
    seconds, lines = found.pop("preview_seconds", None), []
    for label, text in found.items():
        texts = text if isinstance(text, list) else [text]
        lines += [(label.removesuffix("s") if isinstance(text, list) else label, t) for t in texts]
    return lines, seconds


def error_of(log: str) -> CommandError:
    """The last error in what a command wrote, and the option it is about."""
    found = _ERROR.findall(log)
    message = found[-1] if found else (log.strip().splitlines() or ["it said nothing"])[-1]
    for name in options_of_requests():
        if re.search(rf"(^|[\s'`]){flag_of(name)}\b", message):
            return CommandError(message, name)
    for name in options_of_requests():
        words = name.removesuffix("_seconds").replace("_", " ")
        if re.match(rf"(unknown |cannot |{words}\b).*?\b{words}\b|{words}\b", message, re.I):
            return CommandError(message, name)
    return CommandError(message)
