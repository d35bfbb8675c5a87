"""Losses against their formulas, written out slowly; and each alone, minimised over pixels."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart.errors import OptionsError
from iart.evaluate.metrics.perceptual import NETWORKS, FeatureNetwork
from iart.model.flow import SpyNet
from iart.train.discriminators import feature_matching, new_discriminator
from iart.train.losses.perceptual import CHANNELS, LAYERS, SEED, ConvNeXt, directions
from iart.train.options.recipe import RecipeOptions
from iart.train.options.run import DiscriminatorOptions
from tests.train.tiny import Sum, picture

CPU = torch.device("cpu")
TREE = {
    "total_iter": 1, "optim_g": {"lr": 1.0},
    "scheduler": {"type": "MultiStepLR", "milestones": []},
}  # fmt: skip


def clips(seed: int, side: int = 16, frames: int = 2) -> Tensor:
    return torch.rand(2, frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


def objective(**sections: Any) -> Sum:
    torch.manual_seed(3)
    flow = SpyNet((4,), 2).requires_grad_(False)
    return Sum(RecipeOptions.model_validate({**TREE, **sections}), CPU, flow)


def random_network(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep features about as large as the input."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.parameters():
        fan = max(tensor[0].numel(), 1) if tensor.ndim > 1 else 100
        nn.init.normal_(tensor, std=(2 / fan) ** 0.5, generator=generator)
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of every network, in torchvision's layout."""
    root = tmp_path_factory.mktemp("networks")
    for kind, places in (("vgg19", 35), ("vgg16", 29), ("alexnet", 11), ("squeezenet1_1", 12)):
        network = FeatureNetwork(kind, (places,))  # pyright: ignore[reportArgumentType]
        torch.save(random_network(network), root / f"{kind}.pth")
    torch.save(random_network(ConvNeXt("tiny", (7,))), root / "convnext.pth")
    generator = torch.Generator().manual_seed(1)
    for name, (_, _, _, widths) in NETWORKS.items():
        linear = {
            f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
            for i, width in enumerate(widths)
        }
        torch.save(linear, root / f"lpips_{name}.pth")
    return root


# ---- frequencies


@pytest.mark.parametrize("cutoff", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["high", "low"])
def test_fourier_loss_is_the_slow_sum(cutoff: float, kind: str):
    a, b = clips(0, 8), clips(1, 8)
    n, d = 8, (a - b).double().numpy()
    parts = []
    for v in range(n):
        for u in range(n):
            wave = np.exp(-2j * np.pi * (v * np.arange(n)[:, None] + u * np.arange(n)) / n)
            fy, fx = ((f if f < n / 2 else f - n) / (n / 2) for f in (v, u))
            mask = np.exp(-(fy**2 + fx**2) / (2 * cutoff**2)) if cutoff else 1.0
            if kind == "high" and cutoff:
                mask = 1 - mask
            coefficient = mask * (d * wave).sum((-2, -1))
            parts += [np.abs(coefficient.real), np.abs(coefficient.imag)]
    loss = objective(**{f"fft_{kind}_opt": {f"{kind}pass_cutoff": cutoff}})(a, b)
    assert float(loss) == pytest.approx(np.mean(parts), rel=1e-4)


@pytest.mark.parametrize("log_matrix", [False, True])
@pytest.mark.parametrize("batch_matrix", [False, True])
@pytest.mark.parametrize(("alpha", "patches"), [(1.0, 1), (2.0, 2)])
def test_focal_frequency_is_the_slow_sum(
    *, log_matrix: bool, batch_matrix: bool, alpha: float, patches: int
):
    a, b = clips(0, 8), clips(1, 8)
    d = (a - b).flatten(0, 1).double().numpy()
    side = 8 // patches
    grid = np.exp(-2j * np.pi * np.outer(np.arange(side), np.arange(side)) / side)
    weights, squares = [], []
    for frame in d:
        for channel in frame:
            for i in range(0, 8, side):
                for j in range(0, 8, side):
                    spectrum = grid @ channel[i : i + side, j : j + side] @ grid / side
                    weight = np.abs(spectrum) ** alpha
                    weight = np.log1p(weight) if log_matrix else weight
                    weights.append(weight if batch_matrix else weight / weight.max())
                    squares.append(np.abs(spectrum) ** 2)
    matrix = np.array(weights)
    if batch_matrix:
        matrix /= matrix.max()
    section = {
        "alpha": alpha, "patch_factor": patches, "log_matrix": log_matrix,
        "batch_matrix": batch_matrix,
    }  # fmt: skip
    loss = objective(focal_freq_opt=section)(a, b)
    assert float(loss) == pytest.approx((matrix * np.array(squares)).mean(), rel=1e-4)


