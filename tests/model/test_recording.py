"""The network under what looks at PyTorch's operations: exporting, `torch.func`, FLOP counters."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vjp, vmap
from torch.utils.flop_counter import FlopCounterMode

from iart.model import IART
from tests.model.formula import with_formula_weights
from tests.model.test_kernels import head_tensors
from tests.model.test_pieces import SMALL

LENGTHS = (1, 3)
# Correct all the same; only under `vmap` without gradients.
slow_index_copy = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


@pytest.fixture(scope="module")
def model() -> IART:
    return with_formula_weights(IART(SMALL)).eval().requires_grad_(False)


def clip(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own exporter
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("t", "backend"),
    [
        (1, "torch"),
        (1, "native"),
        *(
            pytest.param(t, backend, marks=pytest.mark.slow)
            for t, backend in [(3, "native"), (3, "torch"), (4, "native"), (4, "torch")]
        ),
    ],
)
def test_exported_from_constant_frames_it_enlarges_others(t: int, backend: str):
    model = with_formula_weights(IART(SMALL)).eval().requires_grad_(False)
    model.backend = backend
    constant, frames = torch.full((1, t, 3, 9, 13), 0.5), clip(1, t, 3, 9, 13)
    with torch.no_grad():
        program = torch.export.export(model, (constant,), strict=False)
        torch.testing.assert_close(program.module()(frames), model(frames), rtol=0, atol=1e-5)
    names = {str(node.target) for node in program.graph.nodes}
    assert any(name.startswith("iart.") for name in names) == (backend == "native")


@slow_index_copy
@pytest.mark.parametrize("t", LENGTHS)
def test_vmap_gives_what_a_loop_gives(model: IART, t: int):
    clips = clip(2, 1, t, 3, 9, 13)
    expected = torch.stack([model(one) for one in clips])
    torch.testing.assert_close(vmap(model)(clips), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(vmap(model)(clips), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("t", LENGTHS)
def test_gradients_of_torch_func_are_those_of_autograd(model: IART, t: int):
    frames = clip(1, t, 3, 9, 13)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], frames: Tensor) -> Tensor:
        return functional_call(model, weights, (frames,)).square().mean()

    tracked = {name: p.clone().requires_grad_() for name, p in weights.items()}
    loss(tracked, frames).backward()
    found = grad(loss)(weights, frames)
    for name, parameter in tracked.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)

    leaf = frames.clone().requires_grad_()
    model(leaf).square().sum().backward()
    out, back = vjp(model, frames)[:2]
    torch.testing.assert_close(back(2 * out)[0], leaf.grad, rtol=1e-3, atol=1e-4)


def test_gradients_of_every_sample(model: IART):
    clips = clip(2, 1, 3, 3, 9, 13)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], frames: Tensor) -> Tensor:
        return functional_call(model, weights, (frames,)).square().mean()

    together = vmap(grad(loss), in_dims=(None, 0))(weights, clips)
    for i, frames in enumerate(clips):
        for name, expected in grad(loss)(weights, frames).items():
            torch.testing.assert_close(together[name][i], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("t", [1, *(pytest.param(t, marks=pytest.mark.slow) for t in (3, 4))])
def test_tensors_without_numbers_have_shapes(t: int):
    with torch.device("meta"):
        model = IART(SMALL)
        assert model(torch.empty(2, t, 3, 9, 13)).shape == (2, t, 3, 36, 52)
    real = IART(SMALL)
    for gradient in (False, True):
        with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(gradient):
            out = real(torch.empty(2, t, 3, 9, 13))
            assert out.shape == (2, t, 3, 36, 52)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_operators_are_what_pytorch_wants(backend: str):
    inputs = head_tensors(2, 2, 16, 48, 4)
    torch.library.opcheck(torch.ops.iart.attend, (*inputs, backend))
    torch.library.opcheck(torch.ops.iart.attend_backward, (*inputs, clip(2, 2, 16, 4), backend))
    p, n, d, (h, w) = 12, 2, 4, (3, 4)
    maps = [clip(p, n, d), clip(p, n * d), clip(p, n * d), clip(4, n * d), clip(4, n * d)]
    floor, places = (4 * clip(p, 2)).floor() - 2, torch.arange(p)
    torch.library.opcheck(torch.ops.iart.resample, (*maps, floor, places, (h, w), backend))


def test_flop_counters_see_attention_and_alignment(model: IART):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip(1, 3, 3, 8, 12))
    counted = {str(op): number for op, number in counter.get_flop_counts()["Global"].items()}
    # 2 branches of 3 steps; 2 × 3 windows of 48 cells; 5 blocks, of which the last asks for 16.
    windows, channels = 2 * 3 * 6, SMALL.channels
    assert counted["iart.attend"] == 4 * windows * channels * 48 * (4 * 48 + 16)
    # At each step after a branch's first one map is aligned, after its second another.
    assert counted["iart.resample"] == 16 * channels * 8 * 12 * 2 * 3


def test_clips_of_another_kind_are_refused():
    """In a process without the checks of types that tests run under."""
    code = """
import torch
from iart import IART, IARTConfig, OptionsError
model = IART(IARTConfig(8, 8, 4, (4,), 2, (1,), (2,), (3, 4, 4)))
for frames in (torch.zeros(3, 3, 9, 9), torch.zeros(1, 2, 4, 9, 9), torch.zeros(1, 0, 3, 9, 9),
               torch.zeros(1, 2, 3, 9, 9, dtype=torch.uint8)):
    try:
        model(frames)
    except OptionsError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shapes = "the network takes clips of shape (batch, frames, 3, height, width), got "
    assert run.stdout.splitlines() == [
        shapes + "(3, 3, 9, 9)",
        shapes + "(1, 2, 4, 9, 9)",
        shapes + "(1, 0, 3, 9, 9)",
        "the network takes floating point RGB in [0, 1], got torch.uint8",
    ]
