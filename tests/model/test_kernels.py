"""The kernel gives what PyTorch gives, and PyTorch steps in where there is no kernel."""

import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from iart.errors import OptionsError
from iart.model import IART
from iart.model.align import ImplicitAlign
from iart.model.kernels import cpu, dispatch, operators
from iart.model.kernels.dispatch import backend_in_use, usable_backend
from tests.model.formula import with_formula_weights
from tests.model.test_pieces import SMALL

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux"
)


def head_tensors(s: int, n: int, q: int, k: int, d: int) -> list[Tensor]:
    """Queries, keys and values as the projections give them, and a bias."""
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(s, k, 3 * n * d, generator=generator)
    query, key, value = (x.unflatten(-1, (n, d)).transpose(1, 2) for x in packed.chunk(3, -1))
    return [query[:, :, k - q :], key, value, torch.randn(n, q, k, generator=generator)]


def exact(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=bias.double()[None]
    )


@needs_compiler
@settings(max_examples=30)
@given(
    s=st.integers(1, 5),
    n=st.integers(1, 4),
    vectors=st.integers(1, 7),
    more=st.integers(0, 40),
    d=st.integers(1, 40),
    threads=st.integers(1, 3),
)
def test_values_and_gradients(s: int, n: int, vectors: int, more: int, d: int, threads: int):
    q = 16 * vectors
    inputs = head_tensors(s, n, q, q + more, d)
    torch.set_num_threads(threads)
    for x in inputs:
        x.requires_grad_()
    query, key, value, bias = (x.detach() for x in inputs)
    out = cpu.attend(query, key, value, bias)
    assert out is not None
    expected = exact(*inputs)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    back = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    got = cpu.differentiate(query, key, value, bias, back)
    assert got is not None
    wanted = torch.autograd.grad(expected, inputs, back.double())
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_large_logits_do_not_overflow():
    query, key, value, bias = head_tensors(2, 1, 16, 16, 4)
    for scale in (30.0, 1e4, 1e18):
        out = cpu.attend(scale * query, key, value, bias)
        assert out is not None
        torch.testing.assert_close(
            out.double(), exact(scale * query, key, value, bias), rtol=1e-4, atol=1e-4
        )


@needs_compiler
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_shows_where_it_does_in_pytorch(which: int, value: float):
    inputs = head_tensors(2, 2, 16, 16, 4)
    inputs[which] = inputs[which].clone()
    inputs[which][0, 0, 3, 1] = value
    out = cpu.attend(*inputs)
    assert out is not None
    torch.testing.assert_close(out.double(), exact(*inputs), rtol=1e-4, atol=1e-4, equal_nan=True)


@needs_compiler
@settings(max_examples=30)
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    heads=st.integers(1, 5),
    fours=st.integers(1, 6),
    reach=st.sampled_from([0.0, 0.4, 3.0, 100.0, 1e18]),
    threads=st.integers(1, 3),
)
@torch.no_grad()
def test_alignment(h: int, w: int, heads: int, fours: int, reach: float, threads: int):
    align = with_formula_weights(ImplicitAlign(4 * fours * heads, heads), "align.")
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2, h, w, 4 * fours * heads, generator=generator)
    flow = reach * torch.randn(2, 2, h, w, generator=generator)
    torch.set_num_threads(threads)
    results = []
    for align.backend in ("native", "torch"):
        results.append(align(*maps, flow))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@needs_compiler
@torch.no_grad()
def test_flow_that_is_no_number_spoils_its_pixel_alone():
    align = with_formula_weights(ImplicitAlign(8, 2), "align.")
    maps, flow = torch.randn(2, 1, 4, 5, 8), torch.zeros(1, 2, 4, 5)
    flow[0, :, 1, 2] = torch.nan
    for align.backend in ("native", "torch"):
        spoilt = align(*maps, flow).isnan().any(-1)[0]
        assert spoilt.nonzero().tolist() == [[1, 2]]


@needs_compiler
def test_threads_may_attend_at_once():
    inputs = head_tensors(40, 3, 48, 48, 12)
    expected = cpu.attend(*inputs)
    assert expected is not None
    found: list[bool] = []

    def work() -> None:
        for _ in range(20):
            out = cpu.attend(*inputs)
            found.append(out is not None and out.equal(expected))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 60


