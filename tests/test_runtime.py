import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from iart.runtime import cpu_threads

MEMORY = """
import resource, sys
from iart.runtime import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import torch
torch.ones(100)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take_and_free():
    [torch.ones(5_000_000) for _ in range(4)]
for _ in range(3):
    take_and_free()
before = faults()
for _ in range(20):
    take_and_free()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of glibc")
def test_blocks_are_not_taken_anew():
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}

    def faults(mode: str) -> int:
        command = [sys.executable, "-c", MEMORY, mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=gives_back)
        return int(done.stdout)

    assert faults("given back") > 5 * faults("kept")


WAITING = """
import sys, time
if sys.argv[1] == "rest":
    import iart
import torch
torch.set_num_threads(2)
x = torch.zeros(200_000)
x.add_(1)
started = time.process_time()
for _ in range(100):
    x.add_(1)
    time.sleep(0.005)
print(time.process_time() - started)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of libgomp")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a thread by itself waits for none")
def test_threads_do_not_look_out_for_work_all_the_time():
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}

    def processor_seconds(mode: str) -> float:
        command = [sys.executable, "-c", WAITING, mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
        return float(done.stdout)

    assert processor_seconds("rest") < 0.5 * processor_seconds("look out")


def test_threads_are_as_before_after_the_block():
    before = torch.get_num_threads()
    with cpu_threads(3):
        assert torch.get_num_threads() == 3
        with cpu_threads(None):
            assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as inside:
            assert inside.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), cpu_threads(3):
        raise KeyError
    with ThreadPoolExecutor(1) as outside:
        assert outside.submit(torch.get_num_threads).result() == before
