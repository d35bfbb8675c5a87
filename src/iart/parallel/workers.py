"""The workers of a cluster, seen from the process that gives them tasks, and from within.

A thread for each worker waits until it lives and has loaded, takes tasks for it, and begins again
where it was lost. In a worker, all of it outside of Ray's ways, a task runs in a thread of its own;
what it tells is an item of a stream, what is answered a call.
"""

import hashlib
import logging
import os
import platform
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from iart.device import free_memory
from iart.errors import DeviceError, IARTError
from iart.parallel import scratch
from iart.parallel.processes import Answer
from iart.runtime import cpu_threads
from iart.version import __version__

_log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")

PATIENCE_SECONDS = 300
"""How long no worker at all may live before the work is given up."""
LOOK_EVERY_SECONDS = 1.0
REMOVAL_SECONDS = 120
"""How long the end waits for machines to remove temporary folders; one may be gone."""
START_SECONDS = 60
"""How long all workers may take to start, before what can be planned is planned without some."""


class WorkerLostError(DeviceError):
    """A worker ended, or its machine went, while it did a task; another one can do it."""


@dataclass(order=True)
class _Item:
    """A task that waits."""

    priority: int
    number: int
    task: Any = field(compare=False, default=None)
    told: Any = field(compare=False, default=None)
    future: Any = field(compare=False, default=None)


_LAST = _Item(sys.maxsize, sys.maxsize)
_ENDED = DeviceError("the cluster stopped: the work ended")


