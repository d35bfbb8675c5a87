"""How this process takes memory from Linux: kept, so that it is not cleared anew.

The network takes and frees blocks of many megabytes all the time. By default the C library gives
them back to the system, which clears every page before it hands it out again: a third of the time
at 320×180. Results do not change.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 32 * 2**20
"""Bytes; glibc takes no larger threshold. Larger blocks still go back, so that none are hoarded."""


def keep_freed_memory() -> bool:
    """Have freed blocks kept for the next ones.

    Returns:
        Whether the C library has agreed: glibc does, others do not know of it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, -1))
