"""Hidden names beside that of an output, for what belongs to it until it is complete."""

import hashlib
import os
import secrets
from pathlib import Path

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
