"""The process that PyTorch runs in: how it takes memory, how many threads, and how they wait.

PyTorch is imported where it is needed only: some of this has to happen before.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 32 * 2**20
"""Bytes; glibc takes no larger threshold. Larger blocks still go back, so that none are hoarded."""

SPINS = "1000"
"""Looks at whether the next operation has come, before a thread goes to sleep: microseconds."""


def keep_freed_memory() -> bool:
    """Have freed blocks kept for the next ones, so that they are not cleared anew.

    The network takes and frees blocks of many megabytes all the time. By default the C library
    gives them back to the system, which clears every page before it hands it out again: a third of
    the time at 320×180. Results do not change.

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


def rest_while_waiting() -> None:
    """Let PyTorch's threads sleep soon after an operation, unless `GOMP_SPINCOUNT` is set.

    By default they look out for the next one for milliseconds, and take the cores from encoders and
    from other processes for that long; where these take the cores, a barrier waits that long, too.
    PyTorch's OpenMP library (libgomp, of Linux; others ignore it) reads the environment once, when
    PyTorch is imported: after that, see `rest_when_crowded`.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


@cache
def rest_when_crowded() -> None:
    """The same where PyTorch was imported before this package, as in a notebook or a server.

    libgomp lets threads sleep after 100 looks by itself while the process has more of them than the
    machine has processors. So a second set of threads is made once, which sleeps for ever. Where
    PyTorch was told to take fewer than all processors, nothing is done.
    """
    if sys.platform != "linux" or "GOMP_SPINCOUNT" in os.environ:
        return
    import torch

    made, processors = threading.Event(), len(os.sched_getaffinity(0))
    if torch.get_num_threads() < processors:
        return

    def stay() -> None:
        try:
            # A share for each.
            torch.zeros(processors << 16, dtype=torch.uint8).bitwise_not_()
        finally:
            made.set()
        threading.Event().wait()

    threading.Thread(target=stay, name="iart: more threads than processors", daemon=True).start()
    made.wait()


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Have PyTorch compute with so many threads on the CPU in the block; None changes nothing.

    It counts for the calling thread, and for threads that first use PyTorch in the block: these
    keep it.
    """
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Have the calling thread, and those that begin in the block, scheduled as it was before.

    SVT-AV1 run by root, as in most containers, makes its threads and its caller real-time: nothing
    else on the machine gets the processor while they have work.
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    try:
        yield
    finally:
        for thread in (_threads() - before) | {threading.get_native_id()}:
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}


def peak_memory() -> int:
    """Most bytes that this process has held so far; on Linux since `/proc` was told to forget."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
