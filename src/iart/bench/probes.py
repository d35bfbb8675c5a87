"""Time and memory of the stages of a pass, and of the process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from iart.model import IART
from iart.runtime import peak_memory as peak_of_process

STAGES: tuple[str, ...] = ("flow", "align", "fuse", "upsample")
CLEAR_REFS = Path("/proc/self/clear_refs")
"""Of Linux: where a process resets its peak."""


class StageTimes:
    """Seconds of each stage; on a GPU by its own clock, so that nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []

    def before(self) -> None:
        """A stage begins."""
        self._started = self._mark()

    def after(self, stage: str) -> None:
        """The stage that began last has ended."""
        self._spans.append((stage, self._started, self._mark()))

    def seconds(self) -> dict[str, float]:
        """Of all calls of each stage."""
        sums = dict.fromkeys(STAGES, 0.0)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for stage, start, end in self._spans:
            if isinstance(start, torch.cuda.Event):
                assert isinstance(end, torch.cuda.Event)
                sums[stage] += start.elapsed_time(end) / 1e3
            else:
                assert not isinstance(end, torch.cuda.Event)
                sums[stage] += end - start
        return sums

    def _mark(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class StagePeaks:
    """Most bytes held during any call of each stage."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = dict.fromkeys(STAGES, 0)

    def before(self) -> None:
        """A stage begins."""
        reset_peak_memory(self._device)

    def after(self, stage: str) -> None:
        """The stage that began last has ended."""
        self.bytes[stage] = max(self.bytes[stage], peak_memory(self._device))


@contextmanager
def watched(model: IART, probe: StageTimes | StagePeaks) -> Iterator[None]:
    """In the block, the probe is told of every stage that the model goes through."""
    parts: list[tuple[str, nn.Module]] = [
        ("flow", model.flow),
        ("align", model.align),
        ("upsample", model.extract),
        ("upsample", model.head),
        *(("fuse", branch) for branch in model.branches.values()),
    ]
    handles = []
    for name, module in parts:

        def before(_module: nn.Module, _inputs: tuple[object, ...]) -> None:
            probe.before()

        def after(
            _module: nn.Module, _inputs: tuple[object, ...], _output: Tensor, name: str = name
        ) -> None:
            probe.after(name)

        handles += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def now(device: torch.device) -> float:
    """Seconds, after all that the device has to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> bool:
    """Let `peak_memory` count from now; false where the system cannot.

    CUDA can, and Linux but for sandboxes that lack a part of /proc.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int:
    """Most bytes held since `reset_peak_memory`: on the CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_of_process()
