"""Text files that people write or other programs export, read in one way."""

import codecs
from importlib.resources.abc import Traversable
from pathlib import Path

from iart.errors import IARTError


def read_text(path: Path | Traversable, what: str, error: type[IARTError]) -> str:
    r"""Text of a UTF-8 file, or of one in UTF-16 that says so; lines end in "\n".

    A byte order mark is no part of the text: Windows programs put one in front.

    Args:
        path: of the file.
        what: name of the file in messages, such as "option file 'run.yml'".
        error: class of the error raised.

    Raises:
        IARTError: of the class `error`; the file cannot be read, or is not text.
    """
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise error(f"cannot read {what}: {reason}") from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")
