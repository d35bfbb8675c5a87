"""Losses in closed form; VGG with random weights in torchvision's layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from iart.errors import OptionsError
from iart.evaluate.metrics.perceptual import VGG_BLOCKS, FeatureNetwork
from iart.train.losses.perceptual import gram, layer_names
from iart.train.options.losses import PerceptualOptions
from iart.train.options.recipe import RecipeOptions
from tests.train.tiny import Sum

CPU = torch.device("cpu")


def clips(seed: int) -> Tensor:
    return torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def section(kind: str, **changes: Any) -> dict[str, Any]:
    return {"type": kind, **changes}


def objective(**sections: Any) -> Sum:
    tree = {
        "total_iter": 1, "optim_g": {"lr": 1.0},
        "scheduler": {"type": "MultiStepLR", "milestones": []},
    }  # fmt: skip
    return Sum(RecipeOptions.model_validate({**tree, **sections}), CPU)


# ---- distances of pixels


def test_pixel_losses():
    a, b = clips(0), clips(1)
    expected = {
        "CharbonnierLoss": ((a - b) ** 2 + 1e-12).sqrt().mean(),
        "L1Loss": F.l1_loss(a, b),
        "MSELoss": F.mse_loss(a, b),
    }
    for kind, value in expected.items():
        torch.testing.assert_close(objective(pixel_opt=section(kind))(a, b), value)


def test_weight_reduction_and_epsilon():
    a, b = clips(0), clips(1)
    chosen = section("CharbonnierLoss", loss_weight=0.5, reduction="sum", eps=0.01)
    expected = 0.5 * ((a - b) ** 2 + 0.01).sqrt().sum()
    torch.testing.assert_close(objective(pixel_opt=chosen)(a, b), expected)


def test_the_fourier_loss_of_one_wave_is_at_its_frequency():
    a = torch.zeros(1, 1, 3, 8, 8)
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(8) / 8)
    loss = objective(fft_opt=section("FFTLoss"))(a + wave, a)
    # Each frame has two frequencies of amplitude 64/2, spread over 2 · 64 values.
    assert float(loss) == pytest.approx(2 * 32 / 128, rel=1e-5)


def test_losses_add_up_and_are_not_clamped():
    a, b = 3 * clips(0) - 1, clips(1)
    both = objective(pixel_opt=section("L1Loss"), fft_opt=section("FFTLoss", loss_weight=0.1))
    alone = objective(pixel_opt=section("L1Loss"))(a, b)
    torch.testing.assert_close(alone, F.l1_loss(a, b))
    fourier = objective(fft_opt=section("FFTLoss"))(a, b)
    torch.testing.assert_close(both(a, b), alone + 0.1 * fourier)


def test_half_precision_is_compared_in_float32():
    a, b = clips(0).bfloat16(), clips(1)
    loss = objective(pixel_opt=section("MSELoss"))(a, b)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.mse_loss(a.float(), b))


# ---- VGG


def torchvision_weights(blocks: int) -> dict[str, Tensor]:
    """Random weights under torchvision's names, of the first blocks."""
    generator = torch.Generator().manual_seed(0)
    tensors, i, channels = {}, 0, 3
    for width, depth in VGG_BLOCKS["vgg19"][:blocks]:
        for _ in range(depth):
            weight = torch.randn(width, channels, 3, 3, generator=generator)
            tensors[f"features.{i}.weight"] = weight * (2 / (9 * channels)) ** 0.5
            tensors[f"features.{i}.bias"] = 0.1 * torch.randn(width, generator=generator)
            i, channels = i + 2, width
        i += 1
    return {**tensors, "classifier.0.bias": torch.zeros(2)}


def perceptual(weights: Path | None, **changes: Any) -> dict[str, Any]:
    layers = {"conv2_2": 1.0}
    return {"layer_weights": layers, "perceptual_weight": 0.05, "weights": weights, **changes}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(torchvision_weights(2), path)
    return path