def test_focal_frequency_of_equal_clips_and_of_averaged_spectra():
    a, b = clips(0, 8), clips(1, 8)
    assert float(objective(focal_freq_opt={})(a, a)) == 0  # no weight is NaN
    averaged = objective(focal_freq_opt={"ave_spectrum": True})(a, b)
    mean = (a - b).flatten(0, 1).mean(0)[None, None]
    expected = objective(focal_freq_opt={})(mean, torch.zeros_like(mean))
    torch.testing.assert_close(averaged, expected)


# ---- features


def seen(kind: Any, file: Path, places: tuple[int, ...], frames: Tensor) -> list[Tensor]:
    network = FeatureNetwork(kind, places)
    network.load_state_dict(torch.load(file))
    with torch.no_grad():
        return network.double()(frames)


@pytest.mark.parametrize("name", ["alex", "vgg", "squeeze"])
def test_lpips_is_its_formula(files: Path, name: str):
    kind, _, places, _ = NETWORKS[name]
    a, b = clips(0, 40), clips(1, 40)
    shift = torch.tensor((-0.030, -0.088, -0.188), dtype=torch.float64).view(3, 1, 1)
    scale = torch.tensor((0.458, 0.448, 0.450), dtype=torch.float64).view(3, 1, 1)
    pairs = zip(
        *(
            seen(kind, files / f"{kind}.pth", places, (2 * x.double() - 1 - shift) / scale)
            for x in (a.flatten(0, 1), b.flatten(0, 1))
        ),
        strict=True,
    )
    expected = 0.0
    for (x, y), weight in zip(pairs, torch.load(files / f"lpips_{name}.pth").values(), strict=True):
        x = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
        y = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-10)
        expected += float(F.conv2d((x - y) ** 2, weight.double()).mean())
    section = {
        "net_type": name, "weights": files / f"{kind}.pth",
        "linear_weights": files / f"lpips_{name}.pth",
    }  # fmt: skip
    assert float(objective(lpips_opt=section)(a, b)) == pytest.approx(expected, rel=1e-4)
    centred = objective(lpips_opt={**section, "normalize": False})(2 * a - 1, 2 * b - 1)
    assert float(centred) == pytest.approx(expected, rel=1e-4)


def fdl(files: Path, **changes: Any) -> dict[str, Any]:
    section = {"num_proj": 6, "phase_weight": 0.8, "weights": files / "vgg19.pth"}
    return {"fdl_opt": {**section, **changes}}


def test_the_frequency_distribution_loss_is_its_formula(files: Path):
    a, b = clips(0, 32), clips(1, 32)
    mean = torch.tensor((0.485, 0.456, 0.406), dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), dtype=torch.float64).view(3, 1, 1)
    features = [
        seen("vgg19", files / "vgg19.pth", LAYERS, (x.flatten(0, 1).double() - mean) / std)
        for x in (a, b)
    ]

    def angles(spectrum: Tensor) -> Tensor:
        real = spectrum.imag.abs() < 1e-9 * spectrum.abs().amax((-2, -1), keepdim=True)
        return torch.where(real, math.pi * (spectrum.real < 0), spectrum.angle())

    expected = 0.0
    for i in range(3):  # the other maps are smaller than a patch
        projections = directions(6, CHANNELS[i], 5, SEED + i).double().flatten(1)
        torch.testing.assert_close(projections.norm(dim=1), torch.ones(6).double())
        for part, weight in ((torch.abs, 1.0), (angles, 0.8)):
            sets = []
            for maps in (features[0][i], features[1][i]):
                spectrum = part(torch.fft.fftn(maps, dim=(-2, -1)))
                sets.append((projections @ F.unfold(spectrum, 5)).sort(-1).values)
            expected += weight * float((sets[0] - sets[1]).abs().mean())
    assert float(objective(**fdl(files))(a, b)) == pytest.approx(expected, rel=5e-5)