class ClusterWorkers(Generic[Loaded]):
    """Workers of a cluster, see `Cluster.workers`.

    Attributes:
        size: how many there are if all live.
        run: what `scratch` is told in tasks.
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        describe: Callable[[Loaded], str],
        *,
        size: int,
        cpus: float,
        gpus: float,
    ) -> None:
        """Ask for `size` workers of so many CPUs and GPUs each; see `Cluster.workers`."""
        self.size, self.run = size, f"{os.getpid()}-{secrets.token_hex(4)}"
        self._ray: Any = import_module("ray")
        self._cpus, self._gpus, self._load, self._describe = cpus, gpus, load, describe
        self._queue: queue.PriorityQueue[_Item] = queue.PriorityQueue()
        self._numbers = count()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._changed = threading.Condition(self._lock)
        self._actors: list[Any] = []
        self._removals: list[Any] = []
        self.uses_scratch = False  # whether tasks keep folders on their machines
        self._described: str | None = None
        self._refused: IARTError | None = None  # why a worker cannot be made ready
        self._free: list[int] = []
        self._alive: set[int] = set()
        self._began = self._seen = time.monotonic()  # when a worker last lived
        self._threads = [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(self.size)
        ]
        for thread in self._threads:
            thread.start()

    def weakest(self) -> int | None:
        """Bytes of memory of the worker that has least; None if that is unknown.

        Waits for workers that have just been asked for, but not for ever: the cluster may be busy.

        Raises:
            IARTError: a worker cannot be made ready, or is unlike others; names its machine.
        """
        with self._changed:
            waited = time.monotonic() - self._began
            for enough, seconds in ((self.size, START_SECONDS), (1, PATIENCE_SECONDS)):
                self._changed.wait_for(
                    lambda enough=enough: (
                        len(self._free) >= enough or self._refused or self._closed.is_set()
                    ),
                    max(0, seconds - waited),
                )
            if self._refused is not None:
                raise copy(self._refused)
            return min(self._free, default=None)

    def submit(
        self,
        task: Callable[[Loaded, Callable[[Any], Any]], Result],
        told: Callable[[Any], Any] = lambda message: None,
        *,
        priority: int = 0,
    ) -> "Future[Result]":
        """Give a task to the next worker that is idle, see `Processes.submit`.

        Tasks of a smaller `priority` come first. The error of a future may be a `WorkerLostError`;
        all fail that wait where a worker cannot be made ready, or is unlike others.
        """
        future: Future[Result] = Future()
        self._queue.put(_Item(priority, next(self._numbers), task, told, future))
        with self._lock:
            refused = self._refused
        if refused is not None:
            self._drop(refused)
        elif self._closed.is_set():
            self._drop(_ENDED)
        return future

    def remove_scratch(self, name: str) -> None:
        """Remove the folders `scratch(run, name)` of all machines, beside other work."""
        if not self._closed.is_set():
            self._remove(name)

    def close(self) -> None:
        """Stop all workers in whatever they do; what was submitted fails."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
            actors = list(self._actors)
        for actor in actors:
            self._ray.kill(actor)
        for _ in self._threads:
            self._queue.put(_LAST)
        for thread in self._threads:
            thread.join()
        self._drop(_ENDED)
        if self.uses_scratch:  # what is left, of films that were stopped
            self._remove("")
            self._ray.wait(self._removals, num_returns=len(self._removals), timeout=REMOVAL_SECONDS)

    def _remove(self, name: str) -> None:
        strategies: Any = import_module("ray.util.scheduling_strategies")
        task = self._ray.remote(scratch.remove)
        for node in self._ray.nodes():
            if node["Alive"]:
                there = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                options = task.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
                self._removals.append(options.remote(self.run, name))

    def _start(self, slot: int) -> Any:
        """Ask Ray for a worker."""
        kind = self._ray.remote(Actor).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=2,  # a task, and answers to what it tells
        )
        return kind.remote(max(1, int(self._cpus)))

    def _serve(self, slot: int) -> None:
        """In a thread: keep one worker at work, and alive."""
        actor = self._start(slot)
        with self._lock:
            self._actors.append(actor)
        try:
            while (node := self._prepared(slot, actor)) is not None:
                while self._serve_one(actor, node):
                    pass
                with self._lock:
                    self._alive.discard(slot)
        except IARTError as error:  # it cannot be made ready
            with self._changed:
                self._refused = self._refused or error
                self._changed.notify_all()
            self._drop(error)
        finally:
            with self._lock:
                self._alive.discard(slot)

    def _prepared(self, slot: int, actor: Any) -> str | None:
        """The machine of a worker, once that lives and has loaded; None if the work ends."""
        while not self._closed.is_set():
            try:
                about = self._ray.get(actor.about.remote())
                if about["versions"] != (ours := versions()):
                    differ = ", ".join(
                        f"{name} {about['versions'].get(name)} instead of {ours[name]}"
                        for name in ours
                        if about["versions"].get(name) != ours[name]
                    )
                    raise DeviceError(f"{about['node']} has {differ}; install the same there")
                answer = self._ray.get(actor.prepare.remote(self._load, self._describe))
            except self._ray.exceptions.ActorDiedError as error:
                if self._closed.is_set():
                    return None
                raise DeviceError(f"a worker cannot start: {_reason(error)}") from None
            except self._ray.exceptions.RayTaskError as error:
                raise DeviceError(f"a worker cannot start: {_reason(error)}") from None
            except self._ray.exceptions.RayError:  # not there (yet, or again)
                with self._lock:
                    if self._alive:
                        self._seen = time.monotonic()
                    is_over = time.monotonic() - self._seen > PATIENCE_SECONDS
                if is_over:
                    why = f"no worker has lived for {PATIENCE_SECONDS} s"
                    self._drop(DeviceError(f"the cluster stopped: {why}"))
                self._closed.wait(LOOK_EVERY_SECONDS)
                continue
            if answer.error is not None:
                raise type(answer.error)(f"{about['node']}: {answer.error}")
            described, free = answer.result
            with self._lock:
                self._described = self._described or described
                if described != self._described:
                    raise DeviceError(
                        f"{about['node']} has {described}, others have {self._described}; all must"
                        " be alike"
                    )
                if free is not None:
                    self._free.append(free)
                self._alive.add(slot)
                self._changed.notify_all()
                self._seen = time.monotonic()
            return about["node"]
        return None

    def _serve_one(self, actor: Any, node: str) -> bool:
        """Have a worker do the next task; tells whether it can do more."""
        item = self._queue.get()
        if item is _LAST:
            return False
        if not item.future.set_running_or_notify_cancel():
            return True
        try:
            answer = self._ask(actor, node, item)
            if answer.ended:
                raise WorkerLostError(f"the worker on {node} was lost: {answer.error}")
        except BaseException as error:  # noqa: BLE001 - it comes out of the future
            with suppress(Exception):
                self._ray.kill(actor, no_restart=self._closed.is_set())  # it may still be at work
            item.future.set_exception(error)
            return False
        if isinstance(answer.error, DeviceError):
            item.future.set_exception(DeviceError(f"{node}: {answer.error}"))
        elif answer.error is not None:
            item.future.set_exception(answer.error)
        else:
            item.future.set_result(answer.result)
        return True

    def _ask(self, actor: Any, node: str, item: _Item) -> Answer:
        try:
            for each in actor.run.options(num_returns="streaming").remote(item.task):
                message = self._ray.get(each)
                if isinstance(message, Answer):
                    return message
                if isinstance(message, Note):
                    _log.log(message.level, "%s: %s", node, message.text)
                    continue
                reply = item.told(message[0])
                actor.answer.options(num_returns=0).remote(reply)
        except self._ray.exceptions.RayTaskError as error:
            raise DeviceError(f"a worker on {node} stopped: {_reason(error)}") from None
        except self._ray.exceptions.RayError as error:
            if self._closed.is_set():
                raise copy(_ENDED) from None
            raise WorkerLostError(f"the worker on {node} was lost: {_reason(error)}") from None
        raise WorkerLostError(f"the worker on {node} ended without an answer")

    def _drop(self, error: IARTError) -> None:
        """Let everything fail that waits; each with an error of its own, which films add to."""
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is _LAST:
                    self._queue.put(_LAST)  # for a thread that still works
                    return
                if item.future.set_running_or_notify_cancel():
                    item.future.set_exception(copy(error))


