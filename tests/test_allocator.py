import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from iart.allocator import keep_freed_memory
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
        command = [sys.executable, "-c", PROGRAM, mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=gives_back)
        return int(done.stdout)

    assert faults("given back") > 5 * faults("kept")
