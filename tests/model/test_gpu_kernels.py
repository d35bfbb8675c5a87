"""The kernels for GPUs compute what PyTorch does, on a GPU or in Triton's interpreter, and compile.

The interpreter must be chosen before Triton is imported: a process of its own runs this file there,
and the tests of flow and of gradients.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from iart.device import autocast
from iart.model import IART
from iart.model.align import ImplicitAlign, sine_encoding
from iart.model.flow import warp
from iart.model.kernels import SNAP, dispatch, gpu_trial
from tests.model.conftest import INTERPRETED
from tests.model.formula import with_formula_weights
from tests.model.test_pieces import SMALL

triton = pytest.importorskip("triton", minversion="3.3")
gpu_kernels = pytest.importorskip("iart.model.kernels.gpu")
gpu_rows = pytest.importorskip("iart.model.kernels.gpu_rows")

needs_compiler = pytest.mark.skipif(INTERPRETED, reason="here, Triton interprets")
SHARED_MEMORY = 96 * 2**10  # bytes; what GPUs from 2020 on have at least
# float16 and bfloat16 round inputs of about 4, weights and results.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-5, torch.float16: 2**-8}
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_gpu_kernels", "test_gpu_flow", "test_gpu_gradients"])
def test_in_the_interpreter(name: str):
    file = Path(__file__).with_name(f"{name}.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def windows(s: int, n: int, q: int, k: int, d: int) -> list[Tensor]:
    """Queries, keys and values as the projections give them, and a bias stored by key."""
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(s, k, 3 * n * d, generator=generator)
    query, key, value = (x.unflatten(-1, (n, d)).transpose(1, 2) for x in packed.chunk(3, -1))
    bias = torch.randn(n, k, q, generator=generator).mT
    bias[:, : q // 2, : k // 2] -= 100  # the first keys, which are seen first
    return [query[:, :, k - q :], key, value, bias]


def assert_attends(inputs: list[Tensor], device: str, dtype: torch.dtype):
    rounded = [x.to(device, dtype) for x in inputs]
    out = attended(rounded)
    assert out.dtype == dtype
    assert out.transpose(1, 2).is_contiguous()
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(out.double(), in_float64(rounded), rtol=tolerance, atol=tolerance)


def attended(inputs: list[Tensor]) -> Tensor:
    query, key, value, bias = inputs
    return gpu_kernels.attend(query, key, value, bias.contiguous()[None], (len(query),))


def in_float64(inputs: list[Tensor]) -> Tensor:
    query, key, value, bias = (x.double() for x in inputs)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])


@dtypes
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 6, 64, 192, 20),
        (3, 4, 48, 48, 12),
        (2, 4, 16, 48, 12),
        (1, 1, 1, 1, 1),
        (3, 2, 5, 7, 3),
        (1, 2, 67, 90, 64),
    ],
)
def test_attend(sizes: tuple[int, int, int, int, int], device: str, dtype: torch.dtype):
    assert_attends(windows(*sizes), device, dtype)


def test_attend_without_windows(device: str):
    query, key, value, bias = (x.to(device) for x in windows(1, 2, 3, 5, 4))
    assert attended([query[:0], key[:0], value[:0], bias]).shape == (0, 2, 3, 4)


@pytest.mark.parametrize("counts", [(2, 1, 0, 3), (0, 0, 0, 6), (6,), (1, 5)])
def test_attend_with_a_bias_for_every_kind_of_window(counts: tuple[int, ...], device: str):
    query, key, value, _ = (x.to(device) for x in windows(6, 2, 16, 48, 12))
    biases = torch.randn(len(counts), 2, 48, 48, generator=torch.Generator().manual_seed(1))
    biases = biases.to(device)[:, :, 16:32]  # of the middle frame's queries, a view
    out = gpu_kernels.attend(query, key, value, biases, counts)
    of_windows = biases.repeat_interleave(torch.tensor(counts, device=device), dim=0)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=of_windows)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [30.0, 1e4, 1e18])
def test_attend_does_not_overflow(scale: float, device: str):
    query, *others = windows(2, 1, 16, 40, 4)
    assert_attends([scale * query, *others], device, torch.float32)


@pytest.fixture
def flushing() -> Iterator[None]:
    """Numbers too small for float32's full precision are 0, as in the arithmetic of GPUs."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
@pytest.mark.usefixtures("flushing")
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_attend_shows_what_is_not_finite_where_pytorch_does(which: int, wrong: float, device: str):
    """The places are the same; which of NaN and ±inf stands there may differ.

    A key with a bias of −100 has the weight e^−100, which GPUs flush to 0 in float32: 0 · inf is
    NaN, where float64 has inf.
    """
    inputs = windows(2, 2, 16, 40, 4)
    inputs[which] = inputs[which].clone()
    inputs[which][0, 0, 3, 1] = wrong
    inputs = [x.to(device) for x in inputs]
    out, expected = attended(inputs), in_float64(inputs)
    finite = expected.isfinite()
    assert not finite.all()
    assert out.isfinite().equal(finite)
    tolerance = TOLERANCES[torch.float32]
    torch.testing.assert_close(
        out[finite].double(), expected[finite], rtol=tolerance, atol=tolerance
    )


