"""From features to pixels: two pixel shuffles on top of the bilinearly enlarged frame."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from iart.model.conv import Conv, Stripes

SCALE = 4
# On the CPU the head goes down the picture in stripes whose maps, at 4h × 4w, have so many numbers:
# they fit into the cache, and the memory it takes does not depend on the height.
NUMBERS_AT_ONCE = 2**20
SHORTEST_STRIPE = 4
"""Rows at h × w: each of the five convolutions then gets the two rows that it needs."""


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
        out = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        convs = (self.reduce, self.up1, self.up2, self.refine, self.last)
        reduce, up1, up2, refine, to_rgb = (Stripes(conv) for conv in convs)
        stripes = features.split(self._rows_at_once(features), dim=1)
        top = 0
        for i, stripe in enumerate(stripes):
            last = i == len(stripes) - 1
            x = up1(reduce(stripe, last=last), last=last)
            x = up2(pixel_shuffle(F.leaky_relu_(x, 0.1)), last=last)
            x = refine(pixel_shuffle(F.leaky_relu_(x, 0.1)), last=last)
            x = to_rgb(F.leaky_relu_(x, 0.1), last=last)
            bottom = top + x.shape[1]
            out[:, :, top:bottom] += rearrange(x, "b h w c -> b c h w")
            top = bottom
        return out

    def _rows_at_once(self, features: Float[Tensor, "b h w c"]) -> int:
        b, h, w, _ = features.shape
        if features.device.type != "cpu" or torch.is_grad_enabled():
            return h
        return max(SHORTEST_STRIPE, NUMBERS_AT_ONCE // (b * SCALE**2 * w * self.last.in_channels))
