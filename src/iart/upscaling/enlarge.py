"""One window of frames → the same frames four times larger, in pieces that fit into memory.

In tiles, the network still goes through time with the whole picture: every step of it, one frame of
one branch, is done tile after tile before the next. So each step finds features of the step before
it that lie in other tiles, and what a tile does not know about its surroundings cannot add up over
time. Flow is computed once, on the whole picture.
"""

import logging
from collections.abc import Callable, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.device import release_memory, wider_precision
from iart.errors import DeviceError
from iart.model import IART
from iart.model.flow import Flows, neighbour_flows
from iart.model.iart import with_last
from iart.upscaling.budget import FLOW_TILES, Tiling, network_bytes, tile_multiple
from iart.upscaling.graphs import WindowGraphs
from iart.upscaling.tiles import TILE_OVERLAP, make_in_tiles
from iart.upscaling.windows import Begins, plan_windows

_log = logging.getLogger(__name__)

FLOW_OVERLAP = 128
"""Pixels that neighbouring pieces of flow share."""

_State = Mapping[str, Tensor]
NO_STATE: _State = MappingProxyType({})

OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "ALLOC_FAILED",  # of cuBLAS and cuDNN
    "could not create a primitive",  # of oneDNN, which has no other reason where others succeed
    "could not execute a primitive",
)


class Enlarger:
    """Shows a model one window after another.

    Attributes:
        model: enlarges `b t 3 h w`.
        is_carried: whether it has a state that is carried from window to window.
        tiling: what the model is shown at once; becomes smaller where memory runs out, and stays.
        tile_overlap: pixels that neighbouring tiles share.
    """

    def __init__(
        self, model: nn.Module, tiling: Tiling, *, tile_overlap: int = TILE_OVERLAP
    ) -> None:
        self.model, self.tiling, self.tile_overlap = model, tiling, tile_overlap
        self.is_carried = isinstance(model, IART)
        self._wider: nn.Module | None = None
        self._graphs = WindowGraphs()

    def enlarge(
        self, clip: Float[Tensor, "t 3 h w"], kept: slice, state: Mapping[str, Tensor] = NO_STATE
    ) -> tuple[Float[Tensor, "kept 3 4*h 4*w"], Mapping[str, Tensor]]:
        """The kept frames of a window, on the device of the clip; and the state after them.

        Args:
            clip: the window.
            kept: its frames that are wanted.
            state: after the frame before the window; empty if the model shall not know of it.

        Raises:
            DeviceError: the memory does not suffice, however small the pieces.
        """
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                while True:
                    try:
                        return self._windows(clip, kept, state)
                    except (RuntimeError, MemoryError) as error:
                        if not _is_out_of_memory(error):
                            raise
                        if not self._graphs.drop():
                            self._shrink(clip, error)
                    # Here the error has let go of the memory.
                    release_memory(self._like(clip).device)
        finally:
            if training:
                self.model.train()

    def _like(self, clip: Tensor) -> Tensor:
        return next(self.model.parameters(), clip)

    def _shrink(self, clip: Tensor, error: Exception) -> None:
        t, _, h, w = clip.shape
        device = self._like(clip).device
        smaller = self.tiling.smaller(t, h, w)
        if smaller is None:
            advice = "a smaller --window or --tile auto"
            if self.tiling.tile is not None:
                advice = "a smaller --window or another --device"
            raise DeviceError(
                f"{device} has too little memory for {t} frames of {w}x{h} in "
                f"{self.tiling.describe(h, w)}. Pass {advice}"
            ) from error
        self.tiling = smaller
        _log.warning("%s has run out of memory; from here on %s", device, smaller.describe(h, w))

    def _windows(self, clip: Tensor, kept: slice, state: _State) -> tuple[Tensor, _State]:
        """Shorter windows where this one has become too long.

        Pictures that the network is shown in tiles lie on the CPU meanwhile, those made as well.
        """
        if not self.tiling.is_whole(*clip.shape[-2:]):
            clip = clip.cpu()
        if len(clip) <= self.tiling.window:
            large, state = self._window(clip, kept, state)
            return (large.clamp_(0, 1) if self.is_carried else large.clamp(0, 1)), state
        first, end, _ = kept.indices(len(clip))
        large = clip.new_empty(end, 3, *(4 * side for side in clip.shape[-2:]))
        for part in plan_windows(
            repeat(Begins.NOTHING, len(clip)),
            self.tiling.window,
            self.tiling.overlap,
            carried=self.is_carried,
        ):
            stop = min(part.keep_stop, end)
            if part.keep_start < stop:
                large[part.keep_start : stop], state = self._window(
                    clip[part.start : part.stop],
                    slice(part.keep_start - part.start, stop - part.start),
                    state,
                )
        return large[first:].clamp_(0, 1), state

    def _window(self, clip: Tensor, kept: slice, state: _State) -> tuple[Tensor, _State]:
        """Not clamped; in a wider precision where float16, chosen by "auto", cannot hold a value.

        The state tells that an earlier window of a chain was such a one: so a run that goes on with
        it computes what an uninterrupted one does.
        """
        if not getattr(self.model, "widens", False):
            return self._computed(self.model, clip, kept, state)
        maps = (x for name, x in state.items() if name.endswith("_back"))
        if all(x.dtype == torch.float16 for x in maps):
            large, after = self._computed(self.model, clip, kept, state)
            if torch.stack([frame.isfinite().all() for frame in large]).all():
                return large, after
            del large, after
        name = wider_precision(self._like(clip).device)
        if self._wider is None:
            _log.warning(
                "precision auto: values that float16 cannot hold; the frames that have them are"
                " computed in %s",
                name,
            )
            self._wider = cast("IART", self.model).in_precision(name)
        return self._computed(self._wider, clip, kept, state)

    def _computed(
        self, model: nn.Module, clip: Tensor, kept: slice, state: _State
    ) -> tuple[Tensor, _State]:
        like, tile = self._like(clip), self.tiling.tile
        height, width = clip.shape[-2:]
        if isinstance(model, IART):
            is_whole = self.tiling.is_whole(height, width)
            frames = clip[None].to(like if is_whole else like.dtype)
            state = {name: x.to(frames.device) for name, x in state.items()}
            if is_whole:
                needed = network_bytes(model, self.tiling, height, width)
                large, state = self._graphs.advance(model, frames, state, kept, needed)
            else:
                assert tile is not None
                flows = _flows(model, with_last(state, frames), FLOW_TILES * tile)
                tiles = _Tiles(model, clip, tile, self.tile_overlap)
                large, state = model.advance(frames, state, flows=flows, kept=kept, apply=tiles)
            return large[0].to(clip), state

        def make(ys: slice, xs: slice) -> Tensor:
            return model(clip[None, ..., ys, xs].to(like))[0, kept].to(clip)

        side = tile or max(height, width)
        return make_in_tiles(height, width, make, side, overlap=self.tile_overlap), NO_STATE


