"""FFmpeg's log, which PyAV keeps off: turned on for as long as its words are needed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av.logging

_lock = threading.RLock()
"""Level and environment belong to the process: one thread at a time changes them."""


@contextmanager
def captured_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Errors that FFmpeg logs in this thread within the block: level, who says it, text.

    Encoders that write to the terminal themselves say errors only, if they are opened in it.
    """
    with _lock:
        level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
        speech = os.environ.get("SVT_LOG")
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # else the words of an earlier error come first
        os.environ.setdefault("SVT_LOG", "1")  # the only switch of SVT-AV1; 1 lets errors through
        try:
            with av.logging.Capture() as logs:
                yield logs
        finally:
            if speech is None:
                del os.environ["SVT_LOG"]
            av.logging.set_skip_repeated(skip)
            av.logging.set_level(level)
