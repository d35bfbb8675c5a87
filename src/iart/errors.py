"""Every error that iart raises on purpose; catch `IARTError` to catch them all.

IARTError
├── InputError          an input cannot be read: missing, no video stream, images of different sizes
├── OutputError         an output cannot be written: it exists, no space, a codec that does not fit
├── DamagedInputError   the output is complete, but parts of the input were lost; lists them
├── WeightsError        a weights file cannot be used: truncated, foreign, not finite
├── OptionsError        an option or an argument has a value that cannot work
├── DataError           training or benchmark data is missing or does not match
├── TrainingError       training cannot go on: its loss or weights are not finite
├── DeviceError         a device or precision was asked for that this machine does not have
└── MissingExtraError   an optional dependency is needed; names the install command

Messages say what came, what was expected and what to do, in one line without a full stop.
"""

from typing import Any


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its class if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class IARTError(Exception):
    """Base class of all errors below."""


class InputError(IARTError):
    """An input file or folder cannot be read."""


class OutputError(IARTError):
    """An output cannot be written; nothing is left under its final name."""


class DamagedInputError(IARTError):
    """Parts of the input were lost; the output is complete otherwise and has its final name.

    Attributes:
        losses: the missing parts, each an `iart.video.frame.Loss`.
    """

    def __init__(self, message: str, losses: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.losses = losses


class WeightsError(IARTError):
    """A weights file cannot be used; no model is returned."""


class OptionsError(IARTError):
    """An option or argument has a value that cannot work."""


class DataError(IARTError):
    """Training or benchmark data is missing, damaged or does not match."""


class TrainingError(IARTError):
    """Training cannot go on; the state saved last is finite and stays."""


class DeviceError(IARTError):
    """A device or precision was asked for that this machine does not have."""


class MissingExtraError(IARTError):
    """An optional dependency is not installed."""
