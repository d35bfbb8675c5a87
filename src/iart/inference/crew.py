"""Processes that share a job's segments with this one, each with a model of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType

import torch
from torch import nn

from iart.device import pick_device
from iart.errors import DeviceError, IARTError
from iart.inference.job import End
from iart.inference.reading import Reading
from iart.inference.work import Work
from iart.weights import load_model

LoadModel = Callable[[], nn.Module]
"""Loads a model where it is to run; can be sent to another process."""


def hire(
    name: str, devices: Sequence[str], precision: str = "float32", threads: int | None = None
) -> tuple[nn.Module, list[LoadModel]]:
    """Load a model on the first device; the others are for processes of their own.

    Args:
        name: see `iart.weights.load_model`.
        devices: at least one; the same one may come twice.
        precision: see `iart.weights.load_model`.
        threads: of PyTorch on the CPU, in each process; None for all that there are, divided among
            those that compute on the CPU.

    Raises:
        WeightsError: no such model.
        DeviceError: this machine lacks a device.
    """
    if not devices:
        raise DeviceError("no device is named; pass some, such as 0,1 or cuda:0,cpu")
    on_cpu = sum(device == "cpu" for device in devices)
    if threads is None and on_cpu > 1:
        threads = max(1, torch.get_num_threads() // on_cpu)
    for device in devices[1:]:
        pick_device(device)
    loaders = [partial(_load, name, device, precision, threads) for device in devices]
    return loaders[0](), loaders[1:]


def _load(name: str, device: str, precision: str, threads: int | None) -> nn.Module:
    if threads is not None:
        torch.set_num_threads(threads)
    return load_model(name, device, precision)


@dataclass(frozen=True)
class _Failure:
    """What stopped one of the processes."""

    error: Exception


class Crew:
    """Works on a job in further processes until the `with` block ends.

    They end with this process, however it ends.
    """

    def __init__(
        self,
        loaders: Sequence[LoadModel],
        reading: Reading,
        work: Work,
        done: Callable[[], None],
    ) -> None:
        """Start a process for each of `loaders`.

        Args:
            loaders: one per process.
            reading: of the source.
            work: shared with this process.
            done: called here, in a thread, after each frame that one of them has enlarged.
        """
        # a copy of this process would hold its threads' locks and the GPU's state
        context = multiprocessing.get_context("spawn")
        self._done = done
        self._processes = []
        self._threads = ThreadPoolExecutor(len(loaders) or 1, "listen")
        self._listeners: list[Future[None]] = []
        try:
            for load in loaders:
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_take_part, args=(load, reading, work, there))
                process.start()
                self._processes.append(process)
                there.close()  # so that the end of the process is the end of the pipe
                self._listeners.append(self._threads.submit(self._listen, here.recv))
        except BaseException:
            self._end()
            raise

    def check(self) -> None:
        """Raise what stopped one of the processes, or `done` on its behalf, if anything did."""
        for listener in self._listeners:
            if listener.done():
                listener.result()

    def join(self) -> None:
        """Wait until all have done their share; raises as `check` does."""
        while futures.wait(self._listeners, 0.2, futures.FIRST_EXCEPTION).not_done:
            self.check()
        self.check()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._threads.shutdown()

    def _listen(self, receive: Callable[[], object]) -> None:
        """Take messages of one process: a frame is done, all is done, or what went wrong."""
        while not isinstance(message := _received(receive), End):
            if isinstance(message, _Failure):
                raise message.error
            self._done()


def _received(receive: Callable[[], object]) -> object:
    try:
        return receive()
    except (EOFError, OSError):
        return _stopped("it ended without a word")


def _stopped(reason: str) -> _Failure:
    return _Failure(DeviceError(f"a process that shares the work stopped: {reason}"))


def _take_part(load: LoadModel, reading: Reading, work: Work, connection: Connection) -> None:
    """What one process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process, which ends all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with reading.open() as reader:
            connection.send(work.run(reader, load(), lambda: connection.send(None)))
    except IARTError as error:
        connection.send(_Failure(error))
    except BaseException as error:
        connection.send(_stopped(f"{type(error).__name__}: {error}"))
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