def _reason(error: Exception) -> str:
    """The line of Ray's many that tells most: the last one that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass(frozen=True)
class Note:
    """What a worker would log."""

    level: int
    text: str


class Actor:
    """What runs in a worker; an actor of Ray."""

    def __init__(self, threads: int) -> None:
        self._threads, self._loaded = threads, None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def about(self) -> dict[str, Any]:
        """Where this is, and what is installed there."""
        return {"node": platform.node(), "versions": versions()}

    def prepare(self, load: Callable[[], Any], describe: Callable[[Any], str]) -> Answer:
        """Load; the result is a description, and the bytes of memory that this worker may take."""
        try:
            with cpu_threads(self._threads):
                self._loaded = load()
                return Answer((describe(self._loaded), self._memory()))
        except IARTError as error:
            return Answer(error=error)

    def run(self, task: Callable[..., Any]) -> Iterator[Any]:
        """Do a task: what it tells, then an `Answer`."""
        messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def tell(message: Any) -> Any:
            messages.put((message,))
            return self._answers.get()

        def work() -> None:
            handler = _Forward(messages)
            logging.getLogger("iart").addHandler(handler)
            try:
                with cpu_threads(self._threads):
                    answer = Answer(task(self._loaded, tell))
            except IARTError as error:
                answer = Answer(error=error)
            except MemoryError as error:  # what fits may be more in a fresh process
                answer = Answer(error=DeviceError(f"out of memory: {error}"), ended=True)
            except BaseException as error:  # noqa: BLE001 - told to whoever waits
                answer = Answer(error=DeviceError(f"{type(error).__name__}: {error}"))
            finally:
                logging.getLogger("iart").removeHandler(handler)
            messages.put(answer)

        threading.Thread(target=work, daemon=True).start()
        while True:
            message = messages.get()
            yield message
            if isinstance(message, Answer):
                return

    def answer(self, reply: Any) -> None:
        """Answer what a task told last."""
        self._answers.put(reply)

    def _memory(self) -> int | None:
        """Of the GPU, or this worker's part of the machine's."""
        import ray

        took = ray.get_runtime_context().get_assigned_resources()
        if took.get("GPU"):
            free = free_memory(torch.device("cuda"))
            return None if free is None else int(free * min(1.0, took["GPU"]))
        free = free_memory(torch.device("cpu"))
        return None if free is None else int(free * min(1.0, took["CPU"] / (os.cpu_count() or 1)))


class _Forward(logging.Handler):
    """Sends warnings along with what a task tells."""

    def __init__(self, messages: "queue.SimpleQueue[Any]") -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record's text."""
        self._messages.put(Note(record.levelno, record.getMessage()))


def versions() -> dict[str, str]:
    """What must be the same on all machines; of this package, its files."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return {
        "iart": f"{__version__} ({digest.hexdigest()[:8]})",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("ray", "torch", "av")},
    }
