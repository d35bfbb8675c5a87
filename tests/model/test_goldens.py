"""The published network's outputs, for weights and inputs that a formula gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from iart.model import IART, IARTConfig
from iart.model.align import ImplicitAlign
from iart.model.flow import SpyNet, warp
from iart.model.fuse import SwinIRFM
from iart.weights import published_name
from tests.model.formula import given_flow, smooth_input, with_formula_weights

GOLDEN = Path(__file__).parents[1] / "golden"
PART, WHOLE = 1e-5, 1e-4
TINY = IARTConfig(channels=24, mid_channels=32, depths=(2, 2), heads=(4, 4))


@pytest.fixture(scope="module")
def goldens() -> dict[str, Tensor]:
    with np.load(GOLDEN / "network_goldens.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def tiny() -> IART:
    return with_formula_weights(IART(TINY))


def assert_agrees(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 3, 70, 90), (1, 3, 64, 96)])
def test_spynet(goldens: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    spynet = with_formula_weights(SpyNet((32, 64, 32, 16), 6), "flow.")
    a, b = (smooth_input(f"spynet.{x}", shape, clamp=True) for x in "ab")
    with torch.inference_mode():
        assert_agrees(spynet(a, b), goldens[f"spynet.{shape[2]}x{shape[3]}.flow"], PART)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warp(goldens: dict[str, Tensor], padding: str) -> None:
    x = smooth_input("flow_warp.x", (2, 4, 13, 17), clamp=False)
    flow = rearrange(given_flow("flow_warp.flow", (2, 13, 17, 2), 5), "b h w d -> b d h w")
    assert_agrees(warp(x, flow, padding), goldens[f"flow_warp.{padding}"], PART)


def test_implicit_align(goldens: dict[str, Tensor]) -> None:
    align = with_formula_weights(ImplicitAlign(24, 4), "align.")
    assert_agrees(align.position_bias, goldens["implicit_warp.position_bias"], PART)
    source, current = (smooth_input(f"warp.{x}", (2, 24, 20, 28), clamp=False) for x in "yx")
    source, current = (rearrange(x, "b c h w -> b h w c") for x in (source, current))
    flow = rearrange(given_flow("warp.flow", (2, 20, 28, 2), 6), "b h w d -> b d h w")
    out = rearrange(align(source, current, flow), "b h w c -> b c h w")
    # 2.6e-5 of this is the release's own rounding: it takes the fraction from p + flow.
    assert_agrees(out.detach(), goldens["implicit_warp.out"], 5e-5)


@pytest.mark.parametrize("shape", [(2, 3, 24, 16, 24), (1, 3, 24, 21, 30)])
def test_swin_irfm(goldens: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    fuse = SwinIRFM(24, (2, 2), (4, 4), (3, 8, 8), drop=0.1)
    with_formula_weights(fuse, "branches.forward_1.")
    maps = rearrange(smooth_input("swin.x", shape, clamp=False), "b t c h w -> b t h w c")
    with torch.inference_mode():
        out = rearrange(fuse(maps), "b h w c -> b c h w")
    assert_agrees(out, goldens[f"swin.24-8-{shape[3]}x{shape[4]}"], PART)


@pytest.mark.parametrize("shape", [(2, 5, 64, 64), (1, 4, 70, 82)])
def test_tiny_network(goldens: dict[str, Tensor], tiny: IART, shape: tuple[int, ...]) -> None:
    n, t, h, w = shape
    frames = smooth_input("iart.lq", (n, t, 3, h, w), clamp=True)
    with torch.inference_mode():
        out = tiny(frames)[..., ::5, ::7]
    assert_agrees(out, goldens[f"iart_tiny.{n}x{t}x{h}x{w}"], WHOLE)


@pytest.mark.parametrize("mirrored", [False, True])
def test_mirror_extended_clip(goldens: dict[str, Tensor], tiny: IART, mirrored: bool) -> None:
    half = smooth_input("iart.mirror", (1, 3, 3, 64, 64), clamp=True)
    with torch.inference_mode():
        out = tiny(torch.cat((half, half.flip(1)), dim=1), mirrored=mirrored)[..., ::5, ::7]
    assert_agrees(out, goldens["iart_tiny.mirror"], WHOLE)


@pytest.mark.slow
def test_full_network(goldens: dict[str, Tensor]) -> None:
    model = with_formula_weights(IART(IARTConfig()))
    frames = smooth_input("iart.full", (1, 2, 3, 64, 64), clamp=True)
    with torch.inference_mode():
        out = model(frames)[..., ::5, ::7]
    assert_agrees(out, goldens["iart_full.1x2x64x64"], WHOLE)


def test_every_published_name_is_covered() -> None:
    official = json.loads((GOLDEN / "official_state_dict.json").read_text())
    ours = {published_name(k): list(v.shape) for k, v in IART(IARTConfig()).named_parameters()}
    assert ours.items() <= official.items()
    rest = {name.rsplit(".", 1)[0].split(".")[-1] for name in official.keys() - ours.keys()}
    assert rest == {
        "attn", "implicit_warp", "spynet",  # buffers
        "conv_first", "conv_first_feat", "conv_before_upsample",  # never used
    }  # fmt: skip
    assert sum(np.prod(shape) for shape in ours.values()) == 12_843_367
