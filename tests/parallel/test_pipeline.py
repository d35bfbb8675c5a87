import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from iart.parallel.pipeline import read_ahead, write_behind


def numbers(count: int, taken: list[int]) -> Iterator[int]:
    for i in range(count):
        taken.append(i)
        yield i


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_all_items_arrive_in_order():
    with read_ahead(range(100), 3) as items:
        assert list(items) == list(range(100))


def test_reading_runs_ahead_but_not_far():
    taken: list[int] = []
    with read_ahead(numbers(100, taken), 3) as items:
        for i in items:
            # In the channel 3, in the hands of each thread 1.
            assert len(taken) <= i + 5


def failing() -> Iterator[int]:
    yield 1
    yield 2
    raise ValueError("bad frame")


def collect(items: Iterable[int], into: list[int]) -> None:
    with read_ahead(items, 5) as arriving:
        for i in arriving:
            into.append(i)  # noqa: PERF402


def write_all(write: Callable[[int], None], items: Iterable[int], sent: list[int]) -> None:
    with write_behind(write, 2) as put:
        for i in items:
            put(i)
            sent.append(i)


def test_an_error_of_the_reading_comes_after_what_was_read():
    got: list[int] = []
    with pytest.raises(ValueError, match="bad frame"):
        collect(failing(), got)
    assert got == [1, 2]


def test_leaving_early_stops_the_reading():
    taken: list[int] = []

    def leave() -> None:
        with read_ahead(numbers(10**9, taken), 3) as items:
            next(items)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert len(taken) <= 5


def test_everything_is_written_when_the_block_ends():
    written: list[int] = []
    with write_behind(written.append, 2) as write:
        for i in range(50):
            write(i)
    assert written == list(range(50))


def test_an_error_of_the_writing_stops_the_block():
    def full(i: int) -> None:
        if i == 3:
            raise OSError("disk full")

    sent: list[int] = []
    with pytest.raises(OSError, match="disk full"):
        write_all(full, range(1000), sent)
    assert len(sent) <= 6


def test_an_error_of_the_last_item_is_not_lost():
    def full(i: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_all(full, [1], [])


def test_what_waits_is_dropped_when_the_block_fails():
    go = threading.Event()
    written: list[int] = []

    def slow(i: int) -> None:
        assert go.wait(5)
        written.append(i)

    def fail_with_items_waiting() -> None:
        with write_behind(slow, 3) as write:
            try:
                for i in range(4):
                    write(i)
                raise KeyboardInterrupt
            finally:
                threading.Timer(0.05, go.set).start()

    with pytest.raises(KeyboardInterrupt):
        fail_with_items_waiting()
    assert written in ([], [0])


def test_a_reading_error_passes_a_writer_once():
    written: list[int] = []

    def copy() -> None:
        with read_ahead(failing(), 2) as items:
            write_all(written.append, items, [])

    with pytest.raises(ValueError, match="bad frame") as caught:
        copy()
    assert caught.value.__context__ is None


def test_threads_share_the_cores():
    everywhere, seen = torch.get_num_threads(), list[int]()

    def items() -> Iterator[int]:
        yield torch.get_num_threads()

    torch.set_num_threads(8)
    try:
        with read_ahead(items(), 1) as frames:
            seen += frames
        with write_behind(lambda _: seen.append(torch.get_num_threads()), 1) as put:
            put(0)
        assert seen == [2, 2]
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(everywhere)
