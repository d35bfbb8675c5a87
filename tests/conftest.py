"""For all tests: random states and threads are put back; no GPU, no test that needs one."""

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _states_put_back() -> Iterator[None]:
    """No test sees what another one seeded or drew, or how many threads it took."""
    threads = torch.get_num_threads()
    python, numpy_, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    yield
    random.setstate(python)
    np.random.set_state(numpy_)  # noqa: NPY002
    torch.set_rng_state(torch_)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `cuda` fail without a GPU where one is promised (FAIL_WITHOUT_CUDA=1)."""
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("FAIL_WITHOUT_CUDA=1, but PyTorch finds no GPU")
    pytest.skip("needs a GPU")
