"""How much of a film the network is shown at once: planned from the memory that is free."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from iart.device import free_memory
from iart.errors import DeviceError
from iart.model import IART, IARTConfig
from iart.model.memory import estimate_memory, estimate_tiled_memory, state_bytes
from iart.model.upsample import SCALE
from iart.upscaling.tiles import TILE_OVERLAP, plan_tiles
from iart.upscaling.windows import WINDOW, check_windows, usual_overlap

_log = logging.getLogger(__name__)

TileOption = int | Literal["auto", "whole"] | None
"""What a caller may ask for: a side in pixels; "auto"; "whole" for whole pictures, in shorter
windows where the memory is short; or None for whole pictures at any price."""

SAFE_SHARE = 0.75
"""Of the free memory is planned with: the estimate is good to ±30 %."""
SMALLEST_TILE = 4 * TILE_OVERLAP
"""Smaller ones would do most of the work twice."""
SHORTEST_WINDOW = 4
FLOW_TILES = 4
"""Side of the pieces that flow is computed in, in tiles: there a pixel takes far less memory."""

FRAME, ENLARGED = 4 * 3, 4 * 3 * SCALE**2
"""Bytes per low-resolution pixel of a picture in float32."""
WAITING_FRAMES, WAITING_ENLARGED, ENCODER_PICTURES = 8, 7, 60
"""Pictures on their way to and from the network, and those that an encoder holds back."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """What the network is shown at once. The result depends on it, a little.

    Attributes:
        window: frames.
        overlap: frames of context at either end of a window; None for 3, or what a window of fewer
            than 7 frames allows.
        tile: side of square tiles in pixels, at most; pictures no larger than that are shown whole.
            None shows whole pictures, and gives up where the memory does not suffice.
        smallest: side in pixels below which tiles do not shrink.
    """

    window: int
    overlap: int
    tile: int | None
    smallest: int = SMALLEST_TILE

    def is_whole(self, height: int, width: int) -> bool:
        """Whether pictures of this size are shown whole."""
        return self.tile is None or self.tile >= max(height, width)

    def describe(self, height: int, width: int) -> str:
        """In words, for pictures of this size."""
        is_whole = self.is_whole(height, width)
        tiles = "whole pictures" if is_whole else f"tiles of {self.tile} pixels"
        return f"{tiles}, {self.window} frames at once"

    def smaller(self, frames: int, height: int, width: int) -> "Tiling | None":
        """What takes less memory for so many frames of this size; None if nothing does."""
        if self.tile is None:
            return None
        tile = min(self.tile, max(height, width))
        if tile > self.smallest:
            return replace(self, tile=max(self.smallest, tile // 2))
        window = min(self.window, frames)
        if window > SHORTEST_WINDOW:
            return _with_window(self, max(SHORTEST_WINDOW, window // 2))
        return None


def plan_tiling(
    model: nn.Module,
    height: int,
    width: int,
    *,
    window: int = WINDOW,
    overlap: int | None = None,
    tile: TileOption = "auto",
    frames: int | None = None,
    beside: int = 0,
    beside_network: int = 0,
    share: float = 1.0,
    at_most: int | None = None,
) -> Tiling:
    """Decide what the network is shown at once, if that is left to us.

    The first that fits into free memory of: whole pictures and the asked window, tiles as large as
    can be, shorter windows. Says so (INFO), if it is not the first.

    Args:
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        window: frames at once, at most.
        overlap: frames of context at either end of a window; None for 3, or what a window of fewer
            than 7 frames allows.
        tile: side in pixels, or None for whole pictures: nothing is left to us; or "auto", or
            "whole": see `TileOption`.
        frames: of the clip, if it is short.
        beside: bytes that will be taken besides, where the clip lies: see `film_bytes`.
        beside_network: bytes that will be taken where the model runs, if that is a GPU.
        share: of the free memory that falls to this process.
        at_most: bytes that may be taken where the model runs, however many are free.

    Raises:
        OptionsError: the window keeps no frame, or the tile is too small.
        DeviceError: nothing fits; says how much would be needed.
    """
    overlap = usual_overlap(window) if overlap is None else overlap
    check_windows(window, overlap)
    side = max(height, width)
    if tile == "auto":
        asked = Tiling(window, overlap, side)
    elif tile == "whole":
        asked = Tiling(window, overlap, side, smallest=side)
    else:
        asked = Tiling(window, overlap, tile)
        if tile is not None:
            for length in (height, width):
                plan_tiles(length, tile, tile_multiple(model))
        return asked
    device, cpu = device_of(model), torch.device("cpu")
    rooms = {
        place: None if free is None else round(SAFE_SHARE * share * free)
        for place in {device, cpu}
        for free in [free_memory(place)]
    }

    if at_most is not None:
        room = rooms[device]
        rooms[device] = min(round(SAFE_SHARE * at_most), at_most if room is None else room)

    def needed(tiling: Tiling) -> dict[torch.device, int]:
        at_once = tiling.window if frames is None else min(tiling.window, frames)
        at_once *= getattr(model, "passes", 1)
        network, held = _bytes(model, tiling, at_once, height, width)
        held += beside
        if device == cpu:
            return {cpu: network + held}
        frames_there = FRAME * height * width * (at_once + 1)
        return {device: network + frames_there + beside_network, cpu: held}

    def fits(tiling: Tiling) -> bool:
        return all(
            room is None or size <= room
            for place, size in needed(tiling).items()
            for room in [rooms[place]]
        )

    tiling = asked
    for tiling in _candidates(asked, tile_multiple(model)):
        if fits(tiling):
            break
    else:
        lacking = _lacking(needed(tiling), rooms)
        raise DeviceError(
            f"{width}x{height} is too large: {lacking}, even in "
            f"{tiling.describe(height, width)}. Free some memory, choose another --device, or "
            f"pass --tile {tiling.tile} --window {tiling.window} to try it"
        )
    if tiling != asked:
        lacking = _lacking(needed(asked), rooms)
        planned = tiling.describe(height, width)
        _log.info("%dx%d in %s: otherwise %s", width, height, planned, lacking)
    return tiling


def film_bytes(height: int, width: int) -> int:
    """What is taken beside the network while a film is read, enlarged and encoded at once."""
    waiting = waiting_bytes(height, width)
    return waiting + height * width * (ENCODER_PICTURES * SCALE**2 * 3 // 2)


def waiting_bytes(height: int, width: int) -> int:
    """Of that, pictures on their way to and from the network, which lie where it runs."""
    return height * width * (WAITING_FRAMES * FRAME + WAITING_ENLARGED * ENLARGED)


def tile_multiple(model: nn.Module) -> int:
    """Of what tiles start on a multiple: twice the attention window."""
    return 2 * max(model.config.window[1:]) if isinstance(model, IART) else 1


def device_of(model: nn.Module) -> torch.device:
    """Where a model runs."""
    return next(model.parameters(), torch.empty(0)).device


def network_bytes(model: nn.Module, tiling: Tiling, height: int, width: int) -> int:
    """Peak memory of the network and of what is held for it, where both share the memory."""
    return sum(_bytes(model, tiling, tiling.window, height, width))


def _bytes(
    model: nn.Module, tiling: Tiling, window: int, height: int, width: int
) -> tuple[int, int]:
    """Where the network runs, and where the clip lies."""
    pixels, side = height * width, max(height, width)
    tile = side if tiling.tile is None else min(side, tiling.tile)
    frames = FRAME * pixels * (window + 1)  # kept to be windows' context
    config = getattr(model, "config", None)
    if not isinstance(config, IARTConfig):
        # One that copies its output twice, as interpolation does.
        piece = min(height, tile) * min(width, tile)
        return 3 * ENLARGED * window * piece, frames + ENLARGED * window * pixels
    device, precision = device_of(model).type, getattr(model, "precision", "float32")
    state = state_bytes(config, pixels, precision)
    if tile < side:
        network, held = estimate_tiled_memory(
            config, window, height, width, tile, FLOW_TILES * tile, precision, device
        )
        return network, held + frames + state
    network = estimate_memory(config, window, height, width, precision, device) + state
    return network, frames + (0 if device == "cpu" else ENLARGED * window * pixels)


def _candidates(asked: Tiling, multiple: int) -> Iterator[Tiling]:
    """From the largest to the smallest."""
    assert asked.tile is not None
    yield asked
    windows = [asked.window]
    while windows[-1] > SHORTEST_WINDOW:
        windows.append(max(SHORTEST_WINDOW, windows[-1] // 2))
    step = -(-TILE_OVERLAP // multiple) * multiple
    for window in windows:
        largest = asked.tile // step * step
        tiles = [asked.tile, *range(largest, asked.smallest - 1, -step)]
        for tile in tiles:
            yield _with_window(replace(asked, tile=tile), window)


def _with_window(tiling: Tiling, window: int) -> Tiling:
    """Shorter windows have less context, so that they keep half of their frames."""
    if window >= tiling.window:
        return tiling
    return replace(tiling, window=window, overlap=min(tiling.overlap, window // 4))


def _lacking(needed: dict[torch.device, int], rooms: dict[torch.device, int | None]) -> str:
    """Where the memory does not suffice."""
    return " and ".join(
        f"{place} would need {size / 1e9:.1f} GB of memory and has {room / 1e9:.1f} GB to spare"
        for place, size in needed.items()
        for room in [rooms[place]]
        if room is not None and size > room
    )
