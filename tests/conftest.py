"""For all tests: random states and threads are put back; no GPU, no test that needs one."""

import os
import random
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


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


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test sees what another one, or the user, has noted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="session")
def _kernels_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All processes of a session compile the same kernels, and share what comes of it."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    if sys.platform != "linux" or not shutil.which(compiler[0]):
        yield
        return
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernels"
    folder.mkdir(exist_ok=True)
    program = Path(__file__).with_name("compile_once.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "CXX", shlex.join([sys.executable, "-IS", str(program), str(folder), *compiler])
        )
        yield


@pytest.fixture(autouse=True)
def _usual_signals() -> Iterator[None]:
    """SIGINT and SIGHUP as in a terminal, for each test and the processes that it starts.

    Under `nohup`, after a shell's `&` and in some CI they are ignored, which children inherit.
    """
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name): usual[name] for name in usual if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `cuda` fail without a GPU where one is promised (FAIL_WITHOUT_CUDA=1)."""
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("FAIL_WITHOUT_CUDA=1, but PyTorch finds no GPU")
    pytest.skip("needs a GPU")
