"""CUDA graphs: what a function asks a GPU for, recorded once and then asked for again at once.

A GPU that is given small operations one by one waits for the processor. A graph gives it all of
them together, at the addresses that they had: its inputs are overwritten before a replay, and its
results after.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


class Recorder:
    """Records functions as CUDA graphs of one device.

    They share the memory of what they compute on the way, so that no two of them may run at once.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is asked of the device before `record`."""
        self._device = device
        self._pool = self._stream = None

    def record(self, function: Callable[[], _Result]) -> tuple[Callable[[], None], _Result]:
        """Record what a function asks the device for, without computing it.

        All that it needs once (compiled kernels, states of an optimiser) must be there before: let
        it run first. While it is recorded, it must not wait for the device, nor take from it the
        size of a tensor.

        Returns:
            What computes it, on the current stream; and what the function gave: tensors that hold
            the results after that, as long as somebody holds them.

        Raises:
            RuntimeError: the device is no GPU, lacks the memory, or was asked for what cannot be
                recorded.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            pool = self._pool or torch.cuda.graph_pool_handle()
            stream = torch.cuda.current_stream()
            if stream == torch.cuda.default_stream():  # which cannot be recorded
                self._stream = stream = self._stream or torch.cuda.Stream()
            try:
                # The outer block leaves the stream where a recording that failed does not. Other
                # threads may ask for what they like: they read and write pictures meanwhile.
                with (
                    torch.cuda.stream(stream),
                    torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"),
                ):
                    result = function()
            except Exception:
                # PyTorch before 2.12 did not end a recording that failed (pytorch/pytorch#180395),
                # and freed nothing from then on.
                with suppress(Exception):
                    index = torch.cuda.current_device()
                    torch._C._cuda_endAllocateToPool(index, pool)
                raise
        self._pool = pool
        return graph.replay, result