def test_chunks_and_factors_of_the_frequency_distribution_loss(files: Path):
    a, b = clips(0, 32).requires_grad_(), clips(1, 32)
    whole = objective(**fdl(files))(a, b)
    (gradient,) = torch.autograd.grad(whole, a)
    parts = objective(**fdl(files, chunk_size=4, frame_chunk_size=3))(a, b)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)
    (other,) = torch.autograd.grad(parts, a)
    assert float((other - gradient).norm() / gradient.norm()) < 1e-3
    with torch.no_grad():  # neither does the batch
        alone = [objective(**fdl(files))(a[i : i + 1], b[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.stack(alone).mean(), whole.detach(), rtol=1e-6, atol=0)
    summed = objective(**fdl(files, scale_factor=0.5, reduction="sum"))(a, b)
    torch.testing.assert_close(summed, 0.5 * 4 * whole, rtol=1e-6, atol=0)


def test_convnext_layers_and_weights(files: Path):
    a, b = clips(0, 32), clips(1, 32)
    section = {"weights": files / "convnext.pth", "layer_weight_decay": 0.5}
    alone = [
        float(objective(convnext_opt={**section, "feature_layers": [i]})(a, b)) for i in (0, 2, 4)
    ]
    loss = objective(convnext_opt={**section, "feature_layers": [0, 2, 4]})(a, b)
    assert float(loss) == pytest.approx(alone[0] + alone[1] / 2 + alone[2] / 4, rel=1e-5)
    ranged = {**section, "feature_layers": [0], "input_range": [-1, 1]}
    assert float(objective(convnext_opt=ranged)(2 * a - 1, 2 * b - 1)) == pytest.approx(alone[0])
    w = torch.load(files / "convnext.pth")
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    stems = []
    for x in (a, b):
        x = (x.flatten(0, 1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        x = F.conv2d(x, w["features.0.0.weight"], w["features.0.0.bias"], stride=4)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        stems.append(
            x * w["features.0.1.weight"].view(-1, 1, 1) + w["features.0.1.bias"].view(-1, 1, 1)
        )
    assert alone[0] == pytest.approx(float((stems[0] - stems[1]).abs().mean()), rel=1e-4)


# ---- time


def test_flicker_costs_and_still_errors_do_not():
    truth = clips(0)[:, :1].expand(-1, 3, -1, -1, -1).contiguous()
    flow = SpyNet((4,), 2)
    for tensor in flow.parameters():
        nn.init.zeros_(tensor)  # sees no motion
    recipe = RecipeOptions.model_validate({**TREE, "temporal_opt": {}})
    loss = Sum(recipe, CPU, flow)
    assert float(loss(truth + 0.25, truth)) == pytest.approx(0, abs=1e-6)
    flicker = truth + 0.25 * torch.tensor((0.0, 1.0, 0.0)).view(3, 1, 1, 1)
    assert float(loss(flicker, truth)) == pytest.approx(0.25, rel=1e-5)
    assert float(loss(flicker[:, :1], truth[:, :1])) == 0


# ---- all of them


def sections(files: Path) -> dict[str, dict[str, Any]]:
    vgg = files / "vgg19.pth"
    return {
        "pixel_opt": {"type": "CharbonnierLoss"},
        "fft_opt": {},
        "fft_high_opt": {"highpass_cutoff": 0.3},
        "fft_low_opt": {"lowpass_cutoff": 0.15},
        "focal_freq_opt": {},
        "fdl_opt": {"num_proj": 4, "patch_size": 3, "weights": vgg},
        "perceptual_opt": {"layer_weights": {"conv2_2": 1}, "weights": vgg},
        "lpips_opt": {
            "weights": files / "alexnet.pth", "linear_weights": files / "lpips_alex.pth",
        },
        "convnext_opt": {"weights": files / "convnext.pth", "feature_layers": [0, 2]},
        "temporal_opt": {},
    }  # fmt: skip


KEYS = [
    *("pixel_opt", "fft_opt", "fft_high_opt", "fft_low_opt", "focal_freq_opt", "fdl_opt"),
    *("perceptual_opt", "lpips_opt", "convnext_opt", "temporal_opt"),
]


def falls_by_half(loss_of: Callable[[Tensor, Tensor], Tensor], side: int, frames: int) -> bool:
    """In 100 steps of Adam over the pixels of a noisy clip."""
    rng = np.random.default_rng(0)
    pictures = np.stack([picture(rng, side) for _ in range(frames)])
    truth = torch.from_numpy(pictures).movedim(-1, 1)[None] / 255
    generator = torch.Generator().manual_seed(0)
    pixels = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=3e-3)
    first = loss = loss_of(pixels, truth)
    for _ in range(100):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = loss_of(pixels, truth)
    return first.item() > 2 * loss.item()


@pytest.mark.parametrize(
    "key", [pytest.param(k, marks=pytest.mark.slow) if k == "fdl_opt" else k for k in KEYS]
)
def test_each_alone_falls_by_half(files: Path, key: str):
    side, frames = (16, 1) if key == "fdl_opt" else (32, 2 if key == "temporal_opt" else 1)
    assert falls_by_half(objective(**{key: sections(files)[key]}), side, frames)


def test_style_alone_falls_by_half(files: Path):
    layers = {"layer_weights": {"conv2_2": 1}, "weights": files / "vgg19.pth"}
    style = {"perceptual_weight": 0.0, "style_weight": 1.0, **layers}
    assert falls_by_half(objective(perceptual_opt=style), 32, 1)


def test_feature_matching_alone_falls_by_half():
    options = DiscriminatorOptions(type="UNetDiscriminatorSN", num_feat=8)
    judge = new_discriminator(options, seed=0).requires_grad_(False)

    def loss_of(output: Tensor, truth: Tensor) -> Tensor:
        fake, real = judge(output.flatten(0, 1)), judge(truth.flatten(0, 1))
        return feature_matching(fake.features, real.features)

    assert falls_by_half(loss_of, 32, 1)


def test_each_has_a_name_a_weight_and_a_start(files: Path):
    a, b = clips(0, 32), clips(1, 32)
    chosen = {
        key: {"loss_weight": 2.0, "start_iter": 3, **section}
        for key, section in sections(files).items()
        if key not in ("pixel_opt", "perceptual_opt")
    }
    whole = objective(pixel_opt={"type": "L1Loss"}, **chosen)
    assert list(whole.terms(a, b, 2)) == ["pixel"]
    terms = whole.terms(a, b, 3)
    assert list(terms) == [key.removesuffix("_opt") for key in KEYS if key != "perceptual_opt"]
    for key, section in chosen.items():
        alone = objective(**{key: {**section, "loss_weight": 1.0, "start_iter": 0}})(a, b)
        torch.testing.assert_close(terms[key.removesuffix("_opt")], 2 * alone)
    assert float(whole(a, b)) == pytest.approx(sum(map(float, terms.values())), rel=1e-6)


def test_half_precision_is_raised_before_it_is_compared(files: Path):
    a, b = clips(0, 32).bfloat16(), clips(1, 32)
    for key, section in sections(files).items():
        loss = objective(**{key: section})
        assert loss(a, b).equal(loss(a.float(), b)), key


@pytest.mark.parametrize(
    ("key", "section", "message"),
    [
        ("lpips_opt", {}, r"train\.lpips_opt\.weights names no file of AlexNet"),
        ("fdl_opt", {}, r"train\.fdl_opt\.weights names no file of VGG-19"),
        ("convnext_opt", {}, r"train\.convnext_opt\.weights names no file of ConvNeXt \(tiny\)"),
    ],
)
def test_weights_that_are_missing_are_named(key: str, section: dict[str, Any], message: str):
    with pytest.raises(OptionsError, match=message + rf".*train\.{key}=null"):
        objective(**{key: section})


def test_lpips_names_its_other_file(files: Path):
    section = {"weights": files / "alexnet.pth", "linear_weights": files / "lpips_vgg.pth"}
    with pytest.raises(
        OptionsError,
        match=r"linear_weights: cannot use '.*lpips_vgg\.pth' as LPIPS 0\.1 with AlexNet: "
        r".*lin1\.model\.1\.weight \[1, 128, 1, 1\] instead of \[1, 192, 1, 1\]",
    ):
        objective(lpips_opt=section)


def test_something_is_on_from_the_start():
    later: Callable[[], Any] = lambda: objective(fft_opt={"start_iter": 5})  # noqa: E731
    with pytest.raises(ValueError, match="no loss is on at the first step"):
        later()
