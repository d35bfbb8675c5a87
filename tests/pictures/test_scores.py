import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from iart.errors import DataError, IARTError, OptionsError
from iart.pictures.scores import psnr, rgb_to_y, ssim

GOLDENS = np.load(Path(__file__).parents[1] / "golden" / "data_goldens.npz")
CASES = [(luma, crop) for luma in (False, True) for crop in (0, 4)]


def golden(name: str) -> Tensor:
    """A stored picture as `3 h w`."""
    return torch.from_numpy(GOLDENS[name]).permute(2, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, B = golden("metric.a"), golden("metric.b")


@pytest.mark.parametrize(("luma", "crop"), CASES)
def test_psnr_is_the_golden(luma: bool, crop: int):
    expected = GOLDENS[f"psnr.y{int(luma)}.crop{crop}"].item()
    assert psnr(A, B, crop=crop, luma=luma) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("luma", "crop"), CASES)
def test_ssim_is_the_golden(luma: bool, crop: int):
    expected = GOLDENS[f"ssim.y{int(luma)}.crop{crop}"].item()
    assert ssim(A, B, crop=crop, luma=luma) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("luma", "crop"), CASES)
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_scores_do_not_depend_on_order_or_type(metric, luma: bool, crop: int):
    score = metric(A, B, crop=crop, luma=luma)
    assert metric(B, A, crop=crop, luma=luma) == pytest.approx(score, abs=1e-12)
    assert metric(A.float() / 255, B, crop=crop, luma=luma) == score
    assert metric(A, B.double() / 255 + 0.4 / 255, crop=crop, luma=luma) == score  # rounded first


def test_equal_frames():
    assert psnr(A, A) == math.inf
    assert psnr(A, A.clone().float() / 255, luma=True) == math.inf
    assert ssim(A, A) == pytest.approx(1, abs=1e-12)


def test_psnr_of_a_known_error():
    frame = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(frame, frame + 5) == pytest.approx(20 * math.log10(255 / 5), abs=1e-12)


def test_crop_leaves_the_border_out():
    spoilt = A.clone()
    spoilt[:, :3] = 0
    spoilt[:, :, -3:] = 255
    assert psnr(A, spoilt, crop=3) == math.inf
    assert psnr(A, spoilt, crop=2) < 60


def test_ssim_is_the_slow_equation():
    a, b = ((noise(3, 14, 12, seed=s) * 255).round() for s in (1, 2))
    taps = torch.tensor([math.exp(-(((k - 5) / 1.5) ** 2) / 2) for k in range(11)]).double()
    window = torch.outer(taps, taps) / taps.sum() ** 2
    scores = []
    for channel in range(3):
        for y in range(4):
            for x in range(2):
                p, q = (v[channel, y : y + 11, x : x + 11] for v in (a, b))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                # The two-pass forms: no difference of large numbers.
                variance_p = (window * (p - mean_p) ** 2).sum()
                variance_q = (window * (q - mean_q) ** 2).sum()
                covariance = (window * (p - mean_p) * (q - mean_q)).sum()
                light = (2 * mean_p * mean_q + 6.5025) / (mean_p**2 + mean_q**2 + 6.5025)
                shape = (2 * covariance + 58.5225) / (variance_p + variance_q + 58.5225)
                scores.append((light * shape).item())
    expected = sum(scores) / len(scores)
    assert ssim(a.to(torch.uint8), b.to(torch.uint8)) == pytest.approx(expected, abs=1e-9)


def test_luma_of_known_colours():
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()
    luma = rgb_to_y(colours.T[:, :, None])[:, 0]
    expected = [16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]
    assert luma.tolist() == pytest.approx(expected, abs=2e-5)  # float32 inside, as published
    assert rgb_to_y((colours.T[:, :, None] * 255).to(torch.uint8))[:, 0].equal(luma)
    assert rgb_to_y(noise(2, 5, 3, 4, 6)).shape == (2, 5, 4, 6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_different_sizes_are_named(metric):
    with pytest.raises(IARTError, match="differ in size: 66×50 and 60×50"):
        metric(A, B[:, :, :60])


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("crop", [-1, 25])
def test_a_crop_that_cannot_work(metric, crop: int):
    with pytest.raises(OptionsError, match=f"leave pixels of 66×50, got {crop}"):
        metric(A, B, crop=crop)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_frames_that_are_no_pictures(metric):
    with pytest.raises(DataError, match="uint8 or floating point"):
        metric(A.long(), B.long())
    with pytest.raises(OptionsError, match="NaN"):
        metric(A, torch.full(A.shape, math.nan))


def test_ssim_needs_room_for_its_window():
    with pytest.raises(OptionsError, match="at least 11×11 after crop, got 10×26"):
        ssim(A, B, crop=20)
