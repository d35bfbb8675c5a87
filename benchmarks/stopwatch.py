"""Seconds in functions of the package while it runs, by stage; a GPU's own seconds too."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from threading import Lock
from typing import Any

import torch

from iart.bench.measure import now


class Stopwatch:
    """Seconds in functions that are called in several threads, by stage.

    What is only asked of a GPU takes no time here: its own seconds are those between events in the
    stream of the thread.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device, self._lock = device, Lock()
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        started, before = time.perf_counter(), self._event()
        try:
            yield
        finally:
            after = self._event()
            with self._lock:
                self.seconds[name] += time.perf_counter() - started
                if before is not None and after is not None:
                    self._events.append((name, before, after))

    def on_device(self) -> dict[str, float]:
        """The GPU's own seconds, by stage; none on the CPU."""
        now(self._device)
        sums: defaultdict[str, float] = defaultdict(float)
        for name, before, after in self._events:
            sums[name] += before.elapsed_time(after) / 1e3
        return sums

    @contextlib.contextmanager
    def watching(self, owner: Any, function: str, name: str) -> Iterator[None]:
        """In the block, time a function of a class or module."""
        original = getattr(owner, function)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return original(*args, **kwargs)

        setattr(owner, function, timed)
        try:
            yield
        finally:
            setattr(owner, function, original)

    @contextlib.contextmanager
    def watching_items(self, owner: Any, function: str, name: str) -> Iterator[None]:
        """In the block, time what a function iterates over."""
        original = getattr(owner, function)

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = iter(original(*args, **kwargs))
            while True:
                with self.stage(name):
                    item = next(items, items)
                if item is items:
                    return
                yield item

        setattr(owner, function, timed)
        try:
            yield
        finally:
            setattr(owner, function, original)

    def _event(self) -> "torch.cuda.Event | None":
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
