"""Flow by products of halves is as exact as float32: the arithmetic anywhere, and the kernel.

`test_gpu_kernels` runs this file in Triton's interpreter.
"""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from iart.model.flow import SpyNet
from iart.model.kernels import LOW, SCALE, dispatch
from iart.model.kernels.plain import split
from tests.model.formula import smooth_input, with_formula_weights
from tests.model.test_gpu_kernels import SHARED_MEMORY, compiled, needs_compiler

pytest.importorskip("triton", minversion="3.3")
gpu_flow = pytest.importorskip("iart.model.kernels.gpu_flow")

FLOAT32 = 2e-6
"""What sums of thousands of products in float32 are off by, of the largest."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def off(out: Tensor, exact: Tensor) -> float:
    return ((out.double().cpu() - exact.cpu()).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5])
def test_three_products_of_halves_are_one_of_float32(size: float):
    x, weight = size * numbers(1, 64, 9, 9), numbers(4, 64, 7, 7, seed=1) / 56
    exact = F.conv2d(x.double(), weight.double())
    (high, low), (weight_high, weight_low) = (
        part.float() for part in map(split, (SCALE * x, weight))
    )
    first = F.conv2d(high, weight_high)
    rest = F.conv2d(high, weight_low) + F.conv2d(low, weight_high)
    assert off((first + rest / LOW) / SCALE, exact) <= FLOAT32
    assert off(first / SCALE, exact) > 20 * FLOAT32  # which is why the others are there
    assert off(F.conv2d(x, weight), exact) <= FLOAT32


def test_halves_of_numbers_that_are_large_small_and_none():
    x = torch.tensor([0.0, 1 / 3, -1e-3, 1e6, torch.inf, torch.nan])
    high, low = split(SCALE * x)
    whole = (high.float() + low.float() / LOW) / SCALE
    torch.testing.assert_close(whole[:4], x[:4], rtol=2**-23, atol=1e-9)
    assert not whole[4:].isfinite().any()


class Convolutions(TorchDispatchMode):
    """Counts those that are ours, and those of PyTorch."""

    ours = theirs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        self.ours += name == "iart.convolve"
        self.theirs += name == "aten.convolution"
        return func(*args, **(kwargs or {}))


def test_who_takes_the_kernel():
    """On the meta device, which takes the way of a GPU: no gradient has it, nor float64."""
    with torch.device("meta"):
        spynet, frames = SpyNet((4, 6), 3), torch.empty(2, 3, 9, 13)
    convolutions = 3 * 3

    def seen() -> tuple[int, int]:
        with Convolutions() as found:
            assert spynet(frames, frames).shape == (2, 2, 9, 13)
        return found.ours, found.theirs

    assert seen() == (0, convolutions)
    with torch.no_grad():
        assert seen() == (convolutions, 0)
    spynet.requires_grad_(requires_grad=False)
    assert seen() == (convolutions, 0)
    spynet.backend = "torch"
    assert seen() == (0, convolutions)
    spynet.backend = "triton"
    spynet.double()
    assert seen() == (0, convolutions)


def test_only_gpus_made_for_training_take_it(monkeypatch: pytest.MonkeyPatch):
    """For the others, three products of halves are no gain."""
    monkeypatch.setattr(dispatch, "_is_gpu", lambda _: True)
    monkeypatch.setattr(dispatch, "_has", lambda *_: True)
    x = torch.zeros(1)
    for capability, suits in (((9, 0), True), ((8, 0), True), ((8, 6), False), ((12, 0), False)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, known=capability: known)
        assert dispatch.suits_split("triton", x, x, x) == suits
    assert not dispatch.suits_split("native", x, x, x)


# ---- the kernel


@pytest.mark.parametrize(
    ("b", "h", "w", "i", "o"),
    [(2, 9, 7, 8, 12), (1, 6, 11, 64, 32), (1, 3, 50, 12, 2), (1, 1, 1, 8, 33)],
)
@pytest.mark.parametrize("last", [False, True])
def test_convolve(b: int, h: int, w: int, i: int, o: int, last: bool, device: str):
    x, weight, bias = 3 * numbers(b, h, w, i), numbers(7, 7, i, o, seed=1), numbers(o, seed=2)
    # Levels cut theirs out of one tensor.
    parts = F.pad(split(weight / (7 * i**0.5)).flatten(1), (8, 16))[:, 8:-16].to(device)
    weight = parts.view(2, *weight.shape)
    out = gpu_flow.convolve(split(SCALE * x).to(device), weight, bias.to(device), last)
    whole = weight[0].double() + weight[1].double() / LOW
    maps, filters = x.permute(0, 3, 1, 2).double(), whole.permute(3, 2, 0, 1).cpu()
    exact = F.conv2d(maps, filters, bias.double(), padding=3)
    if not last:
        assert out.dtype == torch.float16
        exact = exact.relu().permute(0, 2, 3, 1)
        out = (out[0].double() + out[1].double() / LOW) / SCALE
    assert out.shape == exact.shape
    torch.testing.assert_close(
        out.double().cpu(), exact, rtol=0, atol=FLOAT32 * max(1, maps.abs().max().item())
    )


def test_convolve_shows_what_is_not_finite(device: str):
    x = torch.zeros(1, 2, 9, 8)
    x[0, 0, 0, 0] = torch.nan
    weight, bias = split(torch.ones(7, 7, 8, 2)).to(device), torch.zeros(2, device=device)
    out = gpu_flow.convolve(split(x).to(device), weight, bias, False)
    assert out[0, 0, :, :, 0].isfinite().tolist() == 2 * [[*4 * [False], *5 * [True]]]


@pytest.fixture
def spynet(device: str, monkeypatch: pytest.MonkeyPatch) -> SpyNet:
    monkeypatch.setattr(dispatch, "_is_gpu", lambda _: True)
    monkeypatch.setattr(dispatch, "_is_of_training", lambda _: True)
    return with_formula_weights(SpyNet((8, 6), 2), "flow.").to(device)


@torch.no_grad()
def test_flow_is_as_exact_as_in_float32(spynet: SpyNet, device: str):
    """Its weights may change in between: nothing of them is kept."""
    a, b = (smooth_input(f"spynet.{x}", (1, 3, 8, 11), clamp=True).to(device) for x in "ab")
    for _ in range(2):
        exact = copy.deepcopy(spynet).double()(a, b)
        spynet.backend = "torch"
        plain = spynet(a, b)
        spynet.backend = "triton"
        out = spynet(a, b)
        assert not out.equal(plain)  # or nothing was told to compute otherwise
        assert max(off(out, exact), off(plain, exact)) <= FLOAT32
        for weight in spynet.parameters():
            weight.mul_(0.7)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
def test_compiles_for(sm: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first and the widest layers of the full configuration, and the last of the light one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for i, o, last in ((8, 32, False), (32, 64, False), (64, 32, False), (8, 2, True)):
        x = torch.zeros(2, 1, 1, 1, i, dtype=torch.float16)
        weight, bias = torch.zeros(2, 7, 7, i, o, dtype=torch.float16), torch.zeros(o)
        constants = gpu_flow.convolve_constants(x, weight, bias, last)
        tensors = {"x": x, "weight": weight, "bias": bias, "out": bias if last else x}
        kernel = compiled(gpu_flow.convolve_kernel, tensors, constants, sm)
        assert len(kernel.asm["cubin"]) > 0
        assert kernel.metadata.shared <= SHARED_MEMORY
        assert "mma" in kernel.asm["ptx"]  # the units that multiply halves
