"""Clips that move, and degradations to try on them."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.clips import Scene
from iart.data.degradation.chain import degrade
from iart.data.degradation.parameters import Coding, Degradation, Reduction, Scan
from iart.data.drawn import draw_leaves
from iart.data.motion import Speed, moving_pictures

MPEG2 = Coding(codec="mpeg2video", quantiser=3)


def leaves(seed: int = 0, side: int = 160) -> Scene:
    """A drawn still."""
    return Scene("leaves", draw_leaves(np.random.default_rng(seed), side)[None])


def sliding(moments: int, speed: float, side: int = 256) -> Float[Tensor, "m 3 s s"]:
    """A drawn still that goes left by `speed` pixels a moment."""
    still = torch.from_numpy(leaves(1, 512).frames[0].copy()).permute(2, 0, 1).float() / 255
    starts = [round(speed * i) for i in range(moments)]
    return torch.stack([still[:, 40 : 40 + side, 40 + x : 40 + x + side] for x in starts])


def moving(moments: int, side: int = 256, seed: int = 0) -> Float[Tensor, "m 3 s s"]:
    """Two drawn stills that move over each other."""
    rng = np.random.default_rng(seed)
    return moving_pictures(leaves(1, 400), leaves(2, 400), moments, side, Speed(3.0), rng)


def chain(**changes: Any) -> Degradation:
    """Reduction by area, and what is asked for."""
    return Degradation(**{"kind": "dvd", "reduction": Reduction(kernel="area"), **changes})


def through(how: Degradation, clip: Float[Tensor, "m 3 h w"], frames: int) -> Float[Tensor, "..."]:
    """Frames of low resolution, in [0, 1]."""
    return degrade(clip[: how.moments(frames)], how, frames)[0].float() / 255


def clean(clip: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m 3 h//4 w//4"]:
    """The reduction by area alone."""
    return torch.nn.functional.avg_pool2d(clip, 4)


def psnr(a: Tensor, b: Tensor) -> float:
    """Of images in [0, 1], dB."""
    return float(-10 * torch.log10((a - b).square().mean()))


SCANS = [
    Scan(),
    Scan(kind="interlaced"),
    Scan(kind="interlaced", top_first=False),
    Scan(kind="interlaced", per_field=True),
    *[Scan(kind="telecined", cadence=cadence, top_first=cadence % 2 == 0) for cadence in range(5)],
]
