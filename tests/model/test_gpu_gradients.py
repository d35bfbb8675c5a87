"""Gradients of the kernels for GPUs are those of PyTorch, and the same bits in any order.

`test_gpu_kernels` runs this file in Triton's interpreter.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iart.device import autocast
from iart.model import IART
from iart.model.align import ImplicitAlign
from iart.model.kernels import SNAP, dispatch, gpu_operators, gpu_trial
from tests.model.conftest import INTERPRETED
from tests.model.formula import with_formula_weights
from tests.model.test_gpu_kernels import (
    SHARED_MEMORY,
    TOLERANCES,
    compiled,
    dtypes,
    needs_compiler,
    windows,
)
from tests.model.test_pieces import SMALL

triton = pytest.importorskip("triton", minversion="3.3")
gpu_kernels = pytest.importorskip("iart.model.kernels.gpu")
gpu_gradients = pytest.importorskip("iart.model.kernels.gpu_gradients")
gpu_align = pytest.importorskip("iart.model.kernels.gpu_align_gradients")


@pytest.fixture
def on_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where networks take the kernels: if Triton interprets, there is no GPU that these suit."""
    if INTERPRETED:
        monkeypatch.setattr(dispatch, "_is_gpu", lambda _: True)
        monkeypatch.setattr("iart.model.iart.usable_backend", lambda name, _: name)
    dispatch._has.cache_clear()
    return torch.device(device)


