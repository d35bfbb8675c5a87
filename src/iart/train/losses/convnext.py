"""Distance of features of ConvNeXt (Liu et al., CVPR 2022): Σ_i γⁱ · mean |a_i − b_i|.

Layers are outputs of torchvision's `features[i]`: 0 the stem, 1, 3, 5, 7 the four stages, 2, 4, 6
the reductions between them. With `use_gram`, Gram matrices are compared instead of features.
"""

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from iart.evaluate.metrics.features import ImageNetColors
from iart.train.losses.perceptual import gram
from iart.train.losses.pixel import reduced
from iart.train.options.losses import ConvNeXtOptions

# Blocks and channels of the four stages.
SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """See `torch.nn.LayerNorm`."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """x + scale · f(x): 7×7 per channel, normalisation, two layers per pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Rearrange("b c h w -> b h w c"),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Rearrange("b h w c -> b c h w"),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Features of the same shape."""
        return x + self.layer_scale * self.block(x)


class ConvNeXt(nn.Module):
    """The `features` of ConvNeXt, up to the last layer asked for."""

    def __init__(self, size: str, wanted: tuple[int, ...]) -> None:
        super().__init__()
        depths, widths = SIZES[size]
        layers: list[nn.Module] = []
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i == 0:
                layers.append(nn.Sequential(nn.Conv2d(3, width, 4, 4), ChannelNorm(width)))
            else:
                before = widths[i - 1]
                layers.append(nn.Sequential(ChannelNorm(before), nn.Conv2d(before, width, 2, 2)))
            layers.append(nn.Sequential(*(Block(width) for _ in range(depth))))
        self.wanted, self.features = wanted, nn.Sequential(*layers[: max(wanted) + 1])

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Outputs of the wanted layers; h and w at least 32."""
        seen = []
        for layer in self.features:
            x = layer(x)
            seen.append(x)
        return [seen[place] for place in self.wanted]


class ConvNeXtLoss(nn.Module):
    """The loss of a section `convnext_opt`."""

    def __init__(self, options: ConvNeXtOptions) -> None:
        """Read the weights.

        Raises:
            OptionsError: the file of weights is missing or cannot be used.
        """
        super().__init__()
        self.options, self.colors = options, ImageNetColors()
        self.network = ConvNeXt(options.model_type, options.feature_layers)
        options.files("train.convnext_opt")[0].load(self.network)

    def forward(
        self, output: Float[Tensor, "b t 3 h w"], truth: Float[Tensor, "b t 3 h w"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        loss, seen = output.new_zeros(()), self._seen(output)
        with torch.no_grad():
            expected = self._seen(truth)
        for i, (a, b) in enumerate(zip(seen, expected, strict=True)):
            distance = reduced((a - b).abs(), self.options.reduction)
            loss = loss + self.options.layer_weight_decay**i * distance
        return loss

    def _seen(self, clips: Float[Tensor, "b t 3 h w"]) -> list[Float[Tensor, "n ..."]]:
        low, high = self.options.input_range
        frames = self.colors((clips.flatten(0, 1) - low) / (high - low))
        short = [max(32 - side, 0) for side in frames.shape[-2:]]
        if any(short):
            frames = F.pad(frames, (0, short[1], 0, short[0]), mode="replicate")
        features = self.network(frames)
        return [gram(f) for f in features] if self.options.use_gram else features
