"""Where the tests of kernels for GPUs run them."""

import os
from typing import Any

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    if not INTERPRETED:
        if not torch.cuda.is_available() and os.environ.get("FAIL_WITHOUT_CUDA") != "1":
            pytest.skip("needs a GPU; otherwise the interpreter runs it")
        return "cuda"
    triton = pytest.importorskip("triton")
    # Triton 3.9 interprets dots of bfloat16 as those of the integers that have the same bits.
    builder: Any = triton.runtime.interpreter.InterpreterBuilder
    create_dot, float32 = builder.create_dot, triton.language.float32

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return create_dot(self, *(self.create_fp_ext(x, float32) for x in (a, b)), *rest)

    monkeypatch.setattr(builder, "create_dot", dot)
    return "cpu"