def attention_inputs(
    counts: tuple[int, ...], n: int, q: int, k: int, d: int, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """Queries of the middle cells, keys, values, biases of each kind, and a gradient."""
    generator = torch.Generator().manual_seed(1)
    query, key, value, _ = windows(sum(counts), n, q, k, d)
    biases = torch.randn(len(counts), n, k, k, generator=generator)
    biases[1:, :, : k // 2, k // 2 :] -= 100  # pairs that the roll brought together
    biases = biases.to(device, dtype)[:, :, k - q :]  # a view, as of the middle frame's queries
    grad = torch.randn(sum(counts), n, q, d, generator=generator)
    return [*(x.to(device, dtype) for x in (query, key, value)), biases, grad.to(device, dtype)]


def attended(inputs: list[Tensor], counts: tuple[int, ...]) -> Tensor:
    query, key, value, biases = inputs
    of_windows = biases.repeat_interleave(torch.tensor(counts, device=query.device), dim=0)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=of_windows)


def assert_like(got: Tensor, exact: Tensor, dtype: torch.dtype):
    """Off by the rounding of the type, at the scale of the largest."""
    tolerance = 2 * TOLERANCES[dtype]
    room = tolerance * max(1.0, exact.abs().max().item()) if exact.numel() else 0.0
    torch.testing.assert_close(got.double().cpu(), exact.cpu(), rtol=tolerance, atol=room)


@dtypes
@pytest.mark.parametrize(
    ("counts", "sizes", "programs"),
    [
        ((2, 1, 0, 3), (2, 16, 48, 12), gpu_gradients.PROGRAMS),
        ((4, 3, 0, 3), (2, 16, 48, 12), 6),
        ((4,), (2, 48, 48, 12), 4),
        ((0, 0, 0, 6), (2, 5, 7, 3), 4),
        ((5, 1), (1, 1, 1, 1), 2),
        ((1, 0, 1), (1, 67, 90, 33), gpu_gradients.PROGRAMS),
        ((1,), (2, 64, 192, 20), gpu_gradients.PROGRAMS),
    ],
)
def test_attention(
    counts: tuple[int, ...],
    sizes: tuple[int, int, int, int],
    programs: int,
    device: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
):
    """All kinds of windows, alone in their groups and several in one."""
    monkeypatch.setattr(gpu_gradients, "PROGRAMS", programs)
    *inputs, grad = attention_inputs(counts, *sizes, device, dtype)
    exact = [x.double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(attended(exact, counts), exact, grad.double())
    query, key, value, biases = inputs
    got = gpu_gradients.differentiate(query, key, value, biases, counts, grad)
    for mine, theirs, x in zip(got, expected, inputs, strict=True):
        assert (mine.dtype, mine.shape) == (dtype, x.shape)
        assert_like(mine, theirs, dtype)


def test_attention_of_no_windows(device: str):
    inputs = attention_inputs((0, 0), 2, 3, 5, 4, device, torch.float32)
    *of_windows, of_biases = gpu_gradients.differentiate(*inputs[:4], (0, 0), inputs[4])
    assert [len(x) for x in of_windows] == [0, 0, 0]
    assert of_biases.equal(torch.zeros_like(inputs[3]))


def test_attention_with_large_logits(device: str):
    query, *others, grad = attention_inputs((1, 1), 1, 16, 40, 4, device, torch.float32)
    inputs = [1e3 * query, *others]
    exact = [x.double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(attended(exact, (1, 1)), exact, grad.double())
    for mine, theirs in zip(
        gpu_gradients.differentiate(*inputs, (1, 1), grad), expected, strict=True
    ):
        assert_like(mine, theirs, torch.bfloat16)  # logits of thousands are rounded to 2^-12
        assert mine.isfinite().all()


def aligned(flow: Tensor, heads: int, *maps: Tensor) -> Tensor:
    """By PyTorch; what `gpu_kernels.resample` gives."""
    query, key, value, key_bias, value_bias = maps
    by_pixel = flow.flip(1).permute(0, 2, 3, 1).reshape(len(query), 2)
    asks = query.unflatten(1, (heads, -1)) * (query.shape[1] // heads) ** -0.5
    places, (*_, h, w) = torch.arange(len(query), device=flow.device), flow.shape
    floor, biases = (by_pixel + SNAP).floor(), (key_bias, value_bias)
    return dispatch.resample(asks, key, value, biases, floor, places, (h, w), "torch")


@dtypes
@pytest.mark.parametrize(
    ("f", "h", "w", "c", "n", "reach", "programs"),
    [
        (1, 5, 7, 120, 6, 2.0, gpu_gradients.PROGRAMS),
        (2, 9, 4, 48, 4, 40.0, 4),
        (2, 1, 1, 12, 3, 1.0, gpu_gradients.PROGRAMS),
        (1, 1, 33, 8, 1, 3.0, 2),
        (3, 5, 8, 24, 4, 0.0, 4),
    ],
)
def test_alignment(
    f: int,
    h: int,
    w: int,
    c: int,
    n: int,
    reach: float,
    programs: int,
    device: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
):
    """Where flow stays, ends elsewhere, and far outside, where all look at a corner."""
    monkeypatch.setattr(gpu_align, "PROGRAMS", programs)
    generator = torch.Generator().manual_seed(0)
    p = f * h * w
    # Their rows are apart.
    packed = torch.randn(p, 4, c, generator=generator).to(device, dtype)
    biases = torch.randn(2, 4, c, generator=generator).to(device, dtype)
    flow = reach * torch.randn(f, 2, h, w, generator=generator)
    flow.view(-1)[::5].round_()
    flow.view(-1)[1::7] *= 1e12
    flow = flow.to(device)
    *maps, grad = packed.unbind(1)
    inputs = [*maps, *biases]
    exact = [x.double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(aligned(flow, n, *exact), exact, grad.double())
    *of_maps, of_biases = gpu_align.differentiate_resample(*inputs, flow, n, grad)
    for mine, theirs in zip((*of_maps, *of_biases), expected, strict=True):
        assert mine.dtype == dtype
        assert_like(mine, theirs, dtype)


def differentiated(device: str) -> list[Tensor]:
    """By every kernel of gradients, in float16, of which sums show their order."""
    counts = (5, 2, 0, 3)
    *inputs, grad = attention_inputs(counts, 2, 16, 48, 12, device, torch.float16)
    found = [*gpu_gradients.differentiate(*inputs, counts, grad)]
    generator = torch.Generator().manual_seed(0)
    *maps, grad = torch.randn(4, 2 * 4 * 5, 24, generator=generator).to(device, torch.float16)
    biases = torch.randn(2, 4, 24, generator=generator).to(device, torch.float16)
    flow = (5 * torch.randn(2, 2, 4, 5, generator=generator)).to(device)
    found += gpu_align.differentiate_resample(*maps, *biases, flow, 2, grad)
    frequency = ImplicitAlign(24, 2).frequency.to(device)
    return [*found, gpu_align.differentiate_encoding(grad, flow, frequency)]


def test_programs_in_any_order_give_the_same_bits(device: str, monkeypatch: pytest.MonkeyPatch):
    for module in (gpu_gradients, gpu_align):
        monkeypatch.setattr(module, "PROGRAMS", 8)
    expected = differentiated(device)
    if INTERPRETED:
        builder = triton.runtime.interpreter.InterpreterBuilder
        forwards = builder.set_grid_idx

        def backwards(self: Any, x: int, *others: int) -> None:
            forwards(self, self.grid_dim[0] - 1 - x, *others)

        monkeypatch.setattr(builder, "set_grid_idx", backwards)
    for mine, theirs in zip(differentiated(device), expected, strict=True):
        assert mine.equal(theirs)


class _Largest(TorchDispatchMode):
    """Of the tensors that are made in the block, in numbers."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.is_floating_point()]
        self.numbers = max(self.numbers, *(x.numel() for x in made), 0)
        return out


def test_the_gradient_of_the_bias_takes_no_memory_of_every_window(
    device: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu_gradients, "PROGRAMS", 8)
    *inputs, grad = attention_inputs((30, 20), 1, 16, 16, 4, device, torch.float32)
    with _Largest() as largest:
        gpu_gradients.differentiate(*inputs, (30, 20), grad)
    assert 8 * 16 * 16 <= largest.numbers < 50 * 16 * 16 // 3


def test_operators_are_what_they_say(device: str):
    """Schemas, and shapes and strides without numbers."""
    counts = (2, 1)
    *inputs, grad = attention_inputs(counts, 2, 16, 48, 12, device, torch.float32)
    maps = torch.randn(4, 12, 8).to(device)
    biases, flow = torch.randn(2, 4, 8).to(device), torch.randn(1, 2, 3, 4).to(device)
    frequency = ImplicitAlign(8, 2).frequency.to(device)
    launch = torch.ops.iart
    for operator, given in (
        (launch.attend_windows, (*inputs, counts)),
        (launch.attend_windows_backward, (*inputs, counts, grad)),
        (launch.align, (*maps[:3], *biases, flow, 2)),
        (launch.align_backward, (*maps[:3], *biases, flow, 2, maps[3])),
        (launch.encode, (maps[0].view(1, 3, 4, 8), flow, frequency, torch.float16)),
        (launch.encode_backward, (maps[0], flow, frequency)),
    ):
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(operator.default, given, test_utils=tests)


def test_there_is_no_second_gradient(device: str):
    counts = (2, 1)
    *inputs, _ = attention_inputs(counts, 2, 16, 48, 12, device, torch.float32)
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = gpu_operators.attend_windows(*inputs, counts)
    (first,) = torch.autograd.grad(out.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def gradients(model: IART, clip: Tensor) -> list[Tensor]:
    """Of all weights and of the clip; through flow, too."""
    clip = clip.clone().requires_grad_()
    loss = model(clip).float().square().sum()
    return [*torch.autograd.grad(loss, [*model.parameters(), clip])]


def test_the_network_learns_the_same(on_gpu: torch.device):
    config = replace(SMALL, depths=(2,), heads=(2,), branches=2)
    model = with_formula_weights(IART(config)).to(on_gpu)
    clip = torch.rand(1, 3, 3, 9, 5, generator=torch.Generator().manual_seed(0)).to(on_gpu)
    model.backend = "torch"
    expected = gradients(model, clip)
    model.backend = "triton"
    got = gradients(model, clip)
    assert not all(map(torch.equal, got, expected))  # or nothing was told to compute otherwise
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm() + 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_network_learns_no_worse_in_half_precision(on_gpu: torch.device, dtype: torch.dtype):
    """Rounded elsewhere than by PyTorch, but as near to the gradients in float32."""
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter rounds it towards zero")
    config = replace(SMALL, depths=(1,), heads=(2,), branches=1)
    model = with_formula_weights(IART(config)).to(on_gpu)
    clip = torch.rand(1, 3, 3, 5, 4, generator=torch.Generator().manual_seed(0)).to(on_gpu)
    model.backend = "torch"
    exact = gradients(model, clip)
    with autocast(on_gpu, dtype):
        theirs = gradients(model, clip)
        model.backend = "triton"
        ours = gradients(model, clip)
    assert not all(map(torch.equal, ours, theirs))  # or nothing was told to compute otherwise

    def errors(found: list[Tensor]) -> Tensor:
        return torch.stack([(x - y).norm() for x, y in zip(found, exact, strict=True)])

    sizes = torch.stack([x.norm() for x in exact])
    mine, known = errors(ours), errors(theirs)
    # In float16 9e-4 of it, measured: as PyTorch's.
    assert known.norm() <= 4 * torch.finfo(dtype).eps * sizes.norm()
    assert mine.norm() <= 1.25 * known.norm()
    # Of each weight: what is 0 but for rounding may be off by more.
    assert (mine <= 2 * known + torch.finfo(dtype).eps * sizes).all()


def test_the_trial_finds_that_they_work(device: str):
    assert gpu_trial.failure_of_triton(torch.device(device), "gradients") is None


def test_where_they_do_not_work_pytorch_steps_in(
    on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    align = with_formula_weights(ImplicitAlign(8, 2), "align.").to(on_gpu)
    maps, flow = torch.randn(2, 1, 4, 5, 8, device=on_gpu), torch.randn(1, 2, 4, 5, device=on_gpu)
    expected = align(*maps, flow)
    align.backend = "triton"
    monkeypatch.setattr(gpu_kernels, "SNAP", 1.0)  # the cells to the right and below
    with caplog.at_level(logging.INFO, "iart"):
        for _ in range(2):
            assert align(*maps, flow).equal(expected)
    told = [line for line in caplog.messages if line.startswith("gradients: ")]
    assert told == [
        "gradients: PyTorch's operations, not Triton: its kernels give other numbers than PyTorch"
    ]
    dispatch._has.cache_clear()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sm", [80, 90])
def test_compiles_for(sm: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    wide, index = torch.zeros(4), torch.zeros(4, dtype=torch.int32)
    made = []

    def kernel(name: str, tensors: dict[str, Tensor], constants: dict[str, Any]) -> None:
        module = gpu_align if hasattr(gpu_align, f"{name}_kernel") else gpu_gradients
        made.append(compiled(getattr(module, f"{name}_kernel"), tensors, constants, sm))

    for n, k, d in ((6, 192, 20), (4, 48, 12)):
        query, key, value, bias = (x.to(dtype) for x in windows(1, n, k, k, d))
        tensors = {"query": query, "key": key, "value": value}
        biases = bias.contiguous()[None]
        constants = gpu_kernels.attend_constants(**tensors, biases=biases)
        tensors |= {"bias": biases, "grad": query, "levels": wide, "means": wide}
        of_keys = gpu_gradients.keys_constants(constants, dtype)
        outputs = {"key_grad": query, "value_grad": query, "sums": wide}
        kernel("keys", tensors | outputs, of_keys)
        kernel("queries", tensors | {"query_grad": query}, constants)

        x = torch.zeros(4, n * d, dtype=dtype)
        of_cells = {"weights": wide, "of_logits": wide}
        constants = gpu_kernels.resample_constants(x, x, x, n)
        names = ["query", "key", "value", "key_bias", "value_bias", "grad", "query_grad"]
        tensors = dict.fromkeys(names, x) | of_cells
        kernel("pixels", tensors | {"flow": wide, "corners": index, "sums": wide}, constants)
        tensors = dict.fromkeys(["query", "grad", "key_grad", "value_grad"], x) | of_cells
        tensors |= {"order": index.long(), "starts": index}
        kernel("cells", tensors, gpu_align.cells_constants(x, n))
        constants = gpu_align.rows_constants(n * d) | {"snap": SNAP}
        names = ["flow", "frequency", "out"]
        kernel("encoding", {"grad": x, **dict.fromkeys(names, wide)}, constants)
    kernel("sum", {"sums": wide, "out": wide.to(dtype)}, dict(gpu_gradients.SUMMED))
    for done in made:
        assert len(done.asm["cubin"]) > 0
        assert done.metadata.shared <= SHARED_MEMORY


@pytest.mark.parametrize(
    ("cells", "channels", "launched"), [(192, 20, True), (256, 33, False), (257, 8, False)]
)
def test_windows_that_are_too_large_learn_by_pytorch(cells: int, channels: int, launched: bool):
    """On the meta device, which takes the way of a GPU."""
    called: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.device("meta"):
        query = torch.empty(3, 2, cells, channels, requires_grad=True)
        bias = torch.empty(1, 2, cells, cells, requires_grad=True)
    with Names():
        out = dispatch.attend_windows(query, query, query, bias, [(0, 3)], "triton")
        out.backward(torch.empty_like(out))
    assert ("iart.attend_windows_backward.default" in called) == launched
    assert query.grad is not None
    assert query.grad.shape == query.shape
