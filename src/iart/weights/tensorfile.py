"""Files of tensors: told apart by content, opened without running code, written in one piece."""

import os
import pickle
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from iart.errors import OutputError, WeightsError

# How files begin that are often taken for weights.
MISTAKEN = (
    (b"<", "a web page, not weights: the download went wrong"),
    (b"version https://git-lfs", "a Git LFS pointer, not weights: run `git lfs pull`"),
)
ARCHIVES = (b"PK", b"\x80")  # what torch.save writes: a zip, or before PyTorch 1.6 a bare pickle


def is_safetensors(path: Path) -> bool:
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


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors).

    Raises:
        WeightsError: the file is truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"the file is truncated or damaged ({error})") from error


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """Texts in the header, without reading tensors.

    Raises:
        WeightsError: the file is truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"the file is truncated or damaged ({error})") from error


def read_pickle(path: Path) -> object:
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


def choose_weights(
    content: object, key: str | None, preferred: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors of a checkpoint: under one of its keys, or the whole of it.

    `module.` before every name (a trace of parallel training) is removed.

    Args:
        content: what `read_pickle` returned.
        key: the one to take; None takes the first of `preferred` that is there.
        preferred: keys under which weights may lie.

    Raises:
        WeightsError: there is no such key, or what is found is not a dictionary of tensors.
    """
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"it holds no weights but {_kind(content)}")
    present = [name for name in preferred if isinstance(content.get(name), Mapping)]
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
                f" Weights are expected at the top or under {' or '.join(preferred)}"
            )
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when the block ends well; otherwise nothing is left.

    Raises:
        OutputError: the operating system refuses.
    """
    if not path.parent.is_dir():
        raise OutputError(f"cannot write '{path}': there is no folder '{path.parent}'")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def some(names: Iterable[str], limit: int = 3) -> str:
    """A few names and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _kind(value: object) -> str:
    return f"{'an empty ' if value in ({}, [], ()) else 'a '}{type(value).__name__}"
