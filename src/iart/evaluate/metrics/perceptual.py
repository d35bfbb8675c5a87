"""Networks that measure: VGG, AlexNet, SqueezeNet as torchvision has them; LPIPS, tLP and DISTS.

LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
2018, with AlexNet. tLP: Chu et al., TecoGAN, ACM TOG 2020. DISTS: Ding et al., "Image Quality
Assessment: Unifying Structure and Texture Similarity", TPAMI 2022. All are 0 for equal frames; less
is better. Weights come from files, else LPIPS and DISTS from their authors' libraries: these need
torchvision and fetch weights of their own on first use, so neither is a dependency of this package.

Layers stand where torchvision has them, so that names in files fit: `features.0.weight` …
"""

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from iart.errors import MissingExtraError, OptionsError, WeightsError
from iart.evaluate.metrics.luma import OverTime
from iart.weights.tensorfile import fill, read_tensors

# ---- networks of features, with weights from files


Kind = Literal["vgg16", "vgg19", "alexnet", "squeezenet1_1"]

# Channels and number of the convolutions before each of the five poolings.
VGG_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg16": ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    "vgg19": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}


class Fire(nn.Module):
    """A block of SqueezeNet: 1×1 to few channels, then 1×1 and 3×3 side by side to many."""

    def __init__(self, channels: int, few: int, many: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, few, 1)
        self.expand1x1 = nn.Conv2d(few, many, 1)
        self.expand3x3 = nn.Conv2d(few, many, 3, padding=1)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
        """Features of twice `many` channels."""
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1).relu()


