"""Writing weights, in our layout or the published one."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import nn

from iart.device import PRECISIONS
from iart.errors import OptionsError, OutputError, WeightsError
from iart.model.iart import IART
from iart.weights.load import FORMAT, FORMAT_VERSION, RESERVED, located, read_metadata, read_model
from iart.weights.published import published_name, to_published
from iart.weights.tensorfile import atomic_file, some

Layout = Literal["iart", "published"]
SUFFIXES: dict[str, Layout] = {".safetensors": "iart", ".pth": "published"}


def save_model(
    model: IART,
    path: str | Path,
    *,
    layout: Layout | None = None,
    dtype: torch.dtype | str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights, replacing `path` only when the new file is complete.

    Args:
        model: its parameters and, in our layout, its configuration are written.
        path: ends in `.safetensors` (our layout) or `.pth` (published layout).
        layout: "iart" or "published", if the suffix should be checked against it.
        dtype: of the tensors on disk; "float16" halves the file and rounds.
        metadata: texts stored in a file of ours; a published file has no place for them.

    Raises:
        WeightsError: a weight is not finite (in `dtype`), or the layout cannot hold the model.
        OptionsError: suffix, layout, dtype or metadata do not go together.
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
    parameters = {name for name, _ in model.named_parameters()}
    if layout == "published":
        state, parameters = to_published(model), {published_name(name) for name in parameters}
    else:
        state = dict(model.named_parameters())
    state = {
        name: t.detach().to("cpu", on_disk if name in parameters else t.dtype).contiguous()
        for name, t in state.items()
    }
    if broken := [name for name in state if not state[name].isfinite().all()]:
        raise WeightsError(f"cannot write '{path}': not finite: {some(broken)}")
    if layout == "published":
        buffer = io.BytesIO()
        torch.save({"params": state}, buffer)
        content = buffer.getvalue()
    else:
        config = json.dumps(asdict(model.config))
        own = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": config}
        content = safetensors.torch.save(state, {**metadata, **own})
    with atomic_file(path) as file:
        file.write(content)


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
    layout = _layout_of(target, None)
    if target.exists() and not overwrite:
        raise OutputError(f"'{target}' exists. Pass another name, or overwrite (--overwrite)")
    with located(source) as path:
        metadata = read_metadata(path) if layout == "iart" else {}
        model = read_model(path, key=key)
    save_model(model, target, dtype=dtype, metadata=metadata)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values: the same in whatever file they lie."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


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
