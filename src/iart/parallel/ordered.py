"""Work in threads whose results come in the order of the items.

Decoding pictures and video, NumPy and PyTorch all release the interpreter's lock, so that threads
do as well as processes here: nothing is pickled, no shared memory runs out, and Ctrl-C works.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int = 0
) -> Generator[Result, None, None]:
    """`function` of each item, in order; closing the iterator ends the threads.

    Args:
        function: an exception that it raises comes out in its place.
        items: may be endless; read in the caller's thread, as far ahead as work goes.
        workers: threads; 0 works in line, when a result is asked for.
        ahead: items that are begun before the one asked for; twice `workers` if less is given.
    """
    if not workers:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="iart-data")
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > max(ahead, 2 * workers):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
