"""The yardstick of speed computes what the network does: goldens, and ours at odd sizes."""

import pytest
import torch
from torch import Tensor

from benchmarks.speed.plain import PlainIART
from iart.model import IART, IARTConfig
from tests.model.formula import smooth_input, with_formula_weights
from tests.model.test_goldens import TINY, WHOLE, assert_agrees, goldens

__all__ = ["goldens"]


def agrees_with_golden(golden: Tensor, config: IARTConfig, frames: Tensor) -> None:
    plain = with_formula_weights(PlainIART(config))
    with torch.inference_mode():
        assert_agrees(plain(frames)[..., ::5, ::7], golden, WHOLE)


@pytest.mark.slow
def test_golden_vectors(goldens: dict[str, Tensor]):
    frames = smooth_input("iart.lq", (2, 5, 3, 64, 64), clamp=True)
    agrees_with_golden(goldens["iart_tiny.2x5x64x64"], TINY, frames)


@pytest.mark.slow
def test_golden_vectors_of_an_odd_size(goldens: dict[str, Tensor]):
    frames = smooth_input("iart.lq", (1, 4, 3, 70, 82), clamp=True)
    agrees_with_golden(goldens["iart_tiny.1x4x70x82"], TINY, frames)


@pytest.mark.slow
def test_golden_vectors_of_the_full_configuration(goldens: dict[str, Tensor]):
    frames = smooth_input("iart.full", (1, 2, 3, 64, 64), clamp=True)
    agrees_with_golden(goldens["iart_full.1x2x64x64"], IARTConfig(), frames)


@pytest.mark.parametrize("recompute", [False, True])
def test_ours_computes_the_same(recompute: bool):
    """Output and every gradient in float64, with branches, heads and windows of another kind."""
    config = IARTConfig(
        channels=12, mid_channels=8, head_channels=4, flow_channels=(4,), flow_levels=3,
        depths=(2, 1), heads=(2, 3), window=(3, 4, 6), branches=3,
    )  # fmt: skip
    ours = with_formula_weights(IART(config)).double()
    plain = PlainIART(config).double()
    plain.load_state_dict(ours.state_dict())
    frames = smooth_input("odd", (2, 4, 3, 13, 19), clamp=True).double()
    made, expected = plain(frames, recompute=recompute), ours(frames, recompute=recompute)
    assert_agrees(made, expected, WHOLE)
    for out in (made, expected):
        out.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        # What a bias adds to all keys alike goes out in the softmax: its gradient is 0.
        tolerance = 1e-3 * float(parameter.grad.abs().max()) + 1e-12
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=tolerance)
