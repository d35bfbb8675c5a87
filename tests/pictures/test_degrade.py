import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.degrade import degrade_bd, degrade_bi, to_uint8

GOLDENS = np.load(Path(__file__).parents[1] / "golden" / "data_goldens.npz")


def golden(name: str) -> Tensor:
    """A stored picture as `3 h w`."""
    return torch.from_numpy(GOLDENS[name]).permute(2, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- 8 bits


def test_to_uint8_rounds_half_up_and_clamps():
    values = torch.tensor([-0.2, 0.0, 0.5, 1.5, 2.4999, 254.5, 255.0, 300.0], dtype=torch.float64)
    assert to_uint8(values / 255).tolist() == [0, 0, 1, 2, 2, 255, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_uint8_undoes_the_division(dtype: torch.dtype):
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_uint8(levels.to(dtype) / 255).equal(levels)


def test_to_uint8_refuses_nan():
    with pytest.raises(OptionsError, match="NaN"):
        to_uint8(torch.tensor([0.5, math.nan]))


def test_degrade_bi_rounds_the_golden():
    expected = to_uint8(golden("resize.bicubic.0.25"))
    assert degrade_bi(golden("resize.x")).equal(expected)


def test_degrade_bi_stays_within_8_bits():
    edges = torch.zeros(1, 64, 64, dtype=torch.uint8)
    edges[..., 32:] = 255  # bicubic overshoots on both sides
    assert set(degrade_bi(edges).unique().tolist()) >= {0, 255}
    assert degrade_bi(edges)[..., 8:].min() > 128


def test_degrade_bd_is_the_golden():
    assert degrade_bd(golden("bd.x")).equal(golden("bd.out"))


def test_degrade_bd_is_the_slow_equation():
    image = (noise(9, 14) * 255).round()
    taps = [math.exp(-(((k - 5.5) / 1.6) ** 2) / 2) for k in range(12)]
    total = sum(taps) ** 2
    for row, y in enumerate(range(1, 8, 4)):
        for column, x in enumerate(range(1, 12, 4)):
            value = 0.0
            for i in range(12):
                for j in range(12):
                    near = image[min(max(y + i - 5, 0), 8), min(max(x + j - 5, 0), 13)].item()
                    value += taps[i] * taps[j] * near / total
            result = degrade_bd(image.to(torch.uint8))
            assert result.shape == (2, 3)  # 9×14: one row and two columns are left over
            assert result[row, column].item() == math.floor(value + 0.5)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_degradations_keep_constants(value: int):
    image = torch.full((3, 44, 52), value, dtype=torch.uint8)
    for small in (degrade_bd(image), degrade_bi(image)):
        assert small.shape == (3, 11, 13)
        assert small.eq(value).all()


def test_degrade_bd_refuses_an_image_below_4():
    with pytest.raises(OptionsError, match="at least 4×4, got 3×8"):
        degrade_bd(torch.zeros(3, 3, 8, dtype=torch.uint8))
