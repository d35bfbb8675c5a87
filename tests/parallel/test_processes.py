"""Workers load once, take tasks, and end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from iart.errors import DataError, DeviceError
from iart.parallel.processes import Processes
from tests.parallel.tasks import count, crash, fail, load, missing, refuse, who
from tests.processes import PATIENCE_SECONDS, wait_until

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_loads_once_and_takes_tasks():
    with Processes([partial(load, "a"), partial(load, "b")]) as processes:
        answers = [future.result() for future in [processes.submit(who) for _ in range(6)]]
    assert 1 <= len(set(answers)) <= 2
    assert {answer[0] for answer in answers} <= {"a", "b"}
    assert str(os.getpid()) not in {answer.split()[-1] for answer in answers}


def test_messages_come_before_the_result():
    told: list[int] = []
    with Processes([partial(load, "a")]) as processes:
        assert processes.submit(partial(count, 5), told.append).result() == 5
    assert told == [0, 1, 2, 3, 4]


def test_an_error_of_a_task_leaves_the_worker_to_others():
    with Processes([partial(load, "a")]) as processes:
        with pytest.raises(DataError, match="a clip is missing"):
            processes.submit(refuse).result()
        assert processes.submit(who).result().startswith("a of")


@pytest.mark.parametrize(
    ("task", "words"), [(crash, "exited without an error message"), (fail, "KeyError: 'no such")]
)
def test_a_worker_that_ends_leaves_its_tasks_to_the_others(task, words: str):
    with Processes([partial(load, "a"), partial(load, "b")]) as processes:
        with pytest.raises(DeviceError, match=words):
            processes.submit(task).result()
        assert len({processes.submit(who).result() for _ in range(3)}) == 1
        with pytest.raises(DeviceError, match=words):
            processes.submit(task).result()
        with pytest.raises(DeviceError, match="no process is left"):
            processes.submit(who).result()


def test_what_cannot_be_loaded_is_told():
    with Processes([missing]) as processes, pytest.raises(DeviceError, match="no such device"):
        processes.submit(who).result()


def test_what_a_message_raises_comes_out():
    def broken(_: int) -> None:
        raise BrokenPipeError("nobody reads any more")

    with Processes([partial(load, "a")]) as processes:
        future = processes.submit(partial(count, 100_000), broken)
        with pytest.raises(BrokenPipeError, match="nobody reads any more"):
            future.result()


def test_the_end_of_the_block_stops_what_is_under_way():
    with Processes([partial(load, "a")]) as processes:
        futures = [processes.submit(partial(count, 10**9)) for _ in range(2)]
        wait(futures, 1)
    assert all(future.done() for future in futures)


@needs_proc
def test_what_an_ended_worker_left_in_the_pipe_is_not_told():
    told: list[int] = []
    begun = Event()

    def slow(number: int) -> None:
        told.append(number)
        begun.set()
        while lives(worker):
            time.sleep(0.01)

    with Processes([partial(load, "a")]) as processes:
        worker = int(processes.submit(who).result().split()[-1])
        future = processes.submit(partial(count, 10**9), slow)
        assert begun.wait(PATIENCE_SECONDS)
    assert told == [0]
    with pytest.raises(DeviceError, match="a process that shares the work stopped"):
        future.result()


PARENT = """
import sys, time
from concurrent.futures import wait
from functools import partial
from iart.parallel.processes import Processes
from tests.parallel.tasks import count, load, who
if __name__ == "__main__":
    with Processes([partial(load, "a")]) as processes:
        print(processes.submit(who).result().split()[-1], flush=True)
        future = processes.submit(partial(count, 10**9), lambda _: time.sleep(1))
        while not future.done():  # a signal just before a wait without end would not be seen
            wait([future], timeout=1)
"""


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_first_process(tmp_path: Path, number: int):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path.cwd())])}
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert lives(worker)
        parent.send_signal(number)
        parent.wait(PATIENCE_SECONDS)
    wait_until(lambda: not lives(worker))
