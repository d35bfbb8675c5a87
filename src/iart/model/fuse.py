"""SwinIRFM: residual groups of window attention that fuse three maps into one (IART §3.1)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.device import computed_in
from iart.model.conv import Conv, Linear
from iart.model.kernels.dispatch import suits_triton
from iart.model.window import Chunk, WindowAttention, WindowGrid, middle

MLP_RATIO = 2
# On the CPU, windows with so many cells are computed together: a block's activations for them fit
# into the cache, and memory is not taken anew for each of its layers.
CELLS_AT_ONCE = 8192
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
            Linear(channels, MLP_RATIO * channels),
            nn.GELU(),
            Linear(MLP_RATIO * channels, channels),
        )

    def forward(
        self,
        x: Float[Tensor, "r c"],
        biases: Float[Tensor, "kinds n k k"],
        grid: WindowGrid,
        draws: Float[Tensor, "b 2"] | None = None,
        out: Float[Tensor, "_ c"] | None = None,
        *,
        only_middle: bool = False,
    ) -> Float[Tensor, "q c"]:
        """All three frames, or with `only_middle` what the middle one needs.

        Args:
            x: maps flattened over (b t h w).
            biases: of every kind of windows.
            grid: how the maps are cut into windows.
            draws: for stochastic depth.
            out: see `WindowGrid.join`; may be `x` itself.
            only_middle: give the middle frame alone.
        """
        if out is not None and draws is None and suits_triton(self.attention.backend, x):
            return self._launched(x, biases, grid, out, only_middle=only_middle)
        chunks = (
            self._chunk(x, chunk, biases, grid, draws, only_middle=only_middle)
            for chunk in grid.chunks
        )
        return grid.join(chunks, out, only_middle=only_middle)

    def _launched(
        self,
        x: Float[Tensor, "r c"],
        biases: Float[Tensor, "kinds n k k"],
        grid: WindowGrid,
        out: Float[Tensor, "_ c"],
        *,
        only_middle: bool,
    ) -> Float[Tensor, "q c"]:
        """On a GPU: everything between two matrix products is one launch."""
        (chunk,) = grid.chunks
        source = target = chunk.target.flatten()
        first, second, launch = self.norm1, self.norm2, torch.ops.iart
        normed = launch.norm_rows(
            x, source, first.weight, first.bias, first.eps, computed_in(x)
        ).unflatten(0, chunk.target.shape)
        attended = self.attention(normed, biases, chunk.sections, only_middle=only_middle)
        if only_middle:
            source, target = grid.middle_rows
        cells, normed = launch.add_norm_rows(
            x, source, attended.flatten(0, 1), second.weight, second.bias, second.eps
        )
        launch.add_to_rows(out[:-1], target, cells, self.mlp(normed))
        return out[:-1]

    def _chunk(
        self,
        x: Float[Tensor, "r c"],
        chunk: Chunk,
        biases: Float[Tensor, "kinds n k k"],
        grid: WindowGrid,
        draws: Float[Tensor, "b 2"] | None,
        *,
        only_middle: bool,
    ) -> Float[Tensor, "s q c"]:
        attention_draws, mlp_draws = (None, None)
        if draws is not None:
            attention_draws, mlp_draws = draws[grid.samples(chunk)].unbind(1)
        cells = grid.cut(x, chunk)
        normed = self.norm1(cells)
        if chunk.padding is not None:
            normed = normed.masked_fill(chunk.padding, 0)
        attended = self.attention(normed, biases, chunk.sections, only_middle=only_middle)
        cells = middle(cells) if only_middle else cells
        cells = cells + drop_path(attended, self.drop, attention_draws)
        return cells + drop_path(self.mlp(self.norm2(cells)), self.drop, mlp_draws)


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
        b, t, h, w, c = x.shape
        rows, out = x.flatten(0, 3), None
        if not torch.is_grad_enabled():  # blocks work in place, but not in x
            out = rows.new_empty(len(rows) + 1, c)
        for i, (block, bias) in enumerate(zip(self.blocks, biases, strict=True)):
            step_draws = None if draws is None else draws[:, i]
            if only_middle and block is self.blocks[-1]:
                x, t = x[:, 1:2], 1
                out = None if out is None else rows.new_empty(b * h * w + 1, c)
            rows = block(rows, bias, grids[i % 2], step_draws, out, only_middle=t == 1)
        y = self.conv(rows.view(b * t, h, w, c)).view_as(x)
        # Under autocast on a GPU, x is float32 and stays so.
        return y.add_(x) if y.dtype == x.dtype else y + x


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
        blocks = sum(depths)
        rates = (drop * i / max(blocks - 1, 1) for i in range(blocks))
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
        known: dict[tuple[int, int, int], Grids] | None = None,
    ) -> Float[Tensor, "b h w c"]:
        """Fuse the middle map with the others.

        Args:
            maps: previous, current, second-previous.
            biases: as `self.biases()` gives them.
            draws: for stochastic depth.
            known: how maps of each size (b, h, w) are cut into windows; is added to. All maps lie
                on one device, and all have gradients or none has.
        """
        b, _, h, w, _ = maps.shape
        grids = None if known is None else known.get((b, h, w))
        if grids is None:
            grids = self._grids(b, h, w, maps.device)
            if known is not None:
                known[b, h, w] = grids
        x = self.embed_norm(maps)
        first = 0
        for group, group_biases in zip(self.groups, biases or self.biases(), strict=True):
            end = first + len(group_biases)
            group_draws = None if draws is None else draws[:, first:end]
            x = group(x, group_biases, grids, group_draws, only_middle=group is self.groups[-1])
            first = end
        return self.conv(self.norm(x[:, 0])) + maps[:, 1]

    def _grids(self, b: int, h: int, w: int, device: torch.device) -> Grids:
        small = device.type == "cpu" and not torch.is_grad_enabled()
        plain, shifted = (
            WindowGrid(
                b,
                h,
                w,
                self.window,
                shifted=shifted,
                cells_at_once=CELLS_AT_ONCE if small else None,
                device=device,
            )
            for shifted in (False, True)
        )
        return plain, shifted
