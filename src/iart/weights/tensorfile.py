"""Files of tensors: told apart by content, opened without running code; and into parameters."""

import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from iart.errors import WeightsError

# How files begin that are often taken for weights.
MISTAKEN = (
    (b"<", "a web page, not weights: the download went wrong"),
    (b"version https://git-lfs", "a Git LFS pointer, not weights: run `git lfs pull`"),
)
KEYS = ("params_ema", "params", "state_dict")
"""Under which a checkpoint holds weights; the first that it has is read."""
PREFIXES = ("module.", "_orig_mod.")
ARCHIVES = (b"PK", b"\x80")  # what torch.save writes: a zip, or before PyTorch 1.6 a bare pickle


def read_tensors(
    path: Path, key: str | None = None, keys: tuple[str, ...] = KEYS
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by name, metadata) of safetensors or of what `torch.save` wrote.

    `module.` or `_orig_mod.` before every name (traces of parallel and compiled models) is removed.

    Args:
        path: a file; its content tells what it is, whatever its suffix says.
        key: which weights to take of a PyTorch file with several; None takes the first of `keys`
            that is there, else the whole.
        keys: under which weights may lie.

    Raises:
        WeightsError: the file is damaged, could run code when opened, or holds something else than
            tensors of plain numbers; `naming` adds the file's name.
        OSError: the file is missing or cannot be read.
    """
    metadata: dict[str, str] = {}
    if not _is_safetensors(path):
        tensors = _choose(_read_pickle(path), key, keys)
    elif key is not None:
        raise WeightsError(f"it holds one set of weights, not '{key}'. Leave key out")
    else:
        with _opened(path) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    if strange := [name for name, t in tensors.items() if not _is_plain(t)]:
        raise WeightsError(f"not plain numbers: {some(strange)}")
    return tensors, metadata


def read_texts(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without reading tensors; of another file nothing.

    Raises:
        WeightsError: the file is damaged.
        OSError: the file is missing or cannot be read.
    """
    if not _is_safetensors(path):
        return {}
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors inside the block name the file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"cannot use '{path}': {error}") from error
    except FileNotFoundError as error:
        raise WeightsError(f"cannot use '{path}': there is no such file") from error
    except OSError as error:
        raise WeightsError(f"cannot use '{path}': {error.strerror or error}") from error


def _is_safetensors(path: Path) -> bool:
    """Whether the content is safetensors, whatever the suffix says.

    Raises:
        WeightsError: there is no such file, or it is nothing that could hold weights.
    """
    if path.is_dir():
        raise WeightsError("it is a folder. Pass a file")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise WeightsError("the file is empty")
    # A safetensors file starts with the length of its header in 8 bytes; the header is JSON.
    if start[5:9] == b"\0\0\0{":
        return True
    for mark, what in MISTAKEN:
        if start.lstrip().startswith(mark):
            raise WeightsError(f"it is {what}")
    if not start.startswith(ARCHIVES):
        raise WeightsError("it is neither safetensors nor a PyTorch file")
    return False


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"the file is truncated or damaged ({error})") from error


def _read_pickle(path: Path) -> object:
    """What `torch.save` wrote, if it is made of tensors and plain containers alone.

    Raises:
        WeightsError: the file is truncated or damaged, or opening it would run code.
    """
    try:
        # PyTorch warns of kinds of file that it then refuses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and wanted:
            raise WeightsError(
                f"it holds more than tensors ({wanted[1]}) and could run code when opened."
                " Pass a file that holds the weights alone"
            ) from error
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"the file is truncated or damaged ({reason[:100]})") from error


def _choose(content: object, key: str | None, keys: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: under one of its keys, or the whole of it."""
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"it holds no weights but {_kind(content)}")
    present = [name for name in keys if isinstance(content.get(name), Mapping)]
    if key is None:
        state: Mapping[Any, Any] = content[present[0]] if present else content
    elif isinstance(content.get(key), Mapping):
        state = content[key]
    else:
        raise WeightsError(f"it has no '{key}' (found: {some(map(str, content))})")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(
                f"'{name}' is not a tensor but {_kind(tensor)}."
                f" Weights are expected at the top or under {' or '.join(keys)}"
            )
    return dict(state)


def _is_plain(tensor: Tensor) -> bool:
    strided = tensor.layout == torch.strided and not tensor.is_meta
    return strided and not tensor.is_quantized and not tensor.is_complex()


def some(names: Iterable[str], limit: int = 3) -> str:
    """A few names and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _kind(value: object) -> str:
    return f"{'an empty ' if value in ({}, [], ()) else 'a '}{type(value).__name__}"


# ---- to parameters: every tensor and no other, or what fits


FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names; all or an error.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen, not floating point or not finite;
            names the first few of each kind.
    """
    fitting, problems = compare(own, tensors)
    if problems:
        raise WeightsError(problems)
    copy(own, tensors, fitting)


def copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Copy the named tensors into the parameters of the same names.

    Raises:
        WeightsError: one is not finite there.
    """
    with torch.no_grad():
        for name in names:
            own[name].copy_(tensors[name])
    if broken := [name for name in names if not own[name].isfinite().all()]:
        raise WeightsError(f"not finite: {some(broken)}")


def compare(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[list[str], str]:
    """Names of the tensors that fit, and a sentence about what does not, empty if all do."""
    shared = [name for name in own if name in tensors]
    misshapen = [name for name in shared if tensors[name].shape != own[name].shape]
    not_floating = [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS]
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unknown": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
            for name in misshapen
        ],
        "not floating point": [
            f"{name} ({str(tensors[name].dtype).removeprefix('torch.')})" for name in not_floating
        ],
    }
    fitting = [name for name in shared if name not in {*misshapen, *not_floating}]
    return fitting, "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
