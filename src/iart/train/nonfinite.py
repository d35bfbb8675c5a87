"""What is left behind when a loss is not finite: enough to find the cause."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from iart.data.loader import Batch
from iart.weights.tensorfile import atomic_file


def record(path: Path, step: int, losses: Sequence[float], batches: Sequence[Batch]) -> None:
    """Write the step, and of every micro-batch its loss, clips, crops and pictures.

    The file opens with `torch.load(path, weights_only=True)`.
    """
    parts = [
        {
            "loss": loss,
            "origins": [asdict(origin) for origin in batch.origins],
            "lq": batch.lq.cpu(),
            "gt": batch.gt.cpu(),
        }
        for loss, batch in zip(losses, batches, strict=True)
    ]
    with atomic_file(path) as file:
        torch.save({"step": step, "batches": parts}, file)


def places(batches: Sequence[Batch]) -> str:
    """Clips and crops in words."""
    return "; ".join(
        f"clip '{o.clip}' frames {list(o.frames)} at ({o.left}, {o.top})"
        for batch in batches
        for o in batch.origins
    )
