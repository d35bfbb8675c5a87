"""Every part and the whole network against the slow equations, in float64."""

from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iart.model import IART, IARTConfig
from iart.model.align import ImplicitAlign
from iart.model.flow import SpyNet, warp
from iart.model.fuse import SwinIRFM
from iart.model.kernels.plain import CELLS
from iart.model.upsample import Head
from tests import reference
from tests.model.formula import uniform, with_formula_weights

M = TypeVar("M", bound=nn.Module)
TOLERANCE = 1e-9
TINY = IARTConfig(
    channels=8, mid_channels=4, head_channels=4, flow_channels=(4, 6), flow_levels=2,
    depths=(2, 1), heads=(2, 4), window=(3, 4, 4),
)  # fmt: skip


def exact(module: M, prefix: str) -> M:
    """Formula weights in float64; constants, which are float32 by nature, in float64 as well."""
    with_formula_weights(module, prefix).double()
    for part in module.modules():
        if isinstance(part, SpyNet):
            part.mean = torch.tensor(reference.MEAN, dtype=torch.float64).view(1, 3, 1, 1)
            part.std = torch.tensor(reference.STD, dtype=torch.float64).view(1, 3, 1, 1)
        if isinstance(part, ImplicitAlign):
            channels = part.position_bias.shape[-1]
            bias = [reference.sine_encoding(y, x, channels, m=1) for y, x in CELLS]
            part.position_bias = torch.from_numpy(np.stack(bias))[None]
    return module


def planar(x: np.ndarray) -> Tensor:
    """`h w c` → `1 c h w`."""
    return torch.from_numpy(x.copy()).permute(2, 0, 1)[None]


def batched(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x.copy())[None]


def frame(name: str, h: int, w: int) -> np.ndarray:
    return 0.5 + 0.5 * uniform(name, (h, w, 3))


def assert_agrees(actual: Tensor, expected: np.ndarray) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=TOLERANCE)


def test_position_bias_is_the_encoding_of_the_cells():
    stored = ImplicitAlign(8, 2).position_bias[0].numpy()
    expected = [reference.sine_encoding(y, x, 8, m=1) for y, x in CELLS]
    # The angles reach 2π · 100^(3/4): what float32 resolves there.
    np.testing.assert_allclose(stored, np.stack(expected), atol=1e-4)


@pytest.mark.parametrize("size", [(9, 11), (1, 1), (1, 7), (12, 8)])
def test_spynet(size: tuple[int, int]):
    spynet = exact(SpyNet((4, 6), 2), "flow.")
    a, b = frame("a", *size), frame("b", *size)
    expected = reference.spynet(a, b, reference.weights_of(spynet))
    assert_agrees(spynet(planar(a), planar(b))[0].permute(1, 2, 0), expected)


def test_spynet_with_an_odd_coarsest_level():
    spynet = exact(SpyNet((4,), 3), "flow.")
    a, b = frame("a", 11, 20), frame("b", 11, 20)  # 3×5 at the coarsest
    expected = reference.spynet(a, b, reference.weights_of(spynet))
    assert_agrees(spynet(planar(a), planar(b))[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", [(7, 5), (1, 6), (1, 1)])
def test_warp(size: tuple[int, int], padding: str):
    x, flow = uniform("x", (*size, 3)), 3 * uniform("f", (*size, 2))
    if size == (1, 6):
        flow[..., 1] = 0  # a side of one pixel is sampled at that pixel only
    if size == (1, 1):
        flow[:] = 0
    out = warp(planar(x), planar(flow), padding)[0].permute(1, 2, 0)
    assert_agrees(out, reference.warp(x, flow, padding))


@pytest.mark.parametrize("size", [(6, 7), (1, 1), (2, 5)])
def test_implicit_align(size: tuple[int, int]):
    align = exact(ImplicitAlign(8, 2), "align.")
    source, current = uniform("s", (*size, 8)), uniform("c", (*size, 8))
    flow = 4 * uniform("f", (*size, 2))
    expected = reference.align(source, current, flow, reference.weights_of(align), heads=2)
    assert_agrees(align(batched(source), batched(current), planar(flow))[0], expected)


@pytest.mark.parametrize(
    ("size", "window"),
    [((9, 11), (3, 4, 4)), ((8, 4), (3, 4, 4)), ((3, 2), (3, 4, 4)), ((7, 6), (3, 5, 3))],
)
def test_swin_irfm(size: tuple[int, int], window: tuple[int, int, int]):
    fuse = exact(SwinIRFM(8, (2, 2), (2, 4), window, drop=0.1), "branches.forward_1.")
    maps = [uniform(f"m{i}", (*size, 8)) for i in range(3)]
    expected = reference.swin_irfm(maps, reference.weights_of(fuse), (2, 4), window)
    assert_agrees(fuse(batched(np.stack(maps)))[0], expected)


def test_head():
    head = exact(Head(8, 4, 4), "head.")
    x, picture = uniform("x", (3, 4, 8)), frame("f", 3, 4)
    expected = reference.head(x, picture, reference.weights_of(head))
    assert_agrees(head(batched(x), planar(picture))[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize(("frames", "size"), [(4, (9, 11)), (3, (5, 6)), (1, (5, 3))])
def test_network(frames: int, size: tuple[int, int]):
    model = exact(IART(TINY), "")
    with torch.no_grad():  # so that flows are pixels long
        for level in model.flow.levels:
            level[-1].weight.mul_(8)  # pyright: ignore[reportIndexIssue]
    clip = [frame(f"f{i}", *size) for i in range(frames)]
    expected = reference.network(
        clip, reference.weights_of(model), TINY.heads, TINY.window, TINY.branches
    )
    out = model(batched(np.stack(clip)).permute(0, 1, 4, 2, 3))[0].permute(0, 2, 3, 1)
    assert_agrees(out, np.stack(expected))
    if frames > 1:
        first, second = planar(clip[0]), planar(clip[1])
        assert model.flow(first, second).abs().max() > 1
