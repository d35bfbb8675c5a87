"""What a run will be like: time and memory of a step, and how much each of its losses weighs.

A step is measured, or extended from smaller steps where it takes long. Steps are those of the run,
with its network, losses and optimiser, on noise. On a CPU only the process knows what memory it
holds, so they are made in a process of their own.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.data.loader import Batch
from iart.data.pairs import SCALE
from iart.data.samples import Origin, Sample
from iart.errors import DeviceError
from iart.model import IART
from iart.model.flow import SpyNet
from iart.parallel.processes import Processes
from iart.pictures.resize import imresize
from iart.runtime import cpu_threads, keep_freed_memory, peak_memory
from iart.train.adversary import learn, new_adversaries
from iart.train.captured import WARM, CapturedUpdate, obstacle
from iart.train.options.run import TrainingOptions
from iart.train.state import new_state
from iart.train.step import Objective, Update, inputs_of

SMALLEST = 8
"""Side of the first crop, in pixels of low resolution."""
LONG_SECONDS = 5.0
"""No larger step is made after one that took so long."""


@dataclass(frozen=True)
class StepCost:
    """Cost of one step of the optimiser on one device, without reading its samples.

    Attributes:
        seconds: time that it takes.
        memory: in bytes, at most: of a CPU all that the process holds, PyTorch included.
        measured: whether it is a step of this size that was measured; otherwise extended.
        replayed: whether it was replayed as CUDA graphs.
    """

    seconds: float
    memory: int
    measured: bool
    replayed: bool = False


def step_cost(
    options: TrainingOptions,
    device: torch.device,
    precision: torch.dtype,
    frames: int,
    side: int,
    *,
    captured: bool = True,
) -> StepCost:
    """Measure what a step costs.

    Args:
        options: of a run; no file that they name is read but those of the losses.
        device: to compute on.
        precision: that features are computed in.
        frames: of a sample.
        side: of its crop, in pixels of low resolution.
        captured: whether it may be replayed as CUDA graphs, as `iart train` does it.

    Raises:
        DeviceError: a step does not fit into the memory.
        OptionsError: a loss needs a file that cannot be used.
    """
    batch = options.datasets.train.batch_size_per_gpu
    begin = partial(_Steps, options, device, precision, frames, captured=captured)
    if device.type != "cuda":
        with Processes([begin]) as processes:
            return processes.submit(partial(_measure, batch=batch, side=side)).result()
    try:
        steps = begin()
        with steps.update.stream():
            for _ in range(WARM + 1):  # warms up, and records
                steps.cost(batch, side)
            return steps.cost(batch, side)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{batch} clips of {frames} frames of {side}×{side} do not fit into the memory of "
            f"{device}. Lower gt_size or num_frame, or set network_g.use_checkpoint=true"
        ) from error


class _Steps:
    """Steps of a run, which are not learnt from."""

    def __init__(
        self,
        options: TrainingOptions,
        device: torch.device,
        precision: torch.dtype,
        frames: int,
        *,
        captured: bool,
    ) -> None:
        keep_freed_memory()  # as `iart train` does
        self._options, self._device = options, device
        self._frames, self.threads = frames, options.num_threads
        torch.manual_seed(options.manual_seed)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        model = IART(options.network_g.config()).train().to(device)
        model.backend = "auto"
        self._state = state = new_state(model, options, precision)
        recipe = options.train
        state.step = next(step for step in count(recipe.total_iter) if recipe.network_moves(step))
        objective = Objective(recipe, device, model.flow, state.adversaries)
        why = obstacle(options, state, device, 1) if captured else ""
        if why is None:
            state.make_capturable()
        update = Update(model, objective, state, options, precision)
        self.update = CapturedUpdate(update, state, device, why)

    def cost(self, batch: int, side: int) -> StepCost:
        """Make a step of `batch` samples with crops of `side`."""
        began = time.monotonic()
        micro = self._options.train.gradient_accumulation_steps
        for i in range(micro):
            self._add_gradients(batch, side, first=i == 0, last=i == micro - 1)
        self.update.move()
        if self._device.type != "cpu":
            getattr(torch, self._device.type).synchronize()
        seconds = time.monotonic() - began
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device)
        else:
            memory = peak_memory()
        return StepCost(seconds, memory, measured=True, replayed=self.update.replays)

    def _add_gradients(self, batch: int, side: int, *, first: bool, last: bool) -> None:
        gt = torch.rand(batch, self._frames, 3, SCALE * side, SCALE * side)
        origins = tuple(Origin(i, "", (), 0, 0, (side, side), "") for i in range(batch))
        noise = Batch(gt[..., ::SCALE, ::SCALE].contiguous(), gt, origins, 0.0)
        options, state = self._options, self._state
        inputs = inputs_of(noise, options.network_g.config(), 0, self._device)
        learnt = self.update.gradients(inputs, first=first, last=last)
        learn(state.adversaries, learnt.output, inputs.gt, range(batch), state.step, options)


def _measure(steps: _Steps, tell: Callable[[Any], None], *, batch: int, side: int) -> StepCost:
    with cpu_threads(steps.threads):
        return extended_cost(steps.cost, batch, side)


def extended_cost(cost: Callable[[int, int], StepCost], batch: int, side: int) -> StepCost:
    """Cost of a step, by steps that grow until one takes long.

    What it takes beyond the largest step made is taken to grow with the pixels as it did last.

    Args:
        cost: makes a step of so many samples with crops of such a side.
        batch: samples of the step that is asked for.
        side: of its crops.
    """
    known: list[tuple[int, StepCost]] = []
    for samples, width in _growing(batch, side):
        step = cost(samples, width)
        if not known:  # warmed up
            step = cost(samples, width)
        known.append((samples * width**2, step))
        if len(known) > 1 and step.seconds > LONG_SECONDS:
            break
    pixels = batch * side**2
    if known[-1][0] == pixels:
        return known[-1][1]
    (small, low), (large, high) = known[-2:]
    more = (pixels - large) / (large - small)
    return StepCost(
        seconds=high.seconds + more * max(high.seconds - low.seconds, 0),
        memory=high.memory + round(more * max(high.memory - low.memory, 0)),
        measured=False,
    )


def _growing(batch: int, side: int) -> Iterator[tuple[int, int]]:
    """(samples, side): first larger crops, then more samples, up to the size asked for."""
    width, count = min(SMALLEST, side), 1
    yield count, width
    while width < side:
        width = min(2 * width, side)
        yield count, width
    while count < batch:
        count = min(2 * count, batch)
        yield count, width


# ---- losses

WEIGHED_FRAMES, WEIGHED_SIDE = 5, 32
"""Part of a sample that losses are weighed on, at most: frames, and a side of low resolution."""


@dataclass(frozen=True)
class Magnitude:
    """One loss.

    Attributes:
        name: such as "lpips".
        value: with its weight.
        gradient: length of its gradient, by which it moves the picture.
        share: of the sum of the lengths of all gradients.
    """

    name: str
    value: float
    gradient: float
    share: float


def loss_magnitudes(
    options: TrainingOptions, sample: Sample, device: torch.device
) -> list[Magnitude]:
    """Measure all losses on the middle of a sample enlarged by bicubic, where training begins.

    All count as on; flow and discriminators are untrained.

    Raises:
        OptionsError: a loss needs a file of weights that cannot be used.
    """
    torch.manual_seed(options.manual_seed)
    config = options.network_g.config()
    flow = SpyNet(config.flow_channels, config.flow_levels).requires_grad_(False).to(device)
    low, high = (
        _middle(clip, scale).to(device).float() / 255
        for clip, scale in ((sample.lq, 1), (sample.gt, SCALE))
    )
    truth, output = high[None], imresize(low, float(SCALE))[None].requires_grad_()
    adversaries = new_adversaries(options, flow, torch.float32)
    terms = Objective(options.train, device, flow, adversaries).terms(output, truth)
    lengths = {
        name: torch.linalg.vector_norm(
            # The graph stays: losses share networks that measure, and judgements.
            torch.autograd.grad(term, output, retain_graph=True)[0]
        ).item()
        if term.requires_grad
        else 0.0
        for name, term in terms.items()
    }
    whole = sum(lengths.values()) or 1.0
    return [
        Magnitude(name, term.item(), lengths[name], lengths[name] / whole)
        for name, term in terms.items()
    ]


def _middle(clip: UInt8[Tensor, "t 3 h w"], scale: int) -> UInt8[Tensor, "n 3 _ _"]:
    """The first frames of a clip of `scale` times low resolution, cropped to the middle."""
    sides = [side // scale for side in clip.shape[-2:]]
    rows, columns = (
        slice(scale * start, scale * (start + WEIGHED_SIDE))
        for start in (max(side - WEIGHED_SIDE, 0) // 2 for side in sides)
    )
    return clip[:WEIGHED_FRAMES, :, rows, columns]
