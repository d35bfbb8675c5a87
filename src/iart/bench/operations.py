"""How much arithmetic a clip needs, stage by stage.

Operations are those that the path needs (a multiply-add counts 2): each pixel projected once, the
last block and what follows for the middle frame only, padding not counted.
"""

from itertools import pairwise
from math import prod

from iart.model import IARTConfig

CELLS = 4  # that a pixel attends to in alignment
INTERPOLATION_TAPS = {"nearest": 1, "bilinear": 4, "bicubic": 16}
STAGES: tuple[str, ...] = ("flow", "align", "fuse", "upsample")


def count_operations(config: IARTConfig, frames: int, height: int, width: int) -> dict[str, float]:
    """Operations each stage needs for a clip of `frames` frames of `height` × `width` pixels."""
    c, mid, head = config.channels, config.mid_channels, config.head_channels
    cells = prod(config.window)
    flow_level = 49 * sum(i * o for i, o in pairwise((8, *config.flow_channels, 2)))
    flow = 2 * (frames - 1) * flow_level * sum(0.25**level for level in range(config.flow_levels))

    alignments = config.branches * (max(frames - 1, 0) + max(frames - 2, 0))
    taps = INTERPOLATION_TAPS.get(config.alignment)
    align = alignments * (3 * c * c + 2 * CELLS * c if taps is None else taps * c)

    # Per pixel: q k v, attention, projection and MLP, of three frames or for the middle one.
    block = 3 * (8 * c * c + 2 * cells * c)
    last_block = 6 * c * c + (6 * c * c + 2 * cells * c)
    convs = 27 * c * c * (len(config.depths) - 1) + 9 * c * c + 9 * c * c
    fuse = config.branches * frames * (block * (sum(config.depths) - 1) + last_block + convs)

    upsample = frames * (
        27 * c + 9 * c * mid + 36 * mid * mid + 4 * 36 * mid * head + 16 * 9 * head * (head + 3)
    )
    pixels = height * width
    return {
        name: 2.0 * pixels * count
        for name, count in zip(STAGES, (flow, align, fuse, upsample), strict=True)
    }
