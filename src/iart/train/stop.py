"""Stopping between two steps: signals are noted, not raised, so that no step is cut in half."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

# Launchers pass on a signal that the terminal has sent already: within this time it is the same.
SAME_SIGNAL_SECONDS = 1.0


class StopSignals:
    """While the block lasts, SIGINT, SIGTERM and SIGHUP ask the run to save and stop.

    The same again, a second or more later, raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal has come."""
        return self._since is not None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is not None and now - self._since > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        self._since = now if self._since is None else self._since
