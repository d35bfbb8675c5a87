import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
if sys.argv[1] == "rest":
    from iart.threads import rest_while_waiting
    rest_while_waiting()
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
        command = [sys.executable, "-c", PROGRAM, mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
        return float(done.stdout)

    assert processor_seconds("rest") < 0.5 * processor_seconds("look out")
