"""Where a benchmark's frames come from: a network with its weights, or a folder."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from iart.errors import WeightsError
from iart.evaluate.protocol import Protocol
from iart.weights import load_model, model_names, weights_hash

HASH_DIGITS = 8  # in names of folders


@dataclass(frozen=True)
class Source:
    """What is measured.

    Attributes:
        name: of the model, or of the folder.
        place: the device that it runs on, or that scores are computed on.
        model: None for frames made elsewhere.
        weights_hash: None for these, and for a model without weights.
    """

    name: str
    place: torch.device
    model: nn.Module | None = None
    weights_hash: str | None = None

    @property
    def device(self) -> str:
        """In words."""
        return device_name(self.place)

    @property
    def label(self) -> str:
        """For names of folders: different for different weights."""
        if self.model is None:
            return f"results-{self.name}"
        return f"{self.name}-{self.weights_hash[:HASH_DIGITS]}" if self.weights_hash else self.name


def folder_source(results: Path) -> Source:
    """Frames that were made elsewhere."""
    return Source(results.resolve().name, torch.device("cpu"))


def network_source(
    protocol: Protocol, weights: str | Path | None, key: str | None, device: str, precision: str
) -> Source:
    """A model, by default with the weights that the protocol names.

    Raises:
        WeightsError: the weights are missing or cannot be used.
        DeviceError: this machine lacks the device or the precision.
    """
    if weights is None:
        weights, key = protocol.weights, key or protocol.key
        if weights is None or not weights.is_file():
            missing = f"there is no '{weights}'" if weights else "it names none"
            raise WeightsError(
                f"no weights for {protocol.name}: {missing}. Put the published file there, or pass "
                "others (--weights light, or a file)"
            )
    model = load_model(weights, _own_gpu(device), precision, key=key)
    place = next(model.parameters(), torch.empty(0)).device
    name = str(weights) if str(weights) in model_names() else Path(weights).stem
    has_weights = next(model.parameters(), None) is not None
    return Source(name, place, model, weights_hash(model) if has_weights else None)


def device_name(device: torch.device) -> str:
    """What people call a device: the GPU's name; the processor's, with the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    pairs = (line.partition(":") for line in lines)
    names = (text.strip() for key, _, text in pairs if key.strip() == "model name")
    name = next(names, platform.processor() or platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


def _own_gpu(device: str) -> str:
    """Of the processes that torchrun starts, each takes its own."""
    rank, count = os.environ.get("LOCAL_RANK", ""), torch.cuda.device_count()
    if device == "auto" and rank.isdecimal() and count:
        return f"cuda:{int(rank) % count}"
    return device
