"""What is known of the models that ship, for people who choose one."""

import json
from importlib.resources.abc import Traversable
from pathlib import Path

from iart.bench.measure import count_operations
from iart.files.shipped import shipped_files, shipped_models
from iart.weights import read_metadata, read_model, weights_hash

_CLIP = (16, 90, 160)
"""Frames, height and width that the cost is stated for."""


def describe_models() -> dict[str, dict[str, str]]:
    """Labelled texts for each model, by its name.

    Scores are those of `iart test`, kept beside the protocols; of weights that have changed since
    they were measured, none is given.
    """
    (kept,) = shipped_files("benchmarks", "scores.json").values()
    scores = json.loads(kept.read_text(encoding="utf-8"))
    files = shipped_files("", ".safetensors")
    return {
        name: _of_weights(files[name], scores.get(name, {})) if name in files else _bicubic(scores)
        for name in shipped_models()
    }


def _of_weights(file: Traversable, scores: dict[str, object]) -> dict[str, str]:
    path = Path(str(file))
    model, known = read_model(path), read_metadata(path)
    operations = count_operations(model.config, *_CLIP)
    per_pixel = sum(operations.values()) / (_CLIP[0] * _CLIP[1] * _CLIP[2])
    count = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "made for": known.get("degradation", "not said"),
        "learnt from": known.get("learnt_from", "not said"),
        "licence": known.get("licence", "not said"),
        "size": f"{count / 1e6:.2f} M parameters, {path.stat().st_size / 1e6:.1f} MB",
        "cost": f"{per_pixel / 1e6:.2f} MFLOP per input pixel and frame",
    }
    is_same = scores.get("weights") == weights_hash(model)
    return facts | (_psnr(scores) if is_same else {})


def _bicubic(scores: dict[str, dict[str, object]]) -> dict[str, str]:
    facts = {"made for": "a fast look: interpolation, without weights"}
    return facts | _psnr(scores.get("bicubic", {}))


def _psnr(scores: dict[str, object]) -> dict[str, str]:
    values = scores.get("psnr")
    if not isinstance(values, dict):
        return {}
    return {"PSNR in dB": ", ".join(f"{name} {value:.2f}" for name, value in values.items())}
