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
for _ in range(3):
    torch.ones(5_000_000), torch.ones(5_000_000)
before = faults()
for _ in range(20):
    torch.ones(5_000_000), torch.ones(5_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of glibc")
def test_blocks_are_not_taken_anew():
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", PROGRAM, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < 100
    assert faults("given back") > 20 * faults("kept")
