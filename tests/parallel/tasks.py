"""What workers of tests do; needs nothing that takes long to import."""

import os
from typing import Any

from iart.errors import DataError, DeviceError


def load(name: str) -> str:
    return f"{name} of {os.getpid()}"


def who(loaded: str, tell: Any) -> str:
    return loaded


def refuse(loaded: str, tell: Any) -> None:
    raise DataError("a clip is missing")


def crash(loaded: str, tell: Any) -> None:
    os._exit(3)


def fail(loaded: str, tell: Any) -> None:
    raise KeyError("no such key")


def count(until: int, loaded: str, tell: Any) -> int:
    for number in range(until):
        tell(number)
    return until


def missing() -> str:
    raise DeviceError("no such device here")
