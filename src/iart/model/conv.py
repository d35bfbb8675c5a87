"""3×3 convolution over feature maps that keep their channels last."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Conv(nn.Conv2d):
    """3×3 convolution, padding 1, with bias, from `b h w in` to `b h w out`.

    Attention wants the channels of a pixel side by side; the fast convolution of every backend
    accepts that memory order, so nothing is copied between the two.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b h w i"]) -> Float[Tensor, "b h w o"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Convolve each map of the batch."""
        x = rearrange(x, "b h w c -> b c h w")
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        return rearrange(y, "b c h w -> b h w c")