def _layers(kind: Kind) -> Iterable[nn.Module]:
    if kind in VGG_BLOCKS:
        channels = 3
        for width, depth in VGG_BLOCKS[kind]:
            for _ in range(depth):
                yield nn.Conv2d(channels, width, 3, padding=1)
                yield nn.ReLU()
                channels = width
            yield nn.MaxPool2d(2)
    elif kind == "alexnet":
        yield from (nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        yield from (nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
        for channels, width in ((192, 384), (384, 256), (256, 256)):
            yield from (nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
    else:
        yield from (nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True))
        yield from (Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256))


class FeatureNetwork(nn.Module):
    """The `features` of a torchvision classifier, up to the last layer asked for."""

    def __init__(self, kind: Kind, wanted: Iterable[int]) -> None:
        """Weights are random until `WeightsFile.load`.

        Args:
            kind: torchvision's name of the network.
            wanted: places of layers in `features`.
        """
        super().__init__()
        self.wanted = tuple(wanted)
        self.features = nn.Sequential(*list(_layers(kind))[: max(self.wanted) + 1])

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Outputs of the wanted layers, in their order."""
        seen = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            seen[place] = x
        return [seen[place] for place in self.wanted]


class ImageNetColors(nn.Module):
    """Colours as networks that learnt ImageNet take them: minus mean, over deviation."""

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """RGB in [0, 1], normalised."""
        return (frames - self.mean) / self.std


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights of a network that measures.

    Attributes:
        option: that names it, such as "train.lpips_opt.weights".
        path: of the file; None if the option names none.
        what: it should hold, such as "VGG-19".
        advice: what to do if it cannot be used; None: that of option files.
        layout: whose names its tensors have.
    """

    option: str
    path: Path | None
    what: str
    advice: str | None = None
    layout: str = "torchvision's"

    @property
    def without(self) -> str:
        """How to do without it."""
        return f"{self.option.rpartition('.')[0]}=null"

    def fill(self, own: Mapping[str, Tensor]) -> None:
        """Take over the tensors of these names and shapes; the file may hold more.

        Raises:
            OptionsError: no file is named, or it is missing, damaged or of another network.
        """
        words = f"Name a file in {self.layout} layout, or train without: {self.without}"
        instead = self.advice or words
        if self.path is None:
            raise OptionsError(f"{self.option} names no file of {self.what}. {instead}")
        try:
            tensors, _ = read_tensors(self.path)
            fill(own, {name: tensor for name, tensor in tensors.items() if name in own})
        except (WeightsError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OptionsError(
                f"{self.option}: cannot use '{self.path}' as {self.what}: {reason}. {instead}"
            ) from error

    def load(self, network: nn.Module) -> None:
        """Take over all parameters of a network, which then measures and no longer learns."""
        self.fill(dict(network.named_parameters()))
        network.requires_grad_(False).eval()


# ---- metrics


FrameMetric = Callable[[Tensor, Tensor], float]  # uint8 RGB `3 h w`: result, ground truth


@dataclass(frozen=True)
class _Library:
    """Where a metric comes from: `module.name(**arguments)` compares `1 3 h w` tensors."""

    package: str
    module: str
    name: str
    signed: bool  # takes [−1, 1] instead of [0, 1]
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


LIBRARIES = {
    "lpips": _Library("lpips", "lpips", "LPIPS", True, {"net": "alex", "verbose": False}),
    "dists": _Library("dists-pytorch", "DISTS_pytorch", "DISTS", False),
}


FILES = {"lpips": ("alexnet", "lpips_alex"), "dists": ("vgg16", "dists")}
"""Files of weights that a metric needs, without their endings."""
_ENDINGS = (".safetensors", ".pth", ".pt")


def load_perceptual(name: str, device: torch.device, folder: Path | None = None) -> FrameMetric:
    """The metric `name` ("lpips" or "dists"), ready to be called on frames.

    Args:
        name: of the metric.
        device: where its network runs.
        folder: of files of weights; None to use its authors' library.

    Raises:
        OptionsError: there is no such metric, or a file of weights is missing or cannot be used.
        MissingExtraError: its library is not installed or cannot load its weights.
    """
    if folder is not None and name in FILES:
        files = [_file(folder, stem) for stem in FILES[name]]
        network = (LPIPS("alex", *files) if name == "lpips" else DISTS(*files)).to(device)
        return _measure(network, device, signed=False)
    if name not in LIBRARIES:
        raise OptionsError(
            f"'{name}' is not a perceptual metric (there are {', '.join(LIBRARIES)})"
        )
    library = LIBRARIES[name]
    try:
        # Their code and torchvision's warn of each other's age.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(library.module)
            network = getattr(module, library.name)(**library.arguments).to(device).eval()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{name} is not computed: there is no module '{error.name}'. It comes with"
            f" `pip install {library.package} torchvision`; or name a folder of weights"
            " (--metric-weights)"
        ) from error
    # Old torchvision, no network, damaged weights: what a library raises then is open.
    except Exception as error:
        raise MissingExtraError(
            f"{name} is not computed: the library '{library.package}' does not load"
            f" ({_one_line(error)})"
        ) from error

    return _measure(network, device, signed=library.signed)


def _measure(network: nn.Module, device: torch.device, *, signed: bool) -> FrameMetric:
    @torch.inference_mode()
    def measure(result: Tensor, gt: Tensor) -> float:
        return network(_input(result), _input(gt)).item()

    def _input(frame: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "1 3 h w"]:
        unit = frame[None].to(device).float() / 255
        return 2 * unit - 1 if signed else unit

    return measure


def _file(folder: Path, stem: str) -> WeightsFile:
    """A file of weights, whatever its ending."""
    paths = [folder / f"{stem}{ending}" for ending in _ENDINGS]
    found = next((path for path in paths if path.is_file()), paths[1])
    words = f"Put the file into the folder, as {stem} with one of the endings {', '.join(_ENDINGS)}"
    return WeightsFile("--metric-weights", found, f"weights of {stem}", words)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


class TemporalLPIPS(OverTime):
    """tLP: mean of |LPIPS(b_{t−1}, b_t) − LPIPS(g_{t−1}, g_t)|, of a result b and ground truth g.

    It tells a result that changes more, or less, from frame to frame than its ground truth does.
    """

    def __init__(self, lpips: FrameMetric) -> None:
        """Nothing is known of the clip yet."""
        super().__init__()
        self._lpips = lpips
        self._before: tuple[Tensor, Tensor] | None = None

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the next frame."""
        if self._before is not None:
            of_result, of_gt = map(self._lpips, self._before, (result, gt))
            self._values.append(abs(of_result - of_gt))
        self._before = (result, gt)


# ---- the networks


# Network, what it is called, places of the layers compared, and their channels.
NETWORKS: dict[str, tuple[Kind, str, tuple[int, ...], tuple[int, ...]]] = {
    "alex": ("alexnet", "AlexNet", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": ("vgg16", "VGG-16", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "squeeze": (
        *("squeezenet1_1", "SqueezeNet 1.1", (1, 4, 7, 9, 10, 11, 12)),
        (64, 128, 256, 384, 384, 512, 512),
    ),
}


class LPIPS(nn.Module):
    """Version 0.1: Σ over layers, mean over places of Σ_c w_c (â_c − b̂_c)², of each pair.

    â and b̂ are features divided by their length over channels; w ≥ 0 was fitted to what people
    judged.
    """

    shift: Float[Tensor, "1 3 1 1"]
    scale: Float[Tensor, "1 3 1 1"]

    def __init__(
        self, net_type: str, weights: WeightsFile, linear: WeightsFile, *, normalize: bool = True
    ) -> None:
        """Read the weights.

        Args:
            net_type: "alex", "vgg" or "squeeze".
            weights: of that network.
            linear: LPIPS's own, of version 0.1.
            normalize: pictures are in [0, 1]; otherwise in [−1, 1].

        Raises:
            OptionsError: a file of weights is missing or cannot be used.
        """
        super().__init__()
        self.normalize = normalize
        kind, _, places, channels = NETWORKS[net_type]
        self.network = FeatureNetwork(kind, places)
        weights.load(self.network)
        self.linear = nn.ParameterList(torch.empty(1, width, 1, 1) for width in channels)
        linear.fill({f"lin{i}.model.1.weight": weight for i, weight in enumerate(self.linear)})
        self.linear.requires_grad_(False)
        # In [−1, 1]; the same as ImageNet's mean and deviation in [0, 1], rounded.
        shift, scale = torch.tensor((-0.030, -0.088, -0.188)), torch.tensor((0.458, 0.448, 0.450))
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)

    def forward(
        self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Distances, 0 for equal pictures."""
        distance = a.new_zeros(len(a))
        for x, y, weight in zip(self._seen(a), self._seen(b), self.linear, strict=True):
            distance = distance + (weight * (x - y) ** 2).sum(dim=1).mean(dim=(-2, -1))
        return distance

    def _seen(self, pictures: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        if self.normalize:
            pictures = 2 * pictures - 1
        features = self.network((pictures - self.shift) / self.scale)
        # Where a feature is 0 in all channels, the length has the gradient 0.
        lengths = (torch.linalg.vector_norm(f, dim=1, keepdim=True) for f in features)
        return [f / (length + 1e-10) for f, length in zip(features, lengths, strict=True)]


class DISTS(nn.Module):
    """1 − Σ over channels of six maps of (α l + β s), with Σ α + Σ β = 1.

    The maps are the picture and five depths of VGG-16, whose poolings are the root of the blurred
    square. Of a map's channels x and y, with means μ, variances σ² and covariance σ_xy over places,
    l = (2 μ_x μ_y + c) / (μ_x² + μ_y² + c) compares texture, s = (2 σ_xy + c) / (σ_x² + σ_y² + c)
    structure; c = 10⁻⁶.
    """

    def __init__(self, weights: WeightsFile, fitted: WeightsFile) -> None:
        """Read the weights.

        Args:
            weights: of VGG-16.
            fitted: α and β, "alpha" and "beta", 1×1475×1×1 each.

        Raises:
            OptionsError: a file is missing or cannot be used.
        """
        super().__init__()
        _, _, places, widths = NETWORKS["vgg"]
        self.colors, self.network = ImageNetColors(), FeatureNetwork("vgg16", places)
        weights.load(self.network)
        self.widths = (3, *widths)
        shape = (1, sum(self.widths), 1, 1)
        self.alpha = nn.Parameter(torch.empty(shape), requires_grad=False)
        self.beta = nn.Parameter(torch.empty(shape), requires_grad=False)
        fitted.fill({"alpha": self.alpha, "beta": self.beta})
        for i, layer in enumerate(self.network.features):
            if isinstance(layer, nn.MaxPool2d):
                self.network.features[i] = RootPool()

    def forward(
        self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Distances of pictures in [0, 1], 0 for equal ones."""
        small, whole = 1e-6, self.alpha.sum() + self.beta.sum()
        alphas, betas = (w.flatten().split(self.widths) for w in (self.alpha, self.beta))
        score = a.new_zeros(len(a))
        maps = ([picture, *self.network(self.colors(picture))] for picture in (a, b))
        for x, y, alpha, beta in zip(*maps, alphas, betas, strict=True):
            places = (-2, -1)
            mean_x, mean_y = (m.mean(dim=places) for m in (x, y))
            var_x, var_y = (m.var(dim=places, correction=0) for m in (x, y))
            both = (x * y).mean(dim=places) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + small) / (mean_x**2 + mean_y**2 + small)
            structure = (2 * both + small) / (var_x + var_y + small)
            score = score + (alpha * texture + beta * structure).sum(dim=1)
        return 1 - score / whole


class RootPool(nn.Module):
    """Root of the square, blurred by a Hann window and halved."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
        """Maps of half the size."""
        window = torch.tensor((0.25, 0.5, 0.25), dtype=x.dtype, device=x.device)
        kernel = torch.outer(window, window).expand(x.shape[1], 1, 3, 3)
        squares = F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1])
        return (squares + 1e-12).sqrt()
