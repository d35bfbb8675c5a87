"""How fast a network is here, measured for a moment."""

import time

import torch
from torch import Tensor, nn

from iart.model import IART
from iart.upscaling.budget import Tiling
from iart.upscaling.clip import upscale

# Frames, height, width of pieces whose time is taken; the larger only if the smaller was quick.
PROBES = ((3, 32, 32), (3, 64, 96))
QUICK_SECONDS = 0.3


def seconds_per_frame(model: nn.Module, tiling: Tiling, height: int, width: int) -> float:
    """From pixels per second on a small piece; encoding, which goes on beside it, not counted.

    Args:
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        tiling: of the film, whose windows repeat frames.
        height: of its pictures.
        width: of them.
    """
    seconds_per_pixel = 0.0
    for t, h, w in PROBES:
        clip = torch.rand(t, 3, h, w)
        upscale(clip[:, :, :16, :16], model, window=t, overlap=0)  # what is done only once
        seconds = min(_seconds(clip, model) for _ in range(2))  # other programs only add to it
        seconds_per_pixel = seconds / (t * h * w)
        if seconds > QUICK_SECONDS:
            break
    contexts = 1 if isinstance(model, IART) else 2  # its state is carried from window to window
    repeated = tiling.window / (tiling.window - contexts * tiling.overlap)
    return seconds_per_pixel * height * width * repeated


def _seconds(clip: Tensor, model: nn.Module) -> float:
    began = time.monotonic()
    upscale(clip, model, window=len(clip), overlap=0)
    return time.monotonic() - began
