import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.resize import imresize

GOLDENS = np.load(Path(__file__).parents[1] / "golden" / "data_goldens.npz")


def golden(name: str) -> Tensor:
    """A stored picture as `3 h w`."""
    return torch.from_numpy(GOLDENS[name]).permute(2, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the equation as slow loops


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_line(line: list[float], scale: float) -> list[float]:
    """MATLAB counts from 1: output x looks at u = x/s + (1 − 1/s)/2."""
    size, stretch = len(line), min(scale, 1.0)
    mirror = line + line[::-1]
    result = []
    for x in range(1, math.ceil(scale * size) + 1):
        u = x / scale + (1 - 1 / scale) / 2
        reach = math.ceil(2 / stretch) + 1
        near = range(math.floor(u) - reach, math.floor(u) + reach + 1)
        weights = [cubic(stretch * (u - j)) for j in near]
        total = sum(w * mirror[(j - 1) % (2 * size)] for w, j in zip(weights, near, strict=True))
        result.append(total / sum(weights))
    return result


def resize_loops(image: Tensor, scale: float) -> Tensor:
    wide = torch.tensor([resize_line(row, scale) for row in image.tolist()], dtype=torch.float64)
    return torch.tensor(
        [resize_line(column, scale) for column in wide.T.tolist()], dtype=torch.float64
    ).T


# ---- imresize


@pytest.mark.parametrize("scale", ["0.25", "0.5"])
def test_imresize_reduces_like_matlab(scale: str):
    result = imresize(golden("resize.x").float() / 255, float(scale))
    torch.testing.assert_close(result, golden(f"resize.bicubic.{scale}"), atol=1e-6, rtol=0)


def test_imresize_enlarges_like_matlab():
    result = imresize(golden("resize.x").float() / 255, 4)  # stored: every third row and column
    torch.testing.assert_close(result[:, ::3, ::3], golden("resize.bicubic.4"), atol=1e-6, rtol=0)


def test_imresize_of_sides_that_do_not_divide():
    result = imresize(golden("resize.odd").float() / 255, 0.25)  # 45×62 → 12×16
    torch.testing.assert_close(result, golden("resize.bicubic.odd.0.25"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.3, 0.5, 1, 1.5, 2.7, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 7), (1, 150)])
def test_imresize_is_the_slow_equation(size: tuple[int, int], scale: float):
    image = noise(*size)
    torch.testing.assert_close(
        imresize(image, scale), resize_loops(image, scale), atol=1e-12, rtol=0
    )


def test_imresize_by_one_changes_nothing():
    image = noise(2, 3, 37, 100)
    torch.testing.assert_close(imresize(image, 1), image, atol=1e-15, rtol=0)


sides = st.integers(1, 80)


@settings(max_examples=40)
@given(height=sides, width=sides, scale=st.floats(0.05, 5), value=st.floats(-1, 2))
def test_imresize_keeps_constants(height: int, width: int, scale: float, value: float):
    result = imresize(torch.full((height, width), value, dtype=torch.float64), scale)
    assert result.shape == (math.ceil(scale * height), math.ceil(scale * width))
    torch.testing.assert_close(result, torch.full_like(result, value), atol=1e-12, rtol=0)


@settings(max_examples=20)
@given(height=sides, width=sides, scale=st.floats(0.05, 5))
def test_imresize_is_linear_and_knows_no_direction(height: int, width: int, scale: float):
    a, b = noise(height, width, seed=1), noise(height, width, seed=2)
    small_a, small_b = imresize(a, scale), imresize(b, scale)
    torch.testing.assert_close(imresize(2 * a - 3 * b, scale), 2 * small_a - 3 * small_b)
    torch.testing.assert_close(imresize(a.T, scale), small_a.T)


def test_imresize_by_a_quarter_knows_no_left_and_right():
    image = noise(40, 64)
    torch.testing.assert_close(imresize(image.flip(-1), 0.25), imresize(image, 0.25).flip(-1))


def test_imresize_of_a_batch_is_each_image_alone():
    clip = noise(2, 4, 3, 20, 28)
    single = torch.stack([torch.stack([imresize(image, 0.25) for image in b]) for b in clip])
    torch.testing.assert_close(imresize(clip, 0.25), single)
    across = clip.transpose(-1, -2)  # not contiguous
    torch.testing.assert_close(imresize(across, 4), imresize(across.contiguous(), 4))


def test_imresize_precision_is_float32_at_least():
    image = noise(3, 32, 32).float()
    exact = imresize(image, 0.25)
    assert exact.dtype == torch.float32
    assert imresize(image.bfloat16(), 0.25).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert imresize(image, 0.25).equal(exact)


def test_imresize_has_gradients():
    image = noise(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), image)


def test_imresize_in_inference_first_and_then_with_gradients():
    image = noise(23, 29)  # a size that no other test has put in the cache
    with torch.inference_mode():
        imresize(image, 0.37)
    imresize(image.requires_grad_(), 0.37).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("scale", [0, -0.25, math.nan, math.inf])
def test_imresize_refuses_a_bad_scale(scale: float):
    with pytest.raises(OptionsError, match=f"scale must be a finite number above 0, got {scale}"):
        imresize(noise(8, 8), scale)


def test_imresize_refuses_an_empty_image():
    with pytest.raises(OptionsError, match="at least 1×1, got 0×8"):
        imresize(noise(3, 0, 8), 4)
