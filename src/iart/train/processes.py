"""The processes of a run, one per device, and the signals that stop them between two steps."""

import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from iart.device import pick_precision
from iart.errors import DeviceError, MissingExtraError
from iart.runtime import cpu_threads
from iart.train.options.recipe import RecipeOptions
from iart.train.options.run import TrainingOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Launchers pass on a signal that the terminal has sent already: within this time it is the same.
SAME_SIGNAL_SECONDS = 1.0
_TORCHRUN = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@contextmanager
def connected(
    options: TrainingOptions, device: torch.device, devices: int | None
) -> Iterator["Fabric"]:
    """All processes of the run: starts those that are missing; each goes into the block.

    Args:
        options: of the run.
        device: a kind, or one device of it.
        devices: processes on this machine; None for those that torchrun has started, else as many
            GPUs as there are, up to `num_gpu`, or one process on a CPU.

    Raises:
        DeviceError: this machine has fewer devices.
        MissingExtraError: Lightning Fabric is not installed.
    """
    fabric = _fabric(options, device, devices)
    fabric.launch()
    try:
        with cpu_threads(options.num_threads):
            yield fabric
    except BaseException:  # processes that wait for this one would wait for long
        for child in getattr(fabric.strategy.launcher, "procs", ()):
            child.kill()
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fabric(options: TrainingOptions, device: torch.device, devices: int | None) -> "Fabric":
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingExtraError(
            "training needs Lightning Fabric: pip install 'iart-vsr[train]'"
        ) from error
    # What it says of processes is of no use to who trains.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    local, nodes = _count(options, device, devices)
    # The graph is the same in every step, which saves time; where gradients are exchanged in some
    # backward passes only, torch does not allow to say so.
    constants: dict[str, Any] = {_buffers_keyword(): False}  # buffers are never sent
    static = options.train.gradient_accumulation_steps == 1
    flowless = options.datasets.train.num_frame == 1  # clips without flow and alignment
    parallel = DDPStrategy(
        static_graph=static, find_unused_parameters=flowless and not static, **constants
    )
    return Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" and local == 1 else local,
        num_nodes=nodes,
        strategy=parallel if local * nodes > 1 else "auto",
        precision="32-true",  # autocast is the loop's own: frames and flow stay float32
    )


def gathered(text: str) -> list[str]:
    """A text of every process, in their order; each has to call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [text]
    texts = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(texts, text)
    return texts


def is_first_process() -> bool:
    """Whether this is the process that speaks for all; known before they are connected."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def _buffers_keyword() -> str:
    """What torch calls sending buffers before every step; it renamed it."""
    new = "forward_sync_buffers"
    accepted = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return new if new in accepted else "broadcast_buffers"


def count_processes(options: TrainingOptions, device: torch.device) -> int:
    """Processes of a run that nothing is said about."""
    local, nodes = _count(options, device, None)
    return local * nodes


def _count(options: TrainingOptions, device: torch.device, devices: int | None) -> tuple[int, int]:
    """(processes on this machine, machines)."""
    here = torch.cuda.device_count() if device.type == "cuda" else 1
    if all(name in os.environ for name in _TORCHRUN):
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        if devices not in (None, local):
            raise DeviceError(f"torchrun started {local} processes, but {devices} are asked for")
    else:
        recipe = here if options.num_gpu == "auto" else max(options.num_gpu, 1)
        one = device.index is not None  # named, as in cuda:1
        local, nodes = devices or (1 if one else min(here, recipe)), 1
    if device.type != "cpu" and local > here:
        raise DeviceError(f"{local} devices were asked for; this machine has {here} ({device})")
    return local, nodes


def choose_precision(recipe: RecipeOptions, device: torch.device) -> torch.dtype:
    """What features are computed in.

    `half_precision: true` is bfloat16 where a GPU has it, float16 on others, float32 on CPUs.

    Raises:
        DeviceError: the device cannot compute in the precision that is asked for.
    """
    if not recipe.half_precision:
        return pick_precision(recipe.precision, device)
    if device.type == "cpu":
        return torch.float32
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if bfloat16 else torch.float16


class StopSignals:
    """Signals that ask the run to save and stop: noted, not raised, so that no step is cut in half.

    The same again, a second or more later, raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        """None has come."""
        self._since: float | None = None

    @property
    def received(self) -> bool:
        """Whether a signal has come."""
        return self._since is not None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take in a signal, as a handler."""
        now = time.monotonic()
        if self._since is not None and now - self._since > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        self._since = now if self._since is None else self._since


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """While the block lasts, SIGINT, SIGTERM and SIGHUP ask the run to save and stop."""
    signals, before = StopSignals(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup
                before[number] = signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
