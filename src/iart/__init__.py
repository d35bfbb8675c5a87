"""iart: video made four times larger and restored (IART, CVPR 2024).

    model = iart.load_model("light")
    iart.upscale_video("in.mkv", "out.mkv", model)

Names are loaded when they are first used, so that `iart --help` does not wait for PyTorch. Imported
before PyTorch, it has PyTorch's threads rest while they wait (`iart.runtime.rest_while_waiting`);
after it, `load_model` does.
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
from iart.runtime import rest_while_waiting
from iart.version import __version__

if TYPE_CHECKING:
    from iart.model import IART, IARTConfig
    from iart.upscaling.clip import upscale, upscale_frames
    from iart.upscaling.film.run import upscale_video
    from iart.video.frame import Crop, Frame, Loss, VideoInfo
    from iart.video.read.reader import VideoReader
    from iart.video.write.writer import VideoWriter
    from iart.weights import load_model, model_names, save_model

__all__ = [
    "IART",
    "Crop",
    "DamagedInputError",
    "DataError",
    "DeviceError",
    "Frame",
    "IARTConfig",
    "IARTError",
    "InputError",
    "Loss",
    "MissingExtraError",
    "OptionsError",
    "OutputError",
    "TrainingError",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "WeightsError",
    "__version__",
    "load_model",
    "model_names",
    "save_model",
    "upscale",
    "upscale_frames",
    "upscale_video",
]

_HOMES = {
    **dict.fromkeys(("Crop", "Frame", "Loss", "VideoInfo"), "iart.video.frame"),
    "IART": "iart.model",
    "IARTConfig": "iart.model",
    "VideoReader": "iart.video.read.reader",
    "VideoWriter": "iart.video.write.writer",
    "load_model": "iart.weights",
    "model_names": "iart.weights",
    "save_model": "iart.weights",
    "upscale": "iart.upscaling.clip",
    "upscale_frames": "iart.upscaling.clip",
    "upscale_video": "iart.upscaling.film.run",
}


rest_while_waiting()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iart' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
