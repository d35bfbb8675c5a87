"""LPIPS and DISTS, computed by their authors' libraries if the user has installed them.

LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
2018, with AlexNet. DISTS: Ding et al., "Image Quality Assessment: Unifying Structure and Texture
Similarity", TPAMI 2022. Both are 0 for equal frames; less is better. The libraries need torchvision
and fetch weights of their own on first use, so neither is a dependency of this package.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.errors import MissingExtraError, OptionsError

FrameMetric = Callable[[Tensor, Tensor], float]  # uint8 RGB `3 h w`: result, ground truth


@dataclass(frozen=True)
class _Library:
    """Where a metric comes from: `module.name(**arguments)` compares `1 3 h w` tensors."""

    package: str
    module: str
    name: str
    signed: bool  # takes [−1, 1] instead of [0, 1]
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


LIBRARIES = {
    "lpips": _Library("lpips", "lpips", "LPIPS", True, {"net": "alex", "verbose": False}),
    "dists": _Library("dists-pytorch", "DISTS_pytorch", "DISTS", False),
}


def load_perceptual(name: str, device: torch.device) -> FrameMetric:
    """The metric `name` ("lpips" or "dists"), ready to be called on frames.

    Raises:
        OptionsError: there is no such metric.
        MissingExtraError: its library is not installed or cannot load its weights.
    """
    if name not in LIBRARIES:
        raise OptionsError(
            f"'{name}' is not a perceptual metric (there are {', '.join(LIBRARIES)})"
        )
    library = LIBRARIES[name]
    try:
        # Their code and torchvision's warn of each other's age.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(library.module)
            network = getattr(module, library.name)(**library.arguments).to(device).eval()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{name} is not computed: there is no module '{error.name}'. It comes with"
            f" `pip install {library.package} torchvision`"
        ) from error
    # Old torchvision, no network, damaged weights: what a library raises then is open.
    except Exception as error:
        raise MissingExtraError(
            f"{name} is not computed: the library '{library.package}' does not load"
            f" ({_one_line(error)})"
        ) from error

    @torch.inference_mode()
    def measure(result: Tensor, gt: Tensor) -> float:
        return network(_input(result), _input(gt)).item()

    def _input(frame: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "1 3 h w"]:
        unit = frame[None].to(device).float() / 255
        return 2 * unit - 1 if library.signed else unit

    return measure


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
