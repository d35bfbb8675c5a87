"""iart: video made four times larger and restored (IART, CVPR 2024).

    model = iart.load_model("light")
    iart.upscale_video("in.mkv", "out.mkv", model)

Names are loaded when they are first used, so that `iart --help` does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iart.errors import (
    DamagedInputError,
    DataError,
    DeviceError,
    IARTError,
    InputError,
    MissingExtraError,
    OptionsError,
    OutputError,
    TrainingError,
    WeightsError,
)

if TYPE_CHECKING:
    from iart.inference.upscale import upscale, upscale_frames
    from iart.inference.video import upscale_video
    from iart.model import IART, IARTConfig
    from iart.video.reader import VideoReader
    from iart.video.writer import VideoWriter
    from iart.weights import load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "IART",
    "DamagedInputError",
    "DataError",
    "DeviceError",
    "IARTConfig",
    "IARTError",
    "InputError",
    "MissingExtraError",
    "OptionsError",
    "OutputError",
    "TrainingError",
    "VideoReader",
    "VideoWriter",
    "WeightsError",
    "__version__",
    "load_model",
    "save_model",
    "upscale",
    "upscale_frames",
    "upscale_video",
]

_HOMES = {
    "IART": "iart.model",
    "IARTConfig": "iart.model",
    "VideoReader": "iart.video.reader",
    "VideoWriter": "iart.video.writer",
    "load_model": "iart.weights",
    "save_model": "iart.weights",
    "upscale": "iart.inference.upscale",
    "upscale_frames": "iart.inference.upscale",
    "upscale_video": "iart.inference.video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iart' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
