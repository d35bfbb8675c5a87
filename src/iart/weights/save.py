"""Writing weights, in our layout or the published one."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from iart.device import PRECISIONS
from iart.errors import OptionsError, OutputError, WeightsError
from iart.files.complete import complete_file
from iart.model.iart import IART
from iart.weights.load import FORMAT, FORMAT_VERSION, RESERVED, located, read_metadata, read_model
from iart.weights.published import to_published
from iart.weights.tensorfile import some

Layout = Literal["iart", "published"]
SUFFIXES: dict[str, Layout] = {".safetensors": "iart", ".pth": "published"}


def save_model(
    model: nn.Module,
    path: str | Path,
    *,
    layout: Layout | None = None,
    dtype: torch.dtype | str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights, replacing `path` only when the new file is complete and reads back the same.

    Args:
        model: an IART network, or one that `torch.compile`, `DataParallel`,
            `DistributedDataParallel` or `AveragedModel` wraps; its parameters and, in our layout,
            its configuration are written.
        path: ends in `.safetensors` (our layout) or `.pth` (published layout).
        layout: "iart" or "published", if the suffix should be checked against it.
        dtype: of the tensors on disk; "float16" halves the file and rounds.
        metadata: texts stored in a file of ours; a published file has no place for them.

    Raises:
        WeightsError: a weight is not finite (in `dtype`), the layout cannot hold the model, or what
            was written does not read back the same.
        OptionsError: the model is no IART network, or suffix, layout, dtype and metadata do not go
            together.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    layout = _layout_of(path, layout)
    on_disk = PRECISIONS.get(dtype) if isinstance(dtype, str) else dtype
    if on_disk not in PRECISIONS.values():
        raise OptionsError(
            f"weights cannot be written in that dtype. Pass dtype {', '.join(PRECISIONS)}"
        )
    metadata = {name: str(text) for name, text in (metadata or {}).items()}
    if reserved := [name for name in RESERVED if name in metadata]:
        raise OptionsError(f"metadata may not be called {some(reserved)}: iart writes these itself")
    network = _unwrapped(model)
    state = {name.replace("_orig_mod.", ""): p for name, p in network.named_parameters()}
    state = {n: p.detach().to("cpu", on_disk).contiguous() for n, p in state.items()}
    if broken := [name for name in state if not state[name].isfinite().all()]:
        raise WeightsError(f"cannot write '{path}': not finite: {some(broken)}")
    if layout == "published":
        buffer = io.BytesIO()
        tensors = {n: t.cpu().contiguous() for n, t in to_published(network, state).items()}
        torch.save({"params": tensors}, buffer)
        content = buffer.getvalue()
    else:
        config = json.dumps(asdict(network.config))
        own = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": config}
        content = safetensors.torch.save(state, {**metadata, **own})
    with complete_file(path) as file:
        file.write(content)
        file.flush()
        _read_back(Path(file.name), path, state)


def _unwrapped(model: nn.Module) -> IART:
    """The network inside of what compiles, distributes or averages it."""
    inner: object = model
    while isinstance(inner, nn.Module) and not isinstance(inner, IART):
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
    if not isinstance(inner, IART):
        raise OptionsError(f"save_model writes IART networks, not {type(model).__name__}")
    return inner


def _read_back(written: Path, path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise unless the file that is to be called `path` gives the weights."""
    try:
        found = dict(read_model(written).named_parameters())
    except WeightsError as error:
        reason = str(error).replace(f"cannot use '{written}': ", "")
        raise WeightsError(f"cannot write '{path}': it would not be readable: {reason}") from error
    if different := [n for n, t in state.items() if not t.float().equal(found[n])]:
        raise WeightsError(f"cannot write '{path}': it reads back differently: {some(different)}")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    key: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> None:
    """Rewrite weights in the layout that the suffix of `target` names (see `save_model`).

    Args:
        source: a shipped name, or a file that `load_model` takes.
        target: `.safetensors` (ours, keeps the metadata of ours) or `.pth` (published).
        key: see `load_model`.
        dtype: of the tensors on disk.
        overwrite: replace an existing `target`.
    """
    target = Path(target)
    keeps_metadata = _layout_of_new(target, overwrite=overwrite) == "iart"
    with located(source) as path:
        metadata = read_metadata(path) if keeps_metadata else {}
        model = read_model(path, key=key)
    save_model(model, target, dtype=dtype, metadata=metadata)


def blend(
    first: str | Path,
    second: str | Path,
    share: float,
    target: str | Path,
    *,
    key: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> None:
    """Write (1 − share) · first + share · second, tensor by tensor (Wang et al., ECCVW 2018).

    Between a network trained for PSNR and the same one fine-tuned for looks, it is in between.

    Args:
        first: a shipped name, or a file that `load_model` takes.
        second: another; of the same configuration.
        share: of the second, 0 to 1.
        target: see `convert`.
        key: see `load_model`.
        dtype: of the tensors on disk.
        overwrite: replace an existing `target`.

    Raises:
        WeightsError: a file cannot be used, or the two are different networks.
        OptionsError: the share lies outside of 0 to 1.
        OutputError: the file exists or cannot be written.
    """
    target = Path(target)
    keeps_metadata = _layout_of_new(target, overwrite=overwrite) == "iart"
    if not 0 <= share <= 1:
        raise OptionsError(f"the share of the second model must be from 0 to 1, got {share}")
    with located(first) as path, located(second) as other_path:
        model, other = read_model(path, key=key), read_model(other_path, key=key)
    one, two = (asdict(replace(m.config, drop_path=0.0)) for m in (model, other))
    if different := [
        f"{name} {one[name]} and {two[name]}" for name in one if one[name] != two[name]
    ]:
        raise WeightsError(
            f"cannot blend '{first}' and '{second}': they are different networks "
            f"({'; '.join(different)})"
        )
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, share)
    words = f"{1 - share:g} {Path(first).name} + {share:g} {Path(second).name}"
    metadata = {"blend": words} if keeps_metadata else {}
    save_model(model, target, dtype=dtype, metadata=metadata)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values: the same in whatever file they lie."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _layout_of_new(path: Path, *, overwrite: bool) -> Layout:
    """Layout of a file that is to be written."""
    layout = _layout_of(path, None)
    if path.exists() and not overwrite:
        raise OutputError(f"'{path}' exists. Pass another name, or overwrite (--overwrite)")
    return layout


def _layout_of(path: Path, layout: Layout | None) -> Layout:
    """Layout that the suffix stands for."""
    if path.suffix not in SUFFIXES:
        raise OptionsError(
            f"cannot write '{path}': its suffix is none of .safetensors (ours), .pth (published)"
        )
    if layout not in (None, SUFFIXES[path.suffix]):
        suffix = next(suffix for suffix, name in SUFFIXES.items() if name == layout)
        raise OptionsError(f"cannot write '{path}' in the layout '{layout}'. Use {suffix}")
    return SUFFIXES[path.suffix]
