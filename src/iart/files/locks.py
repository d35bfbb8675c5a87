"""Locks between processes; the system frees those of a process that ends, however it ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """A lock file that no other process, and nobody else in this one, holds while the block lasts.

    Where the file system has no locks, as on some network shares, every lock is granted; what the
    block is given tells whether it is held in truth.

    Args:
        path: of the lock file, which is made if missing and may be removed by the holder.
        wait: until it is free.

    Raises:
        BlockingIOError: it is held and `wait` is not set.
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # takes a while to import

    path.touch()  # what cannot be made is told apart from what cannot be locked
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, f"another process holds '{path}'") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()
