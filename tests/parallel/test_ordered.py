import threading
import time
from collections.abc import Iterator

import pytest

from iart.parallel.ordered import ordered


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("iart-data")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int):
    def square(x: int) -> int:
        time.sleep(0.002 * (x % 3))
        return x * x

    assert list(ordered(square, range(20), workers=workers)) == [x * x for x in range(20)]
    assert not ours()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_comes_in_its_place(workers: int):
    results: list[float] = []
    with pytest.raises(ZeroDivisionError):
        results.extend(ordered(lambda x: 1 / (3 - x), range(9), workers=workers, ahead=9))
    assert not ours()
    head = ordered(lambda x: 1 / (3 - x), range(9), workers=workers, ahead=9)
    assert [next(head) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    head.close()


def test_endless_items_are_read_only_so_far_ahead():
    read: list[int] = []

    def items() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    results = ordered(lambda x: x, items(), workers=2, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(read) <= 3 + 5
    assert len(ours()) == 2
    results.close()
    assert not ours()
