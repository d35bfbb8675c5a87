"""Memory that the network takes: counted in its code, and found again by measurement.

The pieces that it computes in are those of `flow`, `fuse` and `upsample`; docs/performance.md has
the formula and what was measured.
"""

from itertools import pairwise
from math import prod

from iart.device import PRECISIONS
from iart.model import flow, fuse, upsample
from iart.model.iart import IARTConfig
from iart.model.upsample import SCALE

# Numbers per low-resolution pixel that live at the same time, counted in the code and found again
# by measurement (docs/performance.md).
PAIR_FRAMES = 30  # two frames, normalised and in pyramids, the warped one, flows
PAIR_COPIES = 2  # of what a layer of a level gives: before and after ReLU, beside its input
FUSE_MAPS = 9  # what a step fuses, the same normalised, and what blocks overwrite: three maps each
GROUP_MAPS = 3  # what the convolution between two groups gives
BLOCK_COPIES = 8  # of windows in hand: themselves, normed twice, attended, twice as wide twice
GRID_BYTES = 3 * 8 * 4  # where the cells of three maps lie in windows, plain and shifted
HEAD_COPIES = 3  # of the widest map at 4h × 4w: before and after it is shuffled, and convolved
OUTPUT = 3 * SCALE**2  # an enlarged frame
# What allocators keep of freed blocks instead of giving it back: a share, up to a limit in bytes.
RETAINED_SHARE, RETAINED_LIMIT = 0.9, 250_000_000


def estimate_memory(
    config: IARTConfig,
    frames: int,
    height: int,
    width: int,
    precision: str = "float32",
    device: str = "cpu",
) -> int:
    """Peak memory in bytes that one window takes of the system, to plan with.

    What is in use, and what allocators keep of freed blocks besides: good to ±30%, as that depends
    on the order in which blocks come and go. Weights and what the process holds are not included.

    Args:
        config: of the network.
        frames: of the window.
        height: in pixels, of the picture that the network sees.
        width: in pixels, of the picture that the network sees.
        precision: one of `PRECISIONS`.
        device: its type: the CPU computes in smaller pieces than others.
    """
    return _with_retained(memory_in_use(config, frames, height, width, precision, device))


def memory_in_use(
    config: IARTConfig,
    frames: int,
    height: int,
    width: int,
    precision: str = "float32",
    device: str = "cpu",
) -> int:
    """Peak memory in bytes of the network on one window, its input and output included.

    That is the largest of three steps (flow, fusion, head) plus what outlives them: good to ±10%.
    See `estimate_memory` for arguments and for what it takes of the system.
    """
    pixels = height * width
    pairs = min(frames - 1, max(1, flow.PIXELS_AT_ONCE // pixels))
    features = pixels * PRECISIONS[precision].itemsize * config.channels * frames
    outputs = pixels * 4 * OUTPUT * frames
    another = 4 * pixels * OUTPUT if frames > 1 else 0  # beside the frames that are done
    return _clip_bytes(frames, pixels) + max(
        _flow_bytes(config, pairs, height, width),
        features + _fuse_bytes(config, height, width, precision, device),
        features + _head_bytes(config, height, width, precision, device) + outputs + another,
    )


def estimate_tiled_memory(
    config: IARTConfig,
    frames: int,
    height: int,
    width: int,
    tile: int,
    flow_tile: int,
    precision: str = "float32",
    device: str = "cpu",
) -> tuple[int, int]:
    """Peak memory in bytes where every step of the network sees one tile after another.

    On the CPU the head sees whole pictures all the same.

    Args:
        config: of the network.
        frames: of the window.
        height: in pixels, of the whole picture.
        width: in pixels, of the whole picture.
        tile: side in pixels.
        flow_tile: side in pixels of the pieces that flow is computed in.
        precision: one of `PRECISIONS`.
        device: its type.

    Returns:
        Of the network on one tile; and of what is held of the whole picture meanwhile, input and
        output included, where the clip lies.
    """
    h, w = min(height, tile), min(width, tile)
    flow_sides = min(height, flow_tile), min(width, flow_tile)
    head_sides = (height, width) if device == "cpu" else (h, w)  # there it computes in stripes
    network = max(
        _flow_bytes(config, 1, *flow_sides),
        _fuse_bytes(config, h, w, precision, device),
        _head_bytes(config, *head_sides, precision, device) + 4 * OUTPUT * h * w,
    )
    pixels, feature = height * width, PRECISIONS[precision].itemsize * config.channels
    # While a row of tiles is joined it is there twice: a map, or an enlarged frame.
    features = feature * pixels * frames
    held = _clip_bytes(frames, pixels) + max(
        features + feature * (pixels + h * width),
        features + 4 * OUTPUT * (pixels * (frames + 1) + h * width),
    )
    return _with_retained(network), held


def state_bytes(config: IARTConfig, pixels: int, precision: str = "float32") -> int:
    """Bytes of what is carried from window to window, besides the features of a window.

    Two maps of each forward branch from the window before; and those of this window, but for the
    last branch, whose maps are its features.
    """
    forward = config.branches // 2
    maps = 4 * forward - 2 if forward else 0
    return maps * pixels * PRECISIONS[precision].itemsize * config.channels


def _clip_bytes(frames: int, pixels: int) -> int:
    """Frames and the flows between them, both ways."""
    return 4 * pixels * (3 * frames + 2 * 2 * (frames - 1))


def _flow_bytes(config: IARTConfig, pairs: int, height: int, width: int) -> int:
    pyramid = 2 ** (config.flow_levels - 1)
    sides = (max(_round_up(side, pyramid), 2 * pyramid) for side in (height, width))
    widest = max(a + PAIR_COPIES * b for a, b in pairwise((8, *config.flow_channels, 2)))
    return 4 * pairs * (PAIR_FRAMES + widest) * prod(sides)


def _fuse_bytes(config: IARTConfig, height: int, width: int, precision: str, device: str) -> int:
    """Three maps and what becomes of them; besides, windows in hand or a group's convolution."""
    _, window_h, window_w = config.window
    k = 3 * window_h * window_w
    pixels = height * width
    cells = all_cells = 3 * _round_up(height, window_h) * _round_up(width, window_w)
    if device == "cpu":
        cells = min(cells, max(k, fuse.CELLS_AT_ONCE // k * k))
    feature = PRECISIONS[precision].itemsize * config.channels
    before = min(cells, all_cells - cells)  # cells of the windows that were in hand before
    besides = max(
        BLOCK_COPIES * cells + before, GROUP_MAPS * pixels if len(config.depths) > 1 else 0
    )
    # Plain and shifted blocks alternate; a shifted one has a bias for each of 4 kinds of windows.
    heads = sum(d * n for d, n in zip(config.depths, config.heads, strict=True))
    biases = 2 * k * k * heads * (1 + 4)
    return feature * (FUSE_MAPS * pixels + besides) + GRID_BYTES * pixels + biases


def _head_bytes(config: IARTConfig, height: int, width: int, precision: str, device: str) -> int:
    row, rows = SCALE**2 * width * config.head_channels, height
    if device == "cpu":
        rows = min(height, max(upsample.SHORTEST_STRIPE, upsample.NUMBERS_AT_ONCE // row))
    copies = HEAD_COPIES + (rows < height)  # rows of a stripe are joined to those above
    return PRECISIONS[precision].itemsize * copies * rows * row


def _with_retained(live: int) -> int:
    return round(live + min(RETAINED_SHARE * live, RETAINED_LIMIT))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
