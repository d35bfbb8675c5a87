import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from iart.runtime import cpu_threads

MEMORY = """
import resource
import torch
from iart.runtime import keep_freed_memory
def take_and_free():
    [torch.ones(5_000_000) for _ in range(4)]
def faults():
    for _ in range(3):
        take_and_free()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        take_and_free()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
assert keep_freed_memory()
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of glibc")
def test_blocks_are_not_taken_anew():
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=gives_back)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 5 * kept


WAITING = """
import time
{imports}
torch.set_num_threads(2)
x = torch.zeros(200_000)
x.add_(1)
used, began = time.process_time(), time.monotonic()
for _ in range(100):
    x.add_(1)
    time.sleep(0.005)
print((time.process_time() - used) / (time.monotonic() - began))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of libgomp")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a thread by itself waits for none")
@pytest.mark.parametrize("first", ["iart", "torch"])
def test_threads_do_not_look_out_for_work_all_the_time(first: str):
    imports = {
        "iart": "import iart, torch",
        "torch": "import torch, iart; iart.load_model('light')",
    }
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    command = [sys.executable, "-c", WAITING.format(imports=imports[first])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
    assert float(done.stdout) < 0.15  # of the time that passed; else a third of it and more


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