def by_hand(frames: Tensor) -> tuple[Tensor, Tensor]:
    """conv1_1 (before its ReLU) and conv2_2, written out."""
    w = torchvision_weights(2)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    x = (frames - mean.view(3, 1, 1)) / std.view(3, 1, 1)

    def conv(x: Tensor, i: int) -> Tensor:
        return F.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], padding=1)

    first = conv(x, 0)
    x = F.max_pool2d(conv(first.relu(), 2).relu(), 2)
    return first, conv(conv(x, 5).relu(), 7)


def test_perceptual_loss_by_hand(weights: Path):
    a, b = clips(0), clips(1)
    (a1, a2), (b1, b2) = by_hand(a.flatten(0, 1)), by_hand(b.flatten(0, 1))
    loss = objective(perceptual_opt=perceptual(weights))(a, b)
    torch.testing.assert_close(loss, 0.05 * F.l1_loss(a2, b2))
    layers = {"conv1_1": 0.5, "conv2_2": 1.0}
    both = perceptual(weights, layer_weights=layers, style_weight=2.0, criterion="l2")
    expected = 0.05 * (0.5 * F.mse_loss(a1, b1) + F.mse_loss(a2, b2))
    for weight, x, y in ((0.5, a1, b1), (1.0, a2, b2)):
        expected = expected + 2.0 * weight * F.mse_loss(gram(x), gram(y))
    whole = objective(perceptual_opt=both)
    torch.testing.assert_close(whole(a, b), expected)
    assert list(whole.terms(a, b)) == ["perceptual", "style"]  # each is logged and weighed
    plain = PerceptualOptions.model_validate({"weights": weights})
    assert plain.layer_weights == {"conv5_4": 1.0}
    with pytest.raises(ValueError, match="give perceptual_weight or style_weight"):
        objective(perceptual_opt=perceptual(weights, perceptual_weight=0.0))


def test_style_and_ranges(weights: Path):
    a, b = clips(0), clips(1)
    alone = objective(perceptual_opt=perceptual(weights))(a, b)
    centred = objective(perceptual_opt=perceptual(weights, range_norm=True))(2 * a - 1, 2 * b - 1)
    torch.testing.assert_close(centred, alone)
    x = torch.randn(2, 3, 4, 5)
    expected = torch.einsum("bihw,bjhw->bij", x, x) / 60
    torch.testing.assert_close(gram(x), expected)


def test_the_gradient_reaches_the_output_only(weights: Path):
    a, b = clips(0).requires_grad_(), clips(1).requires_grad_()
    chosen = perceptual(weights, criterion="fro")
    objective(perceptual_opt=chosen)(a, b).backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    assert b.grad is None


def test_safetensors_serve_as_well(weights: Path, tmp_path: Path):
    path = tmp_path / "vgg19.safetensors"
    save_file(torchvision_weights(2), path)
    a, b = clips(0), clips(1)
    pickled, safe = (objective(perceptual_opt=perceptual(p))(a, b) for p in (weights, path))
    assert pickled.equal(safe)


def test_places_are_torchvision_s():
    names = layer_names()
    assert [names.index(n) for n in ("conv1_1", "conv3_4", "conv5_4", "pool5")] == [0, 16, 34, 36]
    layers = FeatureNetwork("vgg19", (names.index("conv5_4"),)).features
    assert len(layers) == 35
    assert layers[34].weight.shape == (512, 512, 3, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"names no file of VGG-19\. Name a file .* train\.perceptual_opt=null"),
        ("missing", r"cannot use '.*vgg\.pth' as VGG-19: No such file or directory\. Name"),
        ("text", r"neither safetensors nor a PyTorch file"),
        ("short", r"missing: features\.5\.weight, features\.5\.bias"),
        ("other", r"features\.0\.weight \[2\] instead of \[64, 3, 3, 3\]"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "vgg.pth"
    if content == "text":
        path.write_text("weights")
    elif content == "short":
        torch.save(torchvision_weights(1), path)
    elif content == "other":
        torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(OptionsError, match=message):
        objective(perceptual_opt=perceptual(path if content else None))


def test_layers_that_do_not_exist(weights: Path):
    with pytest.raises(OptionsError, match="there is no layer 'conv2_3'"):
        objective(perceptual_opt=perceptual(weights, layer_weights={"conv2_3": 1.0}))
