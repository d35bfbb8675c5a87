"""The ablations of IART §4.3: another resampling in the same network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iart.errors import WeightsError
from iart.model import IART
from iart.model.align import ALIGNMENTS, INTERPOLATIONS, ImplicitAlign, InterpolatedAlign
from iart.weights import load_model, save_model
from tests.model.formula import with_formula_weights
from tests.model.test_properties import TINY, noise


def network(alignment: str) -> IART:
    return with_formula_weights(IART(replace(TINY, alignment=alignment))).eval()


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_without_flow_interpolation_is_the_identity(mode: str):
    source, current = noise(2, 5, 7, 8), noise(2, 5, 7, 8, seed=1)
    moved = InterpolatedAlign(mode)(source, current, torch.zeros(2, 2, 5, 7))
    torch.testing.assert_close(moved, source, rtol=0, atol=1e-5)


def test_without_flow_implicit_alignment_is_not():
    align = with_formula_weights(ImplicitAlign(8, 2), "align.")
    source, current = noise(2, 5, 7, 8), noise(2, 5, 7, 8, seed=1)
    with torch.no_grad():
        moved = align(source, current, torch.zeros(2, 2, 5, 7))
    assert (moved - source).abs().max() > 0.1


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_a_whole_flow_moves_whole_pixels_and_meets_the_border(mode: str):
    source = noise(1, 5, 7, 8)
    flow = torch.tensor((2.0, -1.0)).view(1, 2, 1, 1).expand(1, 2, 5, 7)
    moved = InterpolatedAlign(mode)(source, source, flow)
    rows, columns = (torch.arange(5) - 1).clamp(0), (torch.arange(7) + 2).clamp(max=6)
    torch.testing.assert_close(moved, source[:, rows][:, :, columns], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_each_alignment_gives_another_picture():
    frames = noise(1, 3, 3, 12, 16)
    outputs: list[Tensor] = [network(alignment)(frames) for alignment in ALIGNMENTS]
    for i, first in enumerate(outputs):
        for second in outputs[i + 1 :]:
            assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_an_ablation_has_no_parameters_and_trains(mode: str):
    model = network(mode).train()
    assert not list(model.align.parameters())
    assert (
        dict(model.named_parameters()).keys() < dict(network("implicit").named_parameters()).keys()
    )
    model(noise(1, 3, 3, 12, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("mode", INTERPOLATIONS)
def test_an_ablation_is_saved_with_its_name(tmp_path: Path, mode: str):
    model, frames = network(mode), noise(1, 2, 3, 8, 8)
    save_model(model, tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", "cpu")
    assert isinstance(loaded, IART)
    assert loaded.config == model.config
    with torch.inference_mode():
        assert torch.equal(loaded(frames), model(frames))
    with pytest.raises(WeightsError, match=f"implicit alignment only, not {mode}"):
        save_model(model, tmp_path / "w.pth")


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="implicit, bilinear, nearest, bicubic, got 'linear'"):
        replace(TINY, alignment="linear")
