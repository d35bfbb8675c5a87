"""Reading ahead and writing behind in threads, so that neither keeps the network waiting.

What goes wrong in a thread comes out once, where its items are taken or put. Leaving the `with`
block for whatever reason, Ctrl-C included, stops the thread and waits for it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import Generic, TypeVar

import torch

from iart.device import own_queue, wait_for
from iart.runtime import cpu_threads

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue between two threads that either side may close."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._closed = False
        self._changed = Condition()

    def put(self, item: T) -> bool:
        """Append, once there is room; False if the channel is closed and the item was not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def __iter__(self) -> Iterator[T]:
        """Take items as they come, until the channel is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._items)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # not kept alive while the next one is waited for

    def close(self, *, drop: bool = False) -> None:
        """Let nothing more in; what is inside can still be taken, unless it is dropped."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


CPU = torch.device("cpu")


def _thread(name: str) -> ThreadPoolExecutor:
    """A thread whose tensor operations use a quarter of the cores that those of others use.

    The network and the encoder want them too, and an operation that is shared out over cores that
    are busy waits for all of them.
    """
    with cpu_threads(max(1, torch.get_num_threads() // 4)):
        thread = ThreadPoolExecutor(1, name)
        thread.submit(torch.get_num_threads).result()  # its first use of PyTorch settles it
    return thread


@contextmanager
def read_ahead(
    items: Iterable[T], capacity: int, device: torch.device = CPU
) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread that is at most `capacity` items ahead.

    What the thread computes on `device` goes beside the work of others, and is done when it comes.
    """
    channel: Channel[T] = Channel(capacity)

    def fill() -> None:
        try:
            with own_queue(device):
                for item in items:
                    wait_for(device)
                    if not channel.put(item):
                        break
        finally:
            channel.close()

    with _thread("read") as thread:
        filling = thread.submit(fill)

        def arriving() -> Iterator[T]:
            yield from channel
            filling.result()  # raises what stopped the reading

        try:
            yield arriving()
        finally:
            channel.close(drop=True)


@contextmanager
def write_behind(
    write: Callable[[T], None], capacity: int, device: torch.device = CPU
) -> Iterator[Callable[[T], None]]:
    """Give a function that lets a thread call `write`, with at most `capacity` items waiting.

    When the block ends, what waits is written; when it ends by an error, it is dropped. An item is
    passed on when it is done on `device`; what `write` computes there goes beside other work.
    """
    channel: Channel[T] = Channel(capacity)

    def drain() -> None:
        try:
            with own_queue(device):
                for item in channel:
                    write(item)
                    wait_for(device)
        finally:
            channel.close(drop=True)

    with _thread("write") as thread:
        draining = thread.submit(drain)

        def put(item: T) -> None:
            wait_for(device)
            if not channel.put(item):
                draining.result()  # raises what stopped the writing

        try:
            yield put
        except BaseException:
            channel.close(drop=True)
            raise
        channel.close()
        draining.result()