def align_inputs(align: ImplicitAlign, source: Tensor, current: Tensor, flow: Tensor):
    """What the module gives to its last step."""
    b, h, w, c = source.shape
    by_pixel = flow.flip(1).permute(0, 2, 3, 1).reshape(b * h * w, 2)
    fraction = sine_encoding(by_pixel - (by_pixel + SNAP).floor(), c, extent=2.0)
    query = align.query(current.view(-1, c) + fraction)
    key, value = (project(source).view(-1, c) for project in (align.key, align.value))
    biases = (align.position_bias[0] @ x.weight.T for x in (align.key, align.value))
    return [query, *torch.stack((key, value), 1).unbind(1), *biases]


@dtypes
@pytest.mark.parametrize(
    ("b", "h", "w", "c", "n"),
    [(1, 7, 9, 120, 6), (2, 9, 4, 48, 4), (2, 1, 1, 12, 3), (1, 2, 33, 8, 1)],
)
@torch.no_grad()
def test_resample(b: int, h: int, w: int, c: int, n: int, device: str, dtype: torch.dtype):
    torch.manual_seed(0)
    align = ImplicitAlign(c, n).double()
    align.query.weight *= 8
    source, current = torch.randn(2, b, h, w, c, dtype=torch.float64)
    flow = 3 * torch.randn(b, 2, h, w)
    flow.view(-1)[::5].round_()
    flow.view(-1)[1::5].round_().sub_(SNAP / 4)  # counts as on the integer
    flow.view(-1)[2::7] *= 1e12
    flow.view(-1)[3::31] = -torch.inf
    flow = flow.nan_to_num(posinf=1e30, neginf=-1e30)
    maps = [x.to(device, dtype) for x in align_inputs(align, source, current, flow)]
    out = gpu_kernels.resample(*maps, flow.to(device), n)
    assert out.dtype == dtype
    expected = align(source, current, flow).view(-1, c)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(out.double().cpu(), expected, rtol=tolerance, atol=tolerance)


