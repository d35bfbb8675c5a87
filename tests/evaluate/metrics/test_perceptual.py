"""LPIPS, tLP and DISTS by weights from files: against their formulas, with random weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from iart.errors import OptionsError
from iart.evaluate.metrics.extra import extra_metrics
from iart.evaluate.metrics.perceptual import NETWORKS, FeatureNetwork, Kind, load_perceptual

CPU = torch.device("cpu")
MEAN, STD = (
    torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
    for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layouts of torchvision, LPIPS and DISTS."""
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)

    def save(name: str, kind: Kind, places: tuple[int, ...]) -> None:
        network = FeatureNetwork(kind, places)
        tensors = {n: p.detach() for n, p in network.named_parameters()}
        torch.save({**tensors, "classifier.0.bias": torch.zeros(1)}, root / name)

    save("alexnet.pth", "alexnet", NETWORKS["alex"][2])
    save("vgg16.pth", "vgg16", NETWORKS["vgg"][2])
    channels = NETWORKS["alex"][3]
    linear = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    save_file(linear, root / "lpips_alex.safetensors")
    torch.save({name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}, root / "dists.pt")
    return root


def frames(seed: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


def dists_of(a: Tensor, b: Tensor, folder: Path) -> float:
    """The formula in float64, channel by channel."""
    vgg = torch.load(folder / "vgg16.pth", weights_only=True)
    fitted = torch.load(folder / "dists.pt", weights_only=True)
    alpha, beta = (fitted[name].double().flatten().tolist() for name in ("alpha", "beta"))
    row = torch.tensor((1.0, 2.0, 1.0), dtype=torch.float64) / 4
    maps: list[list[Tensor]] = []
    for picture in (a, b):
        x = picture.double() / 255
        seen = [x]
        x = (x - MEAN) / STD
        place = 0
        for depth in (2, 2, 3, 3, 3):
            if place:
                blurred = [
                    F.conv2d(c[None, None] ** 2, (row[:, None] * row)[None, None], None, 2, 1)
                    for c in x
                ]
                x = torch.stack([c[0, 0] for c in blurred]).clamp(min=1e-12).sqrt()
                place += 1
            for _ in range(depth):
                weight, bias = (
                    vgg[f"features.{place}.{name}"].double() for name in ("weight", "bias")
                )
                x = F.conv2d(x[None], weight, bias, padding=1)[0].clamp(min=0)
                place += 2
            seen.append(x)
        maps.append([channel for feature in seen for channel in feature])
    total = 0.0
    for x, y, p, q in zip(*maps, alpha, beta, strict=True):
        texture = (2 * x.mean() * y.mean() + 1e-6) / (x.mean() ** 2 + y.mean() ** 2 + 1e-6)
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        spread = x.var(correction=0) + y.var(correction=0)
        total += p * float(texture) + q * float((2 * covariance + 1e-6) / (spread + 1e-6))
    return 1 - total / (sum(alpha) + sum(beta))


def test_dists_is_its_formula(folder: Path):
    measure = load_perceptual("dists", CPU, folder)
    a, b = frames(0, 1)[0], frames(1, 1)[0]
    assert measure(a, a) == pytest.approx(0, abs=1e-6)
    assert measure(a, b) == pytest.approx(dists_of(a, b, folder), abs=1e-4)
    assert measure(a, b) > 0.01


def test_tlp_is_the_difference_of_changes(folder: Path):
    extra = extra_metrics(["lpips", "tlp"], CPU, folder)
    assert (extra.names, extra.notes) == (("lpips", "tlp"), ())
    lpips, result, gt = load_perceptual("lpips", CPU, folder), frames(2), frames(3)
    clip = extra.clip()
    for pair in zip(result, gt, strict=True):
        clip.add(*pair)
    assert [f["lpips"] for f in clip.frames] == [
        pytest.approx(lpips(a, b)) for a, b in zip(result, gt, strict=True)
    ]
    changes = [abs(lpips(result[i], result[i + 1]) - lpips(gt[i], gt[i + 1])) for i in (0, 1)]
    assert clip.over_time("tlp") == pytest.approx(sum(changes) / 2)
    assert clip.over_time("tof") is None
    assert extra.clip().over_time("tlp") is None


def test_files_that_are_missing_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(OptionsError, match=r"--metric-weights: cannot use '.*alexnet\.pth'"):
        extra_metrics(["lpips"], CPU, tmp_path)
    (tmp_path / "vgg16.pth").write_bytes((folder / "vgg16.pth").read_bytes())
    (tmp_path / "dists.pth").write_bytes(b"nothing")
    with pytest.raises(OptionsError, match=r"'.*dists\.pth' as weights of dists"):
        extra_metrics(["dists"], CPU, tmp_path)
