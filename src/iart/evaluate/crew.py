"""Several devices for one benchmark: a process for each, which share the clips."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from iart.device import pick_device
from iart.errors import DeviceError, IARTError
from iart.evaluate.record import Record

_log = logging.getLogger(__name__)


def run_on(
    devices: Sequence[str],
    job: Callable[..., Record],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Run a benchmark on several devices at once.

    What a process leaves undone when it fails, the others take over.

    Args:
        devices: one process each; a device may be named twice.
        job: `iart.evaluate.benchmark.run` with its arguments but device, memory_share and progress.
            It goes to other processes, so it has to be importable (`functools.partial` serves).
        progress: as for `run`.

    Raises:
        IARTError: as `run`, if every process failed.
        DeviceError: this machine lacks a device, or every process died.
    """
    if not devices:
        raise DeviceError("no device is named; pass some, such as cuda:0,cuda:1")
    for device in devices:
        pick_device(device)
    threads = max(1, torch.get_num_threads() // max(1, devices.count("cpu")))
    context = multiprocessing.get_context("spawn")
    names: dict[Any, str] = {}  # by the pipe that its process writes to
    processes = []
    for device in devices:
        here, there = context.Pipe(duplex=False)
        share = 1 / devices.count(device)
        process = context.Process(
            target=_work, args=(there, job, device, share, threads), daemon=True
        )
        process.start()
        there.close()  # so that its end is seen
        processes.append(process)
        names[here] = device
    try:
        return _listen(names, progress)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _listen(names: dict[Any, str], progress: Callable[[int, int], None] | None) -> Record:
    """Pass progress on until all processes are done; the record is the same for all."""
    failures: list[tuple[str, IARTError]] = []
    record: Record | None = None
    most = 0
    waiting = dict(names)
    while waiting:
        ready: list[Any] = list(wait(list(waiting)))
        for pipe in ready:
            name = waiting[pipe]
            kind, value = _received(pipe, name)
            if kind == "progress":
                most = max(most, value[0])  # each sees others' clips when they are done
                if progress is not None:
                    progress(most, value[1])
                continue
            del waiting[pipe]
            if kind == "record":
                record = value
            else:
                failures.append((name, value))
    if record is None:
        raise failures[0][1]
    for name, failure in failures:
        _log.warning("the others did the clips of %s, which failed: %s", name, failure)
    return record


def _received(pipe: Any, name: str) -> tuple[str, Any]:
    """What a process says; one that was killed says nothing."""
    try:
        return pipe.recv()
    except EOFError:
        return "failure", DeviceError(f"the process on {name} died")


def _work(
    pipe: Connection, job: Callable[..., Record], device: str, share: float, threads: int
) -> None:
    """One process: runs the job, and tells the parent how it goes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says what Ctrl-C interrupted
    torch.set_num_threads(threads)

    def show(done: int, total: int) -> None:
        pipe.send(("progress", (done, total)))

    try:
        pipe.send(("record", job(device=device, memory_share=share, progress=show)))
    except IARTError as error:
        pipe.send(("failure", error))
