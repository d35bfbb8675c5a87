"""How threads that compute together wait for each other."""

import os

SPINS = "1000"
"""Looks at whether the next operation has come, before a thread goes to sleep: microseconds."""


def rest_while_waiting() -> None:
    """Let PyTorch's threads sleep soon after an operation, unless `GOMP_SPINCOUNT` is set.

    By default they look out for the next one for milliseconds, and take the cores from encoders and
    from other processes for that long. To be called before PyTorch is imported: its OpenMP library
    (libgomp, of Linux) reads the environment once. Others ignore it.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