class _Tiles:
    """Calls a part of the network for one tile after another; see `iart.model.propagate.Apply`."""

    def __init__(self, model: IART, clip: Tensor, tile: int, overlap: int) -> None:
        self._model, self._tile, self._overlap = model, tile, overlap
        self._height, self._width = clip.shape[-2:]
        self._home, self._device = clip.device, model.flow.mean.device

    def __call__(self, part: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        if part is self._model.head and self._device.type == "cpu":
            return part(*inputs)  # goes down the picture in stripes, which take no more

        def make(ys: slice, xs: slice) -> Tensor:
            cut = (None if x is None else self._cut(x, ys, xs).to(self._device) for x in inputs)
            return part(*cut).to(self._home)

        return make_in_tiles(
            self._height,
            self._width,
            make,
            self._tile,
            multiple=tile_multiple(self._model),
            overlap=self._overlap,
            axes=(-2, -1) if part is self._model.head else (1, 2),
        )

    def _cut(self, x: Tensor, ys: slice, xs: slice) -> Tensor:
        is_map = x.shape[1] not in (2, 3) or x.shape[2:] != (self._height, self._width)
        return x[:, ys, xs] if is_map else x[..., ys, xs]


def _flows(model: IART, frames: Float[Tensor, "1 t 3 h w"], side: int) -> Flows:
    """Flows of the whole picture, where the frames lie; in pieces if it is larger than `side`."""
    _, t, _, h, w = frames.shape
    device = model.flow.mean.device
    flows = frames.new_empty(2, 1, t - 1, 2, h, w)
    for i in range(t - 1):
        pair = frames[:, i : i + 2]

        def make(ys: slice, xs: slice, pair: Tensor = pair) -> Tensor:
            both = neighbour_flows(model.flow, pair[..., ys, xs].to(device))
            return torch.stack(both).to(frames)[:, :, 0]

        multiple = 2 ** (model.config.flow_levels - 1)
        flows[:, :, i] = make_in_tiles(h, w, make, side, multiple=multiple, overlap=FLOW_OVERLAP)
    backward, forward = flows.unbind(0)
    return backward, forward


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class of its own for some allocators only; libraries have their own words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)
