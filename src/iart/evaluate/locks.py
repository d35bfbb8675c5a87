"""Locks between processes, on single bytes of a file; the system frees those of one that dies.

Where there are no such locks (on Windows, on some network shares), every lock is granted: one
process at a time there.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from iart.errors import OutputError

try:
    import fcntl
except ImportError:
    fcntl = None

HELD = (errno.EACCES, errno.EAGAIN)
"""What the system answers where another process has a lock."""


class LockFile:
    """A file to lock bytes of; a context manager whose end frees all locks of this process."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if missing.

        Raises:
            OutputError: the system refuses.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error

    def __enter__(self) -> "LockFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free all locks."""
        os.close(self._file)

    def lock(self, byte: int, *, shared: bool = False) -> None:
        """Wait for a byte, for this process alone or for all that share it."""
        if fcntl is not None:
            self._ask(fcntl.LOCK_SH if shared else fcntl.LOCK_EX, byte)

    def try_lock(self, byte: int) -> bool:
        """Lock a byte for this process alone, unless another process has it."""
        return fcntl is None or self._ask(fcntl.LOCK_EX | fcntl.LOCK_NB, byte)

    def unlock(self, byte: int) -> None:
        """Free a byte."""
        if fcntl is not None:
            self._ask(fcntl.LOCK_UN, byte)

    def _ask(self, what: int, byte: int) -> bool:
        """Whether it is granted, as all is by a file system that has no locks."""
        assert fcntl is not None
        try:
            fcntl.lockf(self._file, what, 1, byte)
        except OSError as error:
            return error.errno not in HELD
        return True

    @contextmanager
    def locked(self, byte: int) -> Iterator[None]:
        """A byte for this process alone while the block lasts."""
        self.lock(byte)
        try:
            yield
        finally:
            self.unlock(byte)
