"""SwinIRFM: residual groups of window attention that fuse three maps into one (IART §3.1)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.model.conv import Conv
from iart.model.window import WindowAttention, WindowGrid

MLP_RATIO = 2
Grids = tuple[WindowGrid, WindowGrid]  # plain, shifted


def drop_path(
    x: Float[Tensor, "b ..."], rate: float, draws: Float[Tensor, " b"] | None
) -> Float[Tensor, "b ..."]:
    """Stochastic depth: zero the samples whose draw is below `rate`, scale the rest."""
    if rate == 0 or draws is None:
        return x
    keep = draws >= rate
    return x * (keep.to(x.dtype) / (1 - rate)).view(-1, *(1,) * (x.ndim - 1))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); odd blocks attend in shifted windows."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: tuple[int, int, int],
        *,
        shifted: bool,
        drop: float,
    ) -> None:
        super().__init__()
        self.shifted, self.drop = shifted, drop
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels),
            nn.GELU(),
            nn.Linear(MLP_RATIO * channels, channels),
        )

    def forward(
        self,
        x: Float[Tensor, "b 3 h w c"],
        biases: Float[Tensor, "kinds n k k"],
        grids: Grids,
        draws: Float[Tensor, "b 2"] | None = None,
        *,
        only_middle: bool = False,
    ) -> Float[Tensor, "b t h w c"]:
        """All three frames, t = 3, or with `only_middle` what the middle one needs, t = 1."""
        attention_draws, mlp_draws = (None, None) if draws is None else draws.unbind(1)
        grid = grids[self.shifted]
        windows = grid.partition(self.norm1(x))
        attended = self.attention(windows, biases, grid, x.shape[0], only_middle=only_middle)
        if only_middle:
            x = x[:, 1:2]
        x = x + drop_path(grid.merge(attended, x.shape[0]), self.drop, attention_draws)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop, mlp_draws)


class Group(nn.Module):
    """Blocks, a convolution per frame, and the group's input added."""

    def __init__(self, blocks: list[Block], channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.conv = Conv(channels, channels)

    def biases(self) -> list[Tensor]:
        """Attention biases of every block."""
        blocks = (cast("Block", block) for block in self.blocks)
        return [block.attention.biases(shifted=block.shifted) for block in blocks]

    def forward(
        self,
        x: Float[Tensor, "b 3 h w c"],
        biases: list[Tensor],
        grids: Grids,
        draws: Float[Tensor, "b blocks 2"] | None = None,
        *,
        only_middle: bool = False,
    ) -> Float[Tensor, "b t h w c"]:
        """`only_middle` holds for the last block, its convolution and the sum."""
        y = x
        for i, (block, bias) in enumerate(zip(self.blocks, biases, strict=True)):
            last = block is self.blocks[-1]
            block_draws = None if draws is None else draws[:, i]
            y = block(y, bias, grids, block_draws, only_middle=only_middle and last)
        y = self.conv(y.flatten(0, 1)).view_as(y)
        return y + (x[:, 1:2] if only_middle else x)


class SwinIRFM(nn.Module):
    """Fuse [previous, current, second-previous] maps; the middle one is what comes out.

    Only the last step of the middle frame is used, so what would only feed the other two frames
    there is not computed.
    """

    def __init__(
        self,
        channels: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: tuple[int, int, int],
        drop: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.embed_norm = nn.LayerNorm(channels)
        rates = iter(torch.linspace(0, drop, sum(depths)).tolist())
        self.groups = nn.ModuleList(
            Group(
                [
                    Block(channels, n, window, shifted=bool(i % 2), drop=next(rates))
                    for i in range(depth)
                ],
                channels,
            )
            for depth, n in zip(depths, heads, strict=True)
        )
        self.norm = nn.LayerNorm(channels)
        self.conv = Conv(channels, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def biases(self) -> list[list[Tensor]]:
        """Attention biases of every block, built once for all steps of a forward pass."""
        return [cast("Group", group).biases() for group in self.groups]

    def forward(
        self,
        maps: Float[Tensor, "b 3 h w c"],
        biases: list[list[Tensor]] | None = None,
        draws: Float[Tensor, "b blocks 2"] | None = None,
    ) -> Float[Tensor, "b h w c"]:
        """Fuse; `biases` as `self.biases()` gives them, `draws` for stochastic depth."""
        h, w = maps.shape[2:4]
        grids = (
            WindowGrid(h, w, self.window, shifted=False),
            WindowGrid(h, w, self.window, shifted=True),
        )
        x = self.embed_norm(maps)
        first = 0
        for group, group_biases in zip(self.groups, biases or self.biases(), strict=True):
            end = first + len(group_biases)
            group_draws = None if draws is None else draws[:, first:end]
            x = group(x, group_biases, grids, group_draws, only_middle=group is self.groups[-1])
            first = end
        return self.conv(self.norm(x[:, 0])) + maps[:, 1]
