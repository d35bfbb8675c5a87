"""Names and files → networks."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from iart.device import autocast, pick_device, pick_precision
from iart.errors import WeightsError
from iart.model.bicubic import Bicubic
from iart.model.iart import IART, IARTConfig
from iart.weights.build import build
from iart.weights.published import config_from_shapes
from iart.weights.tensorfile import (
    choose_weights,
    is_safetensors,
    read_pickle,
    read_safetensors,
    read_safetensors_metadata,
)

FORMAT, FORMAT_VERSION = "iart", "1"
YOUNGER_FIELDS = {"alignment": "implicit"}
"""Of a configuration: what files written before these fields existed mean."""
RESERVED = ("format", "format_version", "config")
PUBLISHED_KEYS = ("params_ema", "params")  # the first that a file has is read


@overload
def load_model(  # pyright: ignore[reportOverlappingOverload]  # the one str that is no IART
    name_or_path: Literal["bicubic"],
    device: str | torch.device = ...,
    precision: str = ...,
    *,
    key: None = ...,
) -> Bicubic: ...
@overload
def load_model(
    name_or_path: str | Path = ...,
    device: str | torch.device = ...,
    precision: str = ...,
    *,
    key: str | None = ...,
) -> IART: ...
def load_model(
    name_or_path: str | Path = "light",
    device: str | torch.device = "auto",
    precision: str = "float32",
    *,
    key: str | None = None,
) -> IART | Bicubic:
    """A model ready to enlarge clips: in evaluation mode, on a device, without gradients.

    Args:
        name_or_path: a name of `model_names()`, or a `.safetensors` or published `.pth` file. A
            name counts before a file of that name in the current folder.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N" or "mps".
        precision: what features are computed in: "float32", "bfloat16" or "float16"; weights, flow
            and coordinates stay float32.
        key: which weights of a published file to take, if it holds several; by default
            "params_ema" (the smoothed ones) if present, else "params".

    Raises:
        WeightsError: no such model or file, or the file is damaged or of another network.
        DeviceError: this machine lacks the device or the precision.
    """
    place = pick_device(device)
    dtype = pick_precision(precision, place)
    if name_or_path == "bicubic":
        return Bicubic()
    with located(name_or_path) as path:
        model = read_model(path, key=key).requires_grad_(False).eval().to(place)
    return model if dtype == torch.float32 else _computing_in(model, place, dtype)


def model_names() -> list[str]:
    """Names that `load_model` knows: "bicubic" and the weights that ship with the package."""
    return ["bicubic", *_shipped()]


def read_model(path: str | Path, *, key: str | None = None) -> IART:
    """The network of a file, float32, on the CPU, ready to be trained further.

    Raises:
        WeightsError: the file is missing, damaged or of another network; says what is wrong.
    """
    path = Path(path)
    with _naming(path):
        if not is_safetensors(path):
            state = choose_weights(read_pickle(path), key, PUBLISHED_KEYS)
            return build(config_from_shapes(state), state, published=True)
        if key is not None:
            raise WeightsError(f"it holds one set of weights, not '{key}'. Leave key out")
        metadata, tensors = read_safetensors(path)
        return build(_config_from_metadata(metadata), tensors, published=False)


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a file of ours says about itself (steps, data, licence …); of other files nothing.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = Path(path)
    with _naming(path):
        metadata = read_safetensors_metadata(path) if is_safetensors(path) else {}
    return {name: text for name, text in metadata.items() if name not in RESERVED}


def _shipped() -> dict[str, Traversable]:
    """Name → weights that ship with the package."""
    folder = resources.files("iart").joinpath("assets")
    files = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
    suffix = ".safetensors"
    return {f.name.removesuffix(suffix): f for f in files if f.name.endswith(suffix)}


@contextmanager
def located(name_or_path: str | Path) -> Iterator[Path]:
    """The file behind a shipped name or a path, while the block lasts."""
    shipped, path = _shipped(), Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in shipped:
        with resources.as_file(shipped[name_or_path]) as file:
            yield file
    elif _may_be_file(path):
        yield path
    elif name_or_path == "bicubic":
        raise WeightsError("the model 'bicubic' has no weights. Pass a model that has, or a file")
    else:
        raise WeightsError(
            f"unknown model '{name_or_path}' (available: {', '.join(model_names())})."
            " Pass one of these, or a path to a .safetensors or .pth file"
        )


def _may_be_file(path: Path) -> bool:
    """Whether a name is meant as a path, even if there is no such file."""
    if path.suffix in (".safetensors", ".pth", ".pt") or len(path.parts) > 1:
        return True
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors inside the block name the file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"cannot use '{path}': {error}") from error
    except FileNotFoundError as error:
        raise WeightsError(f"cannot use '{path}': there is no such file") from error
    except OSError as error:
        raise WeightsError(f"cannot use '{path}': {error.strerror or error}") from error


def _config_from_metadata(metadata: Mapping[str, str]) -> IARTConfig:
    """Configuration of a file of ours: every field of IARTConfig, as JSON."""
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError("it is safetensors, but not written by iart: no configuration in it")
    if (version := metadata.get("format_version")) != FORMAT_VERSION:
        raise WeightsError(
            f"it has format version {version}, expected {FORMAT_VERSION}. Update iart to read it"
        )
    try:
        values = json.loads(metadata["config"])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"its configuration is not JSON ({error})") from error
    known = {field.name: field.default for field in fields(IARTConfig)}
    if isinstance(values, dict):
        values = {**YOUNGER_FIELDS, **values}
    if not isinstance(values, dict) or values.keys() != known.keys():
        found = ", ".join(values) if isinstance(values, dict) else type(values).__name__
        raise WeightsError(f"its configuration has {found}; expected {', '.join(known)}")
    for name, default in known.items():
        value = values[name]
        if isinstance(default, tuple) and isinstance(value, list):
            value = values[name] = tuple(value)
            fits = all(type(size) is int and size > 0 for size in value)
            fits = fits and (name != "window" or len(value) == 3)
        elif isinstance(default, float):
            fits = type(value) in (int, float) and 0 <= value < 1
            values[name] = float(value) if fits else value
        elif isinstance(default, str):
            fits = isinstance(value, str)
        else:
            fits = type(value) is type(default) and value > 0
        if not fits:
            raise WeightsError(f"its configuration has {name} = {value!r}, expected e.g. {default}")
    try:
        return IARTConfig(**values)
    except ValueError as error:
        raise WeightsError(f"its configuration cannot be: {error}") from error


def _computing_in(model: IART, device: torch.device, dtype: torch.dtype) -> IART:
    """The same model, whose features are computed in `dtype`."""
    forward = model.forward

    def in_precision(*arguments: Any, **options: Any) -> Float[Tensor, "b t 3 h w"]:
        with autocast(device, dtype):
            return forward(*arguments, **options)

    model.forward = in_precision
    return model
