"""LPIPS v0.1 (Zhang et al., CVPR 2018): Σ over layers, mean over places of Σ_c w_c (â_c − b̂_c)².

â and b̂ are features divided by their length over channels; w ≥ 0 was fitted to what people judged.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.evaluate.metrics.features import FeatureNetwork, Kind, WeightsFile

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
    """The distance of every pair of pictures."""

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
