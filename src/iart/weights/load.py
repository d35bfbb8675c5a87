"""Names and files → networks: of every tensor that a file has, and no other."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from iart.device import pick_device, pick_precision
from iart.errors import WeightsError
from iart.files.shipped import shipped_files, shipped_models
from iart.model.bicubic import Bicubic
from iart.model.iart import IART, IARTConfig
from iart.runtime import rest_when_crowded
from iart.weights.published import are_ours, config_from_shapes, drop_unused, published_name
from iart.weights.tensorfile import KEYS, fill, naming, read_tensors, read_texts

FORMAT, FORMAT_VERSION = "iart", "1"
YOUNGER_FIELDS = {"alignment": "implicit"}
"""Of a configuration: what files written before these fields existed mean."""
RESERVED = ("format", "format_version", "config")


@overload
def load_model(  # pyright: ignore[reportOverlappingOverload]  # the one str that is no IART
    name_or_path: Literal["bicubic"],
    device: str | torch.device = ...,
    precision: str = ...,
    *,
    backend: str = ...,
    key: None = ...,
) -> Bicubic: ...
@overload
def load_model(
    name_or_path: str | Path = ...,
    device: str | torch.device = ...,
    precision: str = ...,
    *,
    backend: str = ...,
    key: str | None = ...,
) -> IART: ...
def load_model(
    name_or_path: str | Path = "light",
    device: str | torch.device = "auto",
    precision: str = "auto",
    *,
    backend: str = "auto",
    key: str | None = None,
) -> IART | Bicubic:
    """A model ready to enlarge clips: in evaluation mode, on a device, without gradients.

    Args:
        name_or_path: a name of `model_names()`, or a `.safetensors` or published `.pth` file. A
            name counts before a file of that name in the current folder.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N" or "mps".
        precision: what features are computed in: "float32", "bfloat16", "float16", or "auto":
            float16 on a GPU, float32 elsewhere; weights, flow and coordinates stay float32. The
            model remembers it: `model.precision`. Where "auto" has chosen float16, `upscale` and
            its like compute windows anew, in bfloat16, that it cannot hold; `model(clip)` does not.
        backend: what computes most of it: "native" (C++ on the CPU, else PyTorch),
            "torch", for GPUs "triton", or "auto": the fastest that works on the device. The model
            remembers it: `model.backend`.
        key: which weights of a published file to take, if it holds several; by default
            "params_ema" (the smoothed ones) if present, else "params".

    Raises:
        WeightsError: no such model or file, or the file is damaged or of another network.
        DeviceError: this machine lacks the device or the precision.
        OptionsError: no such backend.
    """
    place = pick_device(device)
    pick_precision(precision, place)  # before a file is read
    if name_or_path == "bicubic":
        return Bicubic()
    with located(name_or_path) as path:
        model = read_model(path, key=key).requires_grad_(False).eval().to(place)
    model.precision, model.backend = precision, backend
    if place.type == "cpu":
        rest_when_crowded()
    return model


def from_anywhere(name_or_path: str | Path) -> str | Path:
    """The same for `load_model` from any folder."""
    name = str(name_or_path)
    return name if name in model_names() else Path(name).absolute()


def model_names() -> list[str]:
    """Names that `load_model` knows: "bicubic" and the weights that ship with the package."""
    return shipped_models()


def read_model(path: str | Path, *, key: str | None = None, keys: tuple[str, ...] = KEYS) -> IART:
    """The network of a file, float32, on the CPU, ready to be trained further.

    The names of its tensors tell the layout, ours or the published one; a file of ours holds its
    configuration, of others the shapes give it away.

    Args:
        path: a file of ours, a published one, or a `state_dict()` of either, in any container.
        key: which weights to take of several, see `load_model`.
        keys: without a key, the first of these that the file has is taken.

    Raises:
        WeightsError: the file is missing, damaged or of another network; says what is wrong.
    """
    path = Path(path)
    with naming(path):
        tensors, metadata = read_tensors(path, key, keys)
        if metadata.get("format") == FORMAT:
            return build(_config_from_metadata(metadata), tensors, published=False)
        published = not are_ours(tensors)
        return build(config_from_shapes(tensors), tensors, published=published)


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a file of ours says about itself (steps, data, licence …); of other files nothing.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = Path(path)
    with naming(path):
        texts = read_texts(path)
    return {name: text for name, text in texts.items() if name not in RESERVED}


@contextmanager
def located(name_or_path: str | Path) -> Iterator[Path]:
    """The file behind a shipped name or a path, while the block lasts."""
    shipped, path = shipped_files("", ".safetensors"), Path(name_or_path)
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


def _config_from_metadata(metadata: Mapping[str, str]) -> IARTConfig:
    """Configuration of a file of ours: every field of IARTConfig, as JSON."""
    if "config" not in metadata:
        raise WeightsError(
            "it says that it is iart's, but was not written by iart: no config in it"
        )
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


# ---- building


# Sizes beyond these come from damaged metadata; a network of them is not worth trying to allocate.
WINDOW_CELLS = 32 * 32
SLACK = 2**24


def build(config: IARTConfig, tensors: Mapping[str, Tensor], *, published: bool) -> IART:
    """The network with these weights, float32 on the CPU.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen, of another kind or not finite; names
            the first few of each.
    """
    _require_plausible(config, sum(tensor.numel() for tensor in tensors.values()))
    with _NoDraws():  # what the file is about to replace
        model = IART(config).float()
    own = dict(model.named_parameters())
    if published:
        tensors = drop_unused(tensors, model)
        own = {published_name(name): parameter for name, parameter in own.items()}
    fill(own, tensors)
    return model


class _NoDraws(TorchFunctionMode):
    """Gives zeros where parameters would be drawn: the process's random numbers stay as they are.

    To put the state of the generator back would undo what other threads draw meanwhile.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, unless it draws."""
        kwargs = kwargs or {}
        initialises = getattr(func, "__module__", None) == nn.init.__name__
        if initialises or func in (Tensor.uniform_, Tensor.normal_):
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **kwargs)


def _require_plausible(config: IARTConfig, numbers: int) -> None:
    """Raise if a file of so many numbers cannot fill the network: it is not tried to allocate."""
    c, mid, head = config.channels, config.mid_channels, config.head_channels
    widths = (8, *config.flow_channels, 2)
    needed = (
        config.branches * (8 * sum(config.depths) + 9 * len(config.depths)) * c**2
        + 36 * mid**2
        + 9 * head**2
        + config.flow_levels * 49 * sum(a * b for a, b in pairwise(widths))
    )
    if needed > 4 * numbers + SLACK or config.window[1] * config.window[2] > WINDOW_CELLS:
        raise WeightsError(f"its sizes cannot be: {config} with {numbers} numbers in the file")
