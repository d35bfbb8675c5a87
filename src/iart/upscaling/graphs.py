"""A window's pass through the network as a CUDA graph, from the second window of a kind on."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from iart.device import free_memory, release_memory
from iart.errors import first_line
from iart.graphs import Recorder
from iart.model import IART

_log = logging.getLogger(__name__)

KEPT = 2
"""Graphs at once: most windows of a film are either the first of a scene or one that follows."""
ROOM = 3
"""How many times what a pass takes must be free for a graph: it holds the memory of one pass and
the results of another, and windows of other kinds are computed beside it."""


@dataclass(frozen=True)
class _Graph:
    frames: Tensor
    state: Mapping[str, Tensor]
    replay: Callable[[], None]
    large: Tensor
    after: Mapping[str, Tensor]


class WindowGraphs:
    """Calls `IART.advance`, on a GPU by CUDA graphs; the results are the same.

    The first window of a kind is computed as ever, since kernels are compiled and chosen then.
    Models do not know of the graphs: these lie here, and go when memory is short.
    """

    def __init__(self) -> None:
        """Nothing is recorded yet."""
        self._seen: Counter[Hashable] = Counter()
        self._kept: dict[Hashable, _Graph] = {}
        self._recorder: Recorder | None = None
        self._is_off = False

    @property
    def count(self) -> int:
        """Graphs that are kept."""
        return len(self._kept)

    def advance(
        self,
        model: IART,
        frames: Float[Tensor, "b t 3 h w"],
        state: Mapping[str, Tensor],
        kept: slice,
        needed: int,
    ) -> tuple[Float[Tensor, "b kept 3 4*h 4*w"], Mapping[str, Tensor]]:
        """See `IART.advance`; no gradient.

        Args:
            model: on the device of the frames.
            frames: of the window.
            state: what is known of the frames before.
            kept: frames to give.
            needed: bytes that such a pass takes.
        """
        device, graph = frames.device, None
        if self._suits(model, device):
            key = _kind(model, frames, state, kept)
            self._seen[key] += 1
            graph = self._kept.get(key)
            if graph is None and self._seen[key] > 1:
                graph = self._record(key, model, frames, state, kept, needed)
        if graph is None:
            return model.advance(frames, state, kept=kept)
        graph.frames.copy_(frames)
        for name, x in state.items():
            graph.state[name].copy_(x)
        graph.replay()
        return graph.large.clone(), {name: x.clone() for name, x in graph.after.items()}

    def drop(self) -> bool:
        """Let go of all graphs, and record no more; returns whether there were some."""
        had = bool(self._kept)
        self._kept, self._recorder, self._is_off = {}, None, self._is_off or had
        return had

    def _suits(self, model: IART, device: torch.device) -> bool:
        if self._is_off or not model.graphs or device.type != "cuda":
            return False
        # What the caller's autocast casts it keeps, at addresses of its own.
        return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"))

    def _record(
        self,
        key: Hashable,
        model: IART,
        frames: Tensor,
        state: Mapping[str, Tensor],
        kept: slice,
        needed: int,
    ) -> _Graph | None:
        """None if there is no room, or what failed is said and not tried again."""
        free = free_memory(frames.device)  # with what graphs share, and do not use now
        if free is not None and free < ROOM * needed:
            if not self._kept:
                self._turn_off(
                    frames.device, f"{ROOM * needed / 1e9:.1f} GB would have to be free for them"
                )
            return None
        if len(self._kept) == KEPT:
            rarest = min(self._kept, key=lambda known: self._seen[known])
            if self._seen[rarest] >= self._seen[key]:
                return None
            del self._kept[rarest]
        # Inputs outside of the memory that graphs share: a replay of another one leaves them.
        frames, state = frames.clone(), {name: x.clone() for name, x in state.items()}
        self._recorder = self._recorder or Recorder(frames.device)
        try:
            expected = model.advance(frames, state, kept=kept)
            replay, made = self._recorder.record(lambda: model.advance(frames, state, kept=kept))
            replay()
            if not _are_equal(made, expected):
                raise RuntimeError("a replay gives other numbers")
        except Exception as error:  # noqa: BLE001  # of PyTorch, Triton, a driver: any class
            reason = first_line(error)
        else:
            self._kept[key] = graph = _Graph(frames, state, replay, *made)
            return graph
        expected = made = replay = None  # as the error has, these let go of the memory
        self.drop()
        release_memory(frames.device)
        self._turn_off(frames.device, reason)
        return None

    def _turn_off(self, device: torch.device, reason: str) -> None:
        self._is_off = True
        _log.info("windows are computed without CUDA graphs on %s: %s", device, reason)


def _kind(
    model: IART, frames: Tensor, state: Mapping[str, Tensor], kept: slice
) -> tuple[Hashable, ...]:
    """What a graph holds for: shapes, and the numbers and addresses that are recorded with it."""
    shapes = tuple((name, x.shape, x.dtype) for name, x in (("", frames), *state.items()))
    weights = tuple(x.data_ptr() for x in chain(model.parameters(), model.buffers()))
    how = model.precision, model.backend, range(frames.shape[1])[kept]
    return (frames.device, *shapes, *how, weights)


def _are_equal(
    a: tuple[Tensor, Mapping[str, Tensor]], b: tuple[Tensor, Mapping[str, Tensor]]
) -> bool:
    """Bit for bit but for what is no number, as an upscale that goes on must be."""
    pairs = ((a[0], b[0]), *((x, b[1][name]) for name, x in a[1].items()))
    return all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)
