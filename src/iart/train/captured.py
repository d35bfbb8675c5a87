"""Updates as CUDA graphs: the same operations in two pieces instead of thousands.

The first updates of a kind are made as ever, which compiles kernels and gives the optimiser its
averages. Then the two halves of an update are recorded, each as one graph, and replayed from there
on: batches and learning rates are written to where the graphs read them. Between the halves the
loop looks at the loss, as ever.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from iart.device import own_queue, release_memory, wait_for
from iart.errors import first_line
from iart.graphs import Recorder
from iart.train.options.run import TrainingOptions
from iart.train.state import TrainState
from iart.train.step import Inputs, Learnt, Update

WARM = 3
"""Updates of a kind that are made before one is recorded."""
CLOSE = 0.01
"""How far the first replay may be off the update itself: sums on a GPU have no fixed order."""


def obstacle(
    options: TrainingOptions, state: TrainState, device: torch.device, processes: int
) -> str | None:
    """Why a run's updates cannot be CUDA graphs; "" where nobody expects it, None if they can.

    Args:
        options: of the run.
        state: of the run.
        device: of the network.
        processes: of the run.
    """
    if device.type != "cuda":
        return ""
    if processes > 1:
        return "several processes exchange gradients"
    if options.train.gradient_accumulation_steps > 1:
        return "a step has several micro-batches (gradient_accumulation_steps)"
    if state.adversaries:
        return "discriminators learn besides"
    if state.scaler.is_enabled():
        return "float16 leaves out steps by what it finds (half_precision takes bfloat16)"
    return None


@dataclass(frozen=True)
class _Graphs:
    inputs: Inputs
    learnt: Learnt
    gradients: Callable[[], None]
    move: Callable[[], None]
    held: list[Any]
    """Gradients, whose memory the second graph reads."""


class CapturedUpdate:
    """An `Update` that is replayed as CUDA graphs as soon as it is warm; else made as ever."""

    def __init__(
        self,
        update: Update,
        state: TrainState,
        device: torch.device,
        obstacle: str | None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Nothing is recorded yet.

        Args:
            update: of the run.
            state: of the run, `capturable` if there is no obstacle.
            device: of the network.
            obstacle: why there are to be no graphs, see `obstacle`.
            say: takes lines for the user.
        """
        self._update, self._state, self._device, self._say = update, state, device, say
        self._off = obstacle is not None
        if obstacle:
            say(f"steps are not replayed as CUDA graphs: {obstacle}")
        self._kind: tuple[Any, ...] = ()
        self._made = 0
        self._graphs: _Graphs | None = None

    @property
    def replays(self) -> bool:
        """Whether the last update was a replay."""
        return self._graphs is not None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """In the block, updates can be recorded: that takes a stream of one's own."""
        if self._off:
            yield
            return
        wait_for(self._device)
        with own_queue(self._device):
            yield
            wait_for(self._device)

    def gradients(self, inputs: Inputs, *, first: bool = True, last: bool = True) -> Learnt:
        """See `Update.gradients`; what this gives is overwritten by the next update."""
        if not self._off:
            self._prepare(inputs)
        if self._graphs is None:
            self._made += 1
            return self._update.gradients(inputs, first=first, last=last)
        for target, source in zip(self._graphs.inputs.tensors(), inputs.tensors(), strict=True):
            target.copy_(source)
        self._graphs.gradients()
        return self._graphs.learnt

    def move(self) -> None:
        """See `Update.move`."""
        if self._graphs is None:
            self._update.move()
        else:
            self._graphs.move()

    def leave_out(self) -> None:
        """See `Update.leave_out`."""
        self._update.leave_out()

    def release(self) -> None:
        """Let go of the graphs and their memory; they are recorded anew with the next update."""
        if self._graphs is not None:
            self._graphs = None
            self._state.optimizer.zero_grad(set_to_none=True)
            release_memory(self._device)

    def _prepare(self, inputs: Inputs) -> None:
        """Let go of graphs of another kind, and record this one if it is warm."""
        kind = self._update.kind(inputs)
        if kind != self._kind:
            self.release()
            self._kind, self._made = kind, 0
        if self._graphs is not None or self._made < WARM or not self._update.moves:
            return
        said = self._made == WARM
        try:
            self._graphs = self._recorded(inputs)
        except Exception as error:  # noqa: BLE001  # of PyTorch, Triton, a driver: any class
            self._off = True
            reason = first_line(error)
            self._say(f"steps are not replayed as CUDA graphs: recording one failed ({reason})")
        else:
            if said:
                self._say(f"steps are replayed as CUDA graphs from step {self._state.step + 1} on")
            self._made += 1
        if self._off:  # here the error has let go of the memory
            self._state.optimizer.zero_grad(set_to_none=True)
            release_memory(self._device)

    def _recorded(self, inputs: Inputs) -> _Graphs:
        recorder = Recorder(self._device)
        # Inputs outside of the memory that the graphs share.
        draws = None if inputs.draws is None else inputs.draws.clone()
        held = Inputs(inputs.lq.clone(), inputs.gt.clone(), draws)
        expected = _numbers(self._update.gradients(held))
        # Gradients are made anew, at addresses of their own, and overwritten from then on.
        self._state.optimizer.zero_grad(set_to_none=True)
        gradients, learnt = recorder.record(lambda: self._update.gradients(held))
        gradients()
        if not torch.allclose(_numbers(learnt), expected, rtol=CLOSE, equal_nan=True):
            raise RuntimeError("a replay gives another loss or gradient")
        move, _ = recorder.record(self._update.move)
        grads = [p.grad for p in self._state.model.parameters()]
        return _Graphs(held, learnt, gradients, move, grads)


def _numbers(learnt: Learnt) -> torch.Tensor:
    return torch.stack((learnt.loss, learnt.norm))
