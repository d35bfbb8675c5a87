"""What a training step costs: measured on the device if it is a GPU, else scaled from small steps.

A CPU takes minutes for a step of the published recipes, so short clips of small crops are learnt
from instead. Time and memory are a sum of what does not grow, what grows with the frames T, what
grows with the pixels P of a crop, and what grows with both: a + b T + c P + d T P.
"""

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iart.device import autocast
from iart.errors import DeviceError
from iart.model import IART
from iart.train.draws import depth_draws
from iart.train.loss import Objective
from iart.train.options import Options

# Frames of the clips that are learnt from, and side of the larger crops in low resolution; it is
# doubled while a step takes less than so many seconds.
SHORT, LONG = 3, 4
LARGE = 16
QUICK_SECONDS = 0.5
# Copies of the weights: themselves, gradient, two averages of Adam, running average.
COPIES = 5


@dataclass(frozen=True)
class StepCost:
    """One step of the optimiser on one device, without reading its samples.

    Attributes:
        seconds: it takes.
        memory: in bytes, at most.
        measured: whether it is a step of this size that was measured; otherwise scaled.
    """

    seconds: float
    memory: int
    measured: bool


def step_cost(
    options: Options, device: torch.device, precision: torch.dtype, frames: int, side: int
) -> StepCost:
    """Measure what a step costs.

    Args:
        options: of a run; no file that they name is read but those of the losses.
        device: to compute on.
        precision: that features are computed in.
        frames: of a sample.
        side: of its crop, in pixels of low resolution.

    Raises:
        DeviceError: a step does not fit into the GPU's memory.
        OptionsError: a loss needs a file that cannot be used.
    """
    torch.manual_seed(options.manual_seed)
    model = IART(options.network_g.config()).to(device).train()
    objective = Objective(options.train, device)
    batch = options.datasets.train.batch_size_per_gpu
    micro = options.train.gradient_accumulation_steps

    weights = sum(p.numel() * p.element_size() for p in model.parameters())

    def learn(count: int, frames: int, side: int) -> None:
        draws = depth_draws(model.config, 0, range(count), frames)
        low = torch.rand(count, frames, 3, side, side, device=device)
        with autocast(device, precision):
            output = model(
                low,
                None if draws is None else draws.to(device),
                recompute=options.network_g.use_checkpoint,
            )
        objective(output, torch.rand_like(output, dtype=torch.float32)).backward()
        model.zero_grad(set_to_none=True)

    if device.type == "cuda":
        try:
            learn(batch, frames, side)  # warms up
            torch.cuda.reset_peak_memory_stats(device)
            seconds = _seconds(lambda: learn(batch, frames, side), device)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{batch} clips of {frames} frames of {side}×{side} do not fit into the memory of "
                f"{device}. Lower gt_size or num_frame, or set network_g.use_checkpoint=true"
            ) from error
        # Weights and gradient are there.
        memory = torch.cuda.max_memory_allocated(device) + (COPIES - 2) * weights
        return StepCost(seconds * micro, memory, measured=True)

    pixels = batch * side**2
    tensors = _extended(lambda *size: _peak(partial(learn, 1, *size)), LARGE, frames, pixels)
    seconds_of = cache(lambda *size: _seconds(partial(learn, 1, *size), device))
    large = LARGE
    while 2 * large <= side and seconds_of(LONG, large) < QUICK_SECONDS:
        large *= 2
    seconds = _extended(seconds_of, large, frames, pixels)
    # The gradient is among the tensors.
    memory = round(tensors) + (COPIES - 1) * weights
    return StepCost(seconds * micro, memory, measured=False)


def _extended(measure: Callable[[int, int], float], large: int, frames: int, pixels: int) -> float:
    """The sum a + b T + c P + d T P, by four measurements.

    Args:
        measure: takes frames and side.
        large: side of the larger crops; the smaller ones have half of it.
        frames: T.
        pixels: P.
    """
    short, long = (
        _line(pixels, *((side**2, measure(count, side)) for side in (large // 2, large)))
        for count in (SHORT, LONG)
    )
    return _line(frames, (SHORT, short), (LONG, long))


def _line(x: int, first: tuple[int, float], second: tuple[int, float]) -> float:
    """Where a line through two points is at `x`; taken to be level if it falls."""
    (x0, y0), (x1, y1) = first, second
    return max(y1 + max(y1 - y0, 0) * (x - x1) / (x1 - x0), 0.0)


def _seconds(learn: Callable[[], None], device: torch.device) -> float:
    """Time that a step takes."""
    began = time.monotonic()
    learn()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.monotonic() - began


def _peak(learn: Callable[[], None]) -> float:
    """Bytes that the tensors of a step take at most."""
    with _Memory() as memory:
        learn()
    return float(memory.peak)


class _Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that come to be, from their birth to their end.

    Attributes:
        peak: the most at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what is asked for, and count what is new."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._alive:
            return
        self._alive.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._end, place, size)

    def _end(self, place: int, size: int) -> None:
        self._alive.discard(place)
        self._now -= size
