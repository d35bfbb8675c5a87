"""Other processes in tests: started as a user would, and waited for by what they show."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

PATIENCE_SECONDS = 600
"""The last net against hanging: no test expects anything to happen within a time."""


def start_iart(
    *arguments: str | Path, program: Sequence[str] = ("-m", "iart"), **options
) -> subprocess.Popen[str]:
    """`iart`, or a program like it, with one thread and a piped stderr.

    `options` go to `Popen`.
    """
    command = [sys.executable, *program, *(str(argument) for argument in arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, **{"stderr": subprocess.PIPE, "text": True, "env": environment, **options}
    )


def wait_until(state: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Look again and again, until `state()` is true; the test fails if the process ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not state():
        if process is not None and process.poll() is not None and not state():
            pytest.fail(f"it ended with {process.returncode}: {process.communicate()[1]}")
        if time.monotonic() > deadline:
            if process is not None:
                process.kill()
            pytest.fail("it hangs")
        time.sleep(0.002)


def errors_at_end(process: subprocess.Popen[str]) -> str:
    """What the process wrote to stderr, once it has ended."""
    try:
        return process.communicate(timeout=PATIENCE_SECONDS)[1]
    finally:
        process.kill()