@dtypes
@pytest.mark.parametrize(("r", "m", "c"), [(50, 300, 24), (7, 3, 120), (1, 1, 4)])
def test_rows(r: int, m: int, c: int, device: str, dtype: torch.dtype):
    """Normalised, added and written, with padding among them."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, c, generator=generator).to(device) for n in (r, m))
    y = y.to(dtype)
    weight, bias = torch.randn(2, c, generator=generator).to(device)
    source = torch.randint(r + 1, (m,), generator=generator).to(device)
    cells = F.pad(x, (0, 0, 0, 1))[source]
    tolerance = 2 * TOLERANCES[dtype]

    normed = gpu_rows.norm_rows(x, source, weight, bias, 1e-5, dtype)
    assert normed.dtype == dtype
    expected = F.layer_norm(cells, (c,), weight, bias) * (source < r)[:, None]
    torch.testing.assert_close(normed.float(), expected, rtol=tolerance, atol=tolerance)

    added, normed = gpu_rows.add_norm_rows(x, source, y, weight, bias, 1e-5)
    assert (added.dtype, normed.dtype) == (x.dtype, dtype)
    torch.testing.assert_close(added, cells + y.float())
    expected = F.layer_norm(added, (c,), weight, bias)
    torch.testing.assert_close(normed.float(), expected, rtol=tolerance, atol=tolerance)

    target = torch.randperm(max(r, m), generator=generator)[:m].to(device)
    out = x.clone()
    gpu_rows.add_to_rows(out, target, added, y)
    expected, inside = x.clone(), target < r
    expected[target[inside]] = (added + y.float())[inside]
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(("b", "h", "w", "c"), [(1, 5, 7, 120), (2, 3, 4, 8), (2, 1, 1, 4)])
def test_encode(b: int, h: int, w: int, c: int, device: str):
    """For two flows of each map."""
    generator = torch.Generator().manual_seed(0)
    current = torch.randn(b, h, w, c, generator=generator)
    flow = 5 * torch.randn(2 * b, 2, h, w, generator=generator)
    by_pixel = rearrange(flow, "f d h w -> f h w d").flip(-1)
    fraction = by_pixel - (by_pixel + SNAP).floor()
    expected = torch.cat((current, current)) + sine_encoding(fraction, c, extent=2.0)
    frequency = ImplicitAlign(c, 1).frequency
    inputs = (x.to(device) for x in (current, flow, frequency))
    out = gpu_rows.encode(*inputs, torch.float32).cpu()
    torch.testing.assert_close(out, expected.view(-1, c), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("b", "h", "w"), [(1, 9, 14), (2, 5, 1), (3, 1, 1)])
def test_chain_flows(b: int, h: int, w: int, device: str):
    flow, last = 4 * torch.randn(2, b, 2, h, w, generator=torch.Generator().manual_seed(0))
    flow[0, 0, 0, 0] = 1e20
    flow[:, :, -1] = flow[:, :, -1].round()
    out = gpu_rows.chain_flows(flow.to(device), last.to(device)).cpu()
    assert out[:b].equal(flow)
    torch.testing.assert_close(out[b:], flow + warp(last, flow), rtol=1e-5, atol=1e-5)


# Not bfloat16, which Triton's interpreter rounds towards zero.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@torch.inference_mode()
def test_the_network_gives_the_same(
    dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
):
    model = with_formula_weights(IART(SMALL)).to(device)
    clip = torch.rand(1, 3, 3, 13, 9, generator=torch.Generator().manual_seed(0)).to(device)
    model.backend = "torch"
    exact = model(clip)
    with autocast(clip.device, dtype):
        expected = model(clip)
    if INTERPRETED:  # there is no GPU that it could suit
        monkeypatch.setattr(dispatch, "_is_gpu", lambda _: True)
        monkeypatch.setattr(dispatch, "_is_of_training", lambda _: False)
        monkeypatch.setattr("iart.model.iart.usable_backend", lambda name, _: name)
    model.backend = "triton"
    with autocast(clip.device, dtype):
        out = model(clip)
    assert not out.equal(expected)  # or nothing was told to compute otherwise
    if dtype == torch.float32:
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    else:  # rounded elsewhere, but not more
        assert (out - exact).norm() <= 1.25 * (expected - exact).norm()


@pytest.mark.parametrize("kernels", ["inference", "flow"])
def test_the_trial_finds_that_they_work(device: str, kernels: Literal["inference", "flow"]):
    assert gpu_trial.failure_of_triton(torch.device(device), kernels) is None


def test_the_trial_finds_wrong_numbers(device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_kernels, "SNAP", 1.0)  # the cells to the right and below
    failure = gpu_trial.failure_of_triton(torch.device(device))
    assert failure == "its kernels give other numbers than PyTorch"


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="here they run")
def test_the_trial_tells_why_they_do_not_run():
    failure = gpu_trial.failure_of_triton(torch.device("cpu"))
    assert failure is not None
    assert failure.startswith("its kernels do not run (")


def compiled(kernel: Any, tensors: dict[str, Tensor], constants: dict[str, Any], sm: int) -> Any:
    """Ahead of time, for GPUs of this compute capability."""
    options = {
        name: constants.pop(name) for name in list(constants) if name not in kernel.arg_names
    }
    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
    types |= {torch.int64: "*i64", torch.int32: "*i32"}
    signature = {name: "constexpr" if name in constants else "i32" for name in kernel.arg_names}
    signature |= {name: types[x.dtype] for name, x in tensors.items()}
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in tensors}
    source = triton.compiler.ASTSource(kernel, signature, constants, aligned)
    target = triton.backends.compiler.GPUTarget("cuda", sm, 32)
    return triton.compile(source, target=target, options=options)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sm", [80, 90])
def test_compiles_for(sm: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for n, k, d in ((6, 192, 20), (4, 48, 12)):
        query, key, value, bias = (x.to(dtype) for x in windows(1, n, k, k, d))
        tensors = {"query": query, "key": key, "value": value}
        biases = bias.contiguous()[None]
        constants = gpu_kernels.attend_constants(**tensors, biases=biases)
        tensors |= {"bias": biases, "out": query}
        attend = compiled(gpu_kernels.attend_kernel, tensors, constants, sm)

        x = torch.zeros(4, n * d, dtype=dtype)
        constants = gpu_kernels.resample_constants(x, x, x, n)
        names = ["query", "key", "value", "key_bias", "value_bias", "out"]
        tensors = dict.fromkeys(names, x) | {"flow": torch.zeros(4, 2)}
        resample = compiled(gpu_kernels.resample_kernel, tensors, constants, sm)

        constants = gpu_rows.rows_constants(n * d)
        index, wide, sizes = torch.zeros(4, dtype=torch.int64), x.float(), {"eps": 1e-5}
        affine = {"weight": wide, "bias": wide}
        rows = [
            compiled(getattr(gpu_rows, f"{name}_kernel"), tensors, constants | more, sm)
            for name, tensors, more in (
                ("norm_rows", {"x": wide, "source": index, **affine, "out": x}, sizes),
                (
                    "add_norm_rows",
                    {"x": wide, "source": index, "y": x, **affine, "added": wide, "out": x},
                    sizes,
                ),
                ("add_to_rows", {"out": wide, "target": index, "x": wide, "y": x}, {}),
                (
                    "encode",
                    {"current": x, "flow": wide, "frequency": wide, "out": x},
                    {"snap": SNAP},
                ),
            )
        ]
        flows = {"flow": wide, "last_flow": wide, "out": wide}
        rows.append(
            compiled(gpu_rows.chain_flows_kernel, flows, dict(gpu_rows.CHAIN_CONSTANTS), sm)
        )

        for kernel in (attend, resample, *rows):
            assert len(kernel.asm["cubin"]) > 0
            assert kernel.metadata.shared <= SHARED_MEMORY
