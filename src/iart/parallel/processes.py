"""Worker processes, usually one per device: each loads something once and takes tasks.

    with Processes([load_first, load_second]) as processes:
        futures = [processes.submit(task) for task in tasks]

A task is called in a worker as `task(loaded, tell)`; what it returns or raises comes out of its
future. `tell(message)` returns what was answered here. Workers end with this process, however it
ends. `iart.parallel.cluster` has the same for workers on several machines.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from iart.errors import DeviceError, IARTError
from iart.runtime import cpu_threads

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What became of a task; an answer that `ended` is the last one of its worker."""

    result: Any = None
    error: Exception | None = None
    ended: bool = False


class Processes(Generic[Loaded]):
    """Worker processes until the end of a `with` block, which stops them in whatever they do."""

    def __init__(
        self, loaders: Sequence[Callable[[], Loaded]], *, threads: int | None = None
    ) -> None:
        """Start a worker for each of `loaders`.

        Args:
            loaders: called once, each in its worker. They are pickled, as tasks are:
                `functools.partial` of a function at the top of a module serves.
            threads: that PyTorch computes with on the CPU, in each worker; None leaves its own.
        """
        # a copy of this process would hold its threads' locks and the GPU's state
        context = multiprocessing.get_context("spawn")
        self._idle: SimpleQueue[Any] = SimpleQueue()  # connections; None when all have ended
        self._lock, self._alive = threading.Lock(), len(loaders)
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(len(loaders) or 1, "worker")
        processes: list[BaseProcess] = []
        with ExitStack() as stack:
            pipes = stack.enter_context(ExitStack())
            stack.callback(self._threads.shutdown, cancel_futures=True)
            stack.callback(_end, processes)
            stack.callback(self._closed.set)
            for load in loaders:
                here, there = context.Pipe()
                pipes.enter_context(here)
                with there:  # closed here, so that the end of the worker is the end of the pipe
                    process = context.Process(target=_work, args=(load, there, threads))
                    process.start()
                processes.append(process)
                self._idle.put(here)
            self._open = stack.pop_all()

    def submit(
        self,
        task: Callable[[Loaded, Callable[[Any], Any]], Result],
        told: Callable[[Any], Any] = lambda message: None,
    ) -> Future[Result]:
        """Give a task to the next worker that is idle.

        Args:
            task: called there with what was loaded, and with a function that sends a message and
                gives the answer.
            told: called here with each message, in a thread; answers it. What it raises comes out
                of the future, and the worker gets no more tasks.

        Returns:
            The future result. Its error is the `IARTError` that was raised in the worker, or a
            `DeviceError` if the worker ended by another one.
        """
        return self._threads.submit(self._run, task, told)

    def __enter__(self) -> "Processes[Loaded]":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _run(self, task: Callable[..., Any], told: Callable[[Any], Any]) -> Any:
        """In a thread: hand a task to a worker, and wait for what comes of it."""
        connection = self._idle.get()
        if connection is None:
            self._idle.put(None)  # for the next thread that waits
            raise DeviceError("no process is left that could work")
        ended = True
        try:
            answer = self._ask(connection, task, told)
            ended = answer.ended
        finally:
            if not ended:
                self._idle.put(connection)
            else:
                with self._lock:
                    self._alive -= 1
                    if not self._alive:
                        self._idle.put(None)
        if answer.error is not None:
            raise answer.error
        return answer.result

    def _ask(
        self, connection: Connection, task: Callable[..., Any], told: Callable[[Any], Any]
    ) -> Answer:
        """Have a worker do a task."""
        with suppress(ConnectionError):  # what it sent before it ended tells why
            connection.send(task)
        while not isinstance(message := _received(connection), Answer):
            if self._closed.is_set():
                return _stopped("the work ended")
            answer = told(message[0])
            with suppress(ConnectionError):
                connection.send(answer)
        return message


def _received(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return _stopped("it exited without an error message")


def _stopped(reason: str) -> Answer:
    error = DeviceError(f"a process that shares the work stopped: {reason}")
    return Answer(error=error, ended=True)


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _work(load: Callable[[], Any], connection: Connection, threads: int | None) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process, which ends all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(message: Any) -> Any:
        connection.send((message,))
        return connection.recv()

    try:
        with cpu_threads(threads):
            loaded = load()
            while True:
                task = connection.recv()
                try:
                    answer = Answer(task(loaded, tell))
                except IARTError as error:
                    answer = Answer(error=error)
                connection.send(answer)
    except IARTError as error:
        connection.send(Answer(error=error, ended=True))
    except BaseException as error:
        connection.send(_stopped(f"{type(error).__name__}: {error}"))
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
