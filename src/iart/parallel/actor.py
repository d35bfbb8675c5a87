"""What runs in a worker of a cluster, see `iart.parallel.cluster`; all of it outside of Ray's ways.

A task runs in a thread of its own; what it tells is an item of a stream, what is answered a call.
"""

import hashlib
import logging
import os
import platform
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from iart.device import free_memory
from iart.errors import DeviceError, IARTError
from iart.parallel.processes import Answer
from iart.runtime import cpu_threads
from iart.version import __version__


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