def test_tensors_without_numbers_have_a_shape():
    with FakeTensorMode():
        out = operators.attend(
            *(torch.empty_like(x) for x in head_tensors(2, 3, 16, 16, 4)), "native"
        )
    assert out.shape == (2, 3, 16, 4)


def test_a_bias_of_another_type_is_not_read_as_float32():
    query, key, value, bias = head_tensors(2, 2, 16, 16, 4)
    for dtype in (torch.float64, torch.bfloat16):
        assert cpu.attend(query, key, value, bias.to(dtype)) is None
        assert cpu.differentiate(query, key, value, bias.to(dtype), query) is None


@pytest.mark.parametrize("what", ["double", "odd", "channels apart", "nothing"])
def test_what_does_not_suit_goes_to_pytorch(what: str):
    inputs = head_tensors(2, 2, 16, 16, 4)
    if what == "double":
        inputs = [x.double() for x in inputs]
    elif what == "odd":
        inputs = head_tensors(2, 2, 15, 16, 4)
    elif what == "channels apart":
        inputs[0] = inputs[0].mT.contiguous().mT
    else:
        inputs = [*(x[:0] for x in inputs[:3]), inputs[3]]
    assert cpu.attend(*inputs) is None
    out = operators.attend(*inputs, "native")
    torch.testing.assert_close(out.double(), exact(*inputs), rtol=1e-5, atol=1e-5)


@needs_compiler
def test_the_network_gives_the_same():
    model = with_formula_weights(IART(SMALL))
    clip = torch.rand(2, 3, 3, 13, 9, generator=torch.Generator().manual_seed(0))
    results = {}
    for name in ("native", "torch"):
        model.backend = name
        assert backend_in_use(model.backend, CPU, torch.float32) == name
        model.zero_grad()
        out = model(clip)
        out.square().mean().backward()
        with torch.inference_mode():
            small = model(clip)
        results[name] = [out.detach(), small, *(p.grad for p in model.parameters())]
    for mine, theirs in zip(*results.values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-6)


@needs_compiler
def test_openmp_is_that_of_pytorch():
    code = (
        "import torch, re; from iart.model.kernels import cpu; "
        "assert cpu._kernels() is not None; "
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no kernel to miss")
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-g++ -v", "no compiler 'no-such-g++'"),
        ("no-such-g++ '", "no compiler 'no-such-g++ ''"),
        ("false", "false did not compile"),
    ],
)
def test_without_a_compiler_a_note_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    compiler: str,
    reason: str,
):
    monkeypatch.setenv("CXX", compiler)
    cpu._kernels.cache_clear()
    inputs = head_tensors(2, 2, 16, 16, 4)
    try:
        with caplog.at_level(logging.INFO, "iart"):
            operators.attend(*inputs, "native")
            out = operators.attend(*inputs, "native")
        assert backend_in_use("native", CPU, torch.float32) == "torch"
    finally:
        cpu._kernels.cache_clear()
    assert [reason in record.message for record in caplog.records] == [True]
    torch.testing.assert_close(out.double(), exact(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="compiles on Linux")
def test_a_missing_folder_is_no_missing_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    cpu._kernels.cache_clear()
    try:
        with caplog.at_level(logging.INFO, "iart"):
            assert backend_in_use("native", CPU, torch.float32) == "torch"
    finally:
        cpu._kernels.cache_clear()
    assert "No such file or directory" in caplog.text
    assert "compiler" not in caplog.text


def test_an_unknown_backend_is_refused():
    model = IART(SMALL)
    with pytest.raises(
        OptionsError, match="unknown backend 'cuda': pass auto, native, torch, triton"
    ):
        model.backend = "cuda"
    assert model.backend == "native"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_note_says_that_triton_has_none(caplog: pytest.LogCaptureFixture):
    dispatch._lacking_of_triton.cache_clear()
    with caplog.at_level(logging.INFO, "iart"):
        assert usable_backend("triton", CPU) == "torch"
    assert "not Triton: it needs a GPU" in caplog.text


def test_auto_is_the_kernels_in_cpp_on_the_cpu():
    assert usable_backend("auto", CPU) == "native"
