"""Names of files: hidden ones beside an output that is not complete, numbered ones of images."""

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePath

_NAME_BYTES = 200


def hidden_name(path: Path, ending: str) -> Path:
    """Beside `path`: a dot, its name, and the ending.

    Most file systems limit names to 255 bytes, a few of which are ours: of a longer name, a hash
    stands for the end, so that no two share a hidden name.
    """
    stem = path.name
    whole = os.fsencode(stem)
    if len(whole) > _NAME_BYTES:
        mark = f"~{hashlib.sha256(whole).hexdigest()[:16]}"
        while len(os.fsencode(stem)) > _NAME_BYTES - len(mark):
            stem = stem[:-1]  # by characters: not every run of bytes is a name
        stem += mark
    return path.parent / f".{stem}{ending}"


def temporary_name(path: Path, suffix: str = "") -> Path:
    """A name for what is not complete yet, which no other process chooses."""
    return hidden_name(path, f".{secrets.token_hex(4)}.part{suffix}")


def replaced_name(final: Path) -> Path:
    """Where a folder lies for a moment that gives way to another.

    Beside it, not in the folder of a job, which may be deleted to give the job up.
    """
    return hidden_name(final, ".replaced")


_PLACE = re.compile(r"%0?(\d*)d")


@dataclass(frozen=True)
class NumberedName:
    """A name with a place for a number.

    Attributes:
        before: what stands before the number.
        digits: at least so many, filled up with zeros.
        after: what stands behind it.
        first: number of the first image that is written.
    """

    before: str
    digits: int
    after: str
    first: int = 1

    def at(self, index: int) -> str:
        """The name of an image that is written, counted from 0."""
        return f"{self.before}{self.first + index:0{self.digits}d}{self.after}"

    @property
    def pattern(self) -> re.Pattern[str]:
        """All names of the series."""
        before, after = re.escape(self.before), re.escape(self.after)
        return re.compile(rf"{before}(\d{{{self.digits}}}|[1-9]\d{{{self.digits},}}){after}")


FRAMES = NumberedName("", 8, ".png", first=0)
"""What the images of an output are called if nobody says otherwise."""


def numbered_name(path: PurePath | str) -> NumberedName | None:
    """What the name of a path says; None if there is no place for a number in it."""
    name = PurePath(path).name
    place = _PLACE.search(name)
    if place is None:
        return None
    return NumberedName(name[: place.start()], int(place[1] or 1), name[place.end() :])


def frames_of(path: str | Path) -> tuple[Path, NumberedName]:
    """The folder that an output of images stands for, and their names in it.

    "out/f%03d.png" stands for f001.png, f002.png and so on in "out", as FFmpeg counts.
    """
    names = numbered_name(path)
    if names is None or names.after.lower() != ".png" or Path(path).is_dir():
        return Path(path), FRAMES
    return Path(path).parent, names
