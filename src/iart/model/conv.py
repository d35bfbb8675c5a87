"""Convolutions over feature maps that keep their channels last, 3×3 and 1×1."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

HAS_ONEDNN = torch.backends.mkldnn.is_available()


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


class Stripes:
    """A `Conv` that gets one batch of maps from top to bottom, some rows at a time.

    What comes out lags behind by a row, until the last rows come in.
    """

    def __init__(self, conv: Conv) -> None:
        self._conv = conv
        self._above: Tensor | None = None

    def __call__(self, x: Float[Tensor, "b y w i"], *, last: bool) -> Float[Tensor, "b z w o"]:
        """The next rows: at least two, but for the last."""
        if self._above is None and last:
            return self._conv(x)
        edge = x.new_zeros(()).expand(x.shape[0], 1, *x.shape[2:])
        above = edge if self._above is None else self._above
        x = torch.cat((above, x, edge) if last else (above, x), dim=1)
        self._above = x[:, -2:].clone()  # a view would keep all rows
        y = F.conv2d(
            rearrange(x, "b h w c -> b c h w"), self._conv.weight, self._conv.bias, padding=(0, 1)
        )
        return rearrange(y, "b c h w -> b h w c")


def pointwise(
    x: Float[Tensor, "*p i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "*p o"]:
    """The same linear map at every place, as `F.linear`.

    On the CPU it is computed as a 1×1 convolution: oneDNN uses vector units there that the matrix
    product of BLAS leaves idle on some processors (measured: 1.5 to 2.5 times its speed on AMD's).
    """
    if x.device.type != "cpu" or not HAS_ONEDNN:
        return F.linear(x, weight, bias)
    rows = x.reshape(1, 1, -1, x.shape[-1])
    y = F.conv2d(rearrange(rows, "b h w c -> b c h w"), weight[:, :, None, None], bias)
    return rearrange(y, "b c h w -> b h w c").reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`nn.Linear`, computed by `pointwise`."""

    def forward(self, input: Float[Tensor, "*p i"]) -> Float[Tensor, "*p o"]:
        """The same linear map at every place."""
        return pointwise(input, self.weight, self.bias)
