import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import iart

NAMES = [
    "Crop",
    "DamagedInputError",
    "DataError",
    "DeviceError",
    "Frame",
    "IART",
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


def test_the_public_names_are_these():
    assert sorted(iart.__all__) == NAMES
    assert dir(iart) == NAMES
    for name in NAMES:
        assert getattr(iart, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'downscale'"):
        iart.downscale  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_every_error_is_an_iart_error():
    errors = [getattr(iart, name) for name in NAMES if name.endswith("Error")]
    assert all(issubclass(error, iart.IARTError) for error in errors)


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert iart.__version__ == project["project"]["version"]


def test_importing_iart_does_not_wait_for_torch():
    code = "import sys, iart, iart.cli; assert not {'torch', 'av', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
