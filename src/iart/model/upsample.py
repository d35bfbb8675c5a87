"""From features to pixels: two pixel shuffles on top of the bilinearly enlarged frame."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from iart.model.conv import Conv

SCALE = 4


def pixel_shuffle(x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b 2*h 2*w c/4"]:
    """Spread groups of four channels over 2×2 pixels, channels last."""
    return rearrange(x, "b h w (c y x) -> b (h y) (w x) c", y=2, x=2)


class Head(nn.Module):
    """Features → residual at 4h × 4w, added to the bilinear enlargement of the frame."""

    def __init__(self, channels: int, mid_channels: int, head_channels: int) -> None:
        super().__init__()
        self.reduce = Conv(channels, mid_channels)
        self.up1 = Conv(mid_channels, 4 * mid_channels)
        self.up2 = Conv(mid_channels, 4 * head_channels)
        self.refine = Conv(head_channels, head_channels)
        self.last = Conv(head_channels, 3)

    def forward(
        self, features: Float[Tensor, "b h w c"], frame: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 4*h 4*w"]:
        """RGB in [0, 1] nominally; not clamped."""
        x = F.leaky_relu(pixel_shuffle(self.up1(self.reduce(features))), 0.1)
        x = F.leaky_relu(pixel_shuffle(self.up2(x)), 0.1)
        x = self.last(F.leaky_relu(self.refine(x), 0.1))
        base = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return rearrange(x, "b h w c -> b c h w") + base
