"""The processes of a run, one per device: started here, or by torchrun."""

import inspect
import logging
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from iart.device import pick_precision
from iart.errors import DeviceError, MissingExtraError
from iart.train.options import Options
from iart.train.recipe_options import TrainOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TORCHRUN = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


class Processes:
    """Starts the processes that are missing and connects all; each goes into the block."""

    def __init__(self, options: Options, device: torch.device, devices: int | None) -> None:
        """Prepare.

        Args:
            options: of the run.
            device: a kind, or one device of it.
            devices: processes on this machine; None for those that torchrun has started, else as
                many GPUs as there are, up to `num_gpu`, or one process on a CPU.

        Raises:
            DeviceError: this machine has fewer devices.
            MissingExtraError: Lightning Fabric is not installed.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError as error:
            raise MissingExtraError(
                "training needs Lightning Fabric: pip install 'iart-vsr[train]'"
            ) from error
        # What it says of processes is of no use to who trains.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self._threads = options.num_threads
        local, nodes = _count(options, device, devices)
        # The graph is the same in every step, which saves time; where gradients are exchanged in
        # some backward passes only, torch does not allow to say so.
        constants: dict[str, Any] = {_buffers_keyword(): False}  # buffers are never sent
        static = options.train.gradient_accumulation_steps == 1
        flowless = options.datasets.train.num_frame == 1  # clips without flow and alignment
        parallel = DDPStrategy(
            static_graph=static, find_unused_parameters=flowless and not static, **constants
        )
        self._fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" and local == 1 else local,
            num_nodes=nodes,
            strategy=parallel if local * nodes > 1 else "auto",
            precision="32-true",  # autocast is the loop's own: frames and flow stay float32
        )

    def __enter__(self) -> "Fabric":
        self._fabric.launch()
        if self._threads:
            torch.set_num_threads(self._threads)
        return self._fabric

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:  # processes that wait for this one would wait for long
            launcher = self._fabric.strategy.launcher
            for child in getattr(launcher, "procs", ()):
                child.kill()
        elif torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


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


def _count(options: Options, device: torch.device, devices: int | None) -> tuple[int, int]:
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


def choose_precision(recipe: TrainOptions, device: torch.device) -> torch.dtype:
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
