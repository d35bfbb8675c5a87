"""Attention inside 3-D windows with a relative position bias (Swin, adapted to three frames).

Letters: b batch, t frames (3), h w size, k cells of a window, n heads, c channels, s windows,
r rows of maps flattened over (b t h w).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from iart.device import computed_in
from iart.model.conv import Linear, pointwise
from iart.model.kernels.dispatch import BACKENDS, attend_windows, suits_triton
from iart.model.kernels.operators import Differentiable, needs_gradient

# What a pair of cells from different regions of a rolled picture gets added before the softmax.
SEPARATED = -100.0


@dataclass(frozen=True)
class Chunk:
    """Windows that are computed together."""

    sections: tuple[tuple[int, int], ...]
    """(kind, windows): how many of a kind, interior, right, bottom or corner, there are in turn."""
    source: Int[Tensor, "s k"]
    """Row of each cell; of padding, any."""
    target: Int[Tensor, "s k"]
    """The same, but of padding the row after the last."""
    padding: Bool[Tensor, "s k 1"] | None
    """Which cells lie outside of the picture; None if none does."""


class _Gather(Differentiable):
    """Rows of a map, by the row of each; a gradient comes back by the way back, a gather as well.

    That of `index_select` adds, on GPUs in the order in which threads go.
    """

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        x, index, *_ = inputs
        return x.index_select(0, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back, unused = ctx.saved_tensors
        of_rows = grads[0].index_select(0, back)
        if unused is not None:
            of_rows = of_rows.masked_fill(unused, 0)
        return of_rows, None, None, None


class WindowGrid:
    """How maps of one size are cut into windows, shifted by half a window or not.

    A shifted grid rolls the padded picture by half a window. Cells that the roll brought together
    must not see each other: that concerns only the last row and the last column of windows, so
    windows are ordered in sections (interior, right, bottom, corner) and only the last three carry
    a mask. They are computed in chunks that stay in the processor's cache.
    """

    def __init__(
        self,
        batch: int,
        h: int,
        w: int,
        window: tuple[int, int, int],
        *,
        shifted: bool,
        cells_at_once: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Cells at once: those of a chunk at most; None makes one chunk."""
        frames, kh, kw = window
        self.batch, self.map_rows, self.rows = batch, h * w, batch * frames * h * w
        self._known_ways: dict[bool, tuple[Tensor, Tensor, Tensor | None]] = {}
        below, beside = -h % kh, -w % kw
        index = torch.arange(self.rows, device=device).view(batch, frames, h, w)
        index = F.pad(index, (0, beside, 0, below), value=self.rows)
        if shifted:
            index = index.roll((-(kh // 2), -(kw // 2)), dims=(2, 3))
        index = rearrange(index, "b t (i y) (j x) -> i j b (t y x)", y=kh, x=kw)
        border = 1 if shifted else 0
        sections = [
            section.flatten(0, 2)
            for rows in index.tensor_split((len(index) - border,))
            for section in rows.tensor_split((index.shape[1] - border,), dim=1)
        ]
        counts = [len(section) for section in sections]
        at_once = sum(counts) if cells_at_once is None else max(1, cells_at_once // prod(window))
        padded = self._padded((h, w), (kh, kw), border)
        firsts = range(0, len(padded), at_once)
        self.chunks = [
            self._chunk(
                target,
                _sections(counts, first, len(target)),
                padded=any(padded[first : first + at_once]),
            )
            for first, target in zip(firsts, torch.cat(sections).split(at_once), strict=True)
        ]

    def _padded(self, sizes: tuple[int, int], window: tuple[int, int], border: int) -> list[bool]:
        """Whether each window has padding, in order; told from sizes alone."""
        axes = []
        for size, k in zip(sizes, window, strict=True):
            whole, shift = size + -size % k, k // 2 * border
            cells = [(cell + shift) % whole >= size for cell in range(whole)]
            windows = [any(cells[first : first + k]) for first in range(0, whole, k)]
            axes.append((windows[: len(windows) - border], windows[len(windows) - border :]))
        return [
            row or column
            for rows in axes[0]
            for columns in axes[1]
            for row in rows
            for column in columns
            for _ in range(self.batch)
        ]

    def _chunk(
        self, target: Int[Tensor, "s k"], sections: tuple[tuple[int, int], ...], *, padded: bool
    ) -> Chunk:
        if not padded:
            return Chunk(sections, target, target, None)
        outside = (target == self.rows)[..., None]
        return Chunk(sections, target.clamp(max=self.rows - 1), target, outside)

    def cut(self, x: Float[Tensor, "r c"], chunk: Chunk) -> Float[Tensor, "s k c"]:
        """Cells of the windows; of padding, any, of which there is no gradient."""
        source = chunk.source.flatten()
        if len(self.chunks) == 1 and needs_gradient((x,)):
            cells = _Gather.call(x, source, self._ways(only_middle=False)[0], None)
        else:
            cells = x.index_select(0, source)
        return cells.unflatten(0, chunk.source.shape)

    def join(
        self,
        chunks: Iterable[Float[Tensor, "s k c"]],
        out: Float[Tensor, "_ c"] | None,
        *,
        only_middle: bool = False,
    ) -> Float[Tensor, "q c"]:
        """Put what became of each chunk back into its place in the maps.

        Args:
            chunks: in order; with `only_middle`, their cells of the middle frame.
            out: the maps to overwrite, with one more row; None makes new ones, of which there is a
                gradient.
            only_middle: the maps are those of the middle frame alone.
        """
        if out is not None:
            targets = (self._targets(chunk, only_middle=only_middle) for chunk in self.chunks)
            for target, chunk in zip(targets, chunks, strict=True):
                out.index_copy_(0, target, chunk.flatten(0, 1).to(out.dtype))
            return out[:-1]
        cells = torch.cat([chunk.flatten(0, 1) for chunk in chunks])
        return _Gather.call(cells, *self._ways(only_middle=only_middle))

    @cached_property
    def middle_rows(self) -> tuple[Int[Tensor, " cells"], Int[Tensor, " cells"]]:
        """Rows of the middle frame's cells: in the maps, and in those of that frame alone.

        Of a grid of one chunk; rows of padding are the one after the last, or further.
        """
        (chunk,) = self.chunks
        return middle(chunk.target).flatten(), self._targets(chunk, only_middle=True)

    def _ways(
        self, *, only_middle: bool
    ) -> tuple[Int[Tensor, " rows"], Int[Tensor, " cells"], Bool[Tensor, "cells 1"] | None]:
        """Cell of each row; row of each cell, of padding any; which cells are padding, if any."""
        if only_middle not in self._known_ways:
            target = torch.cat([self._targets(x, only_middle=only_middle) for x in self.chunks])
            rows = self.batch * self.map_rows if only_middle else self.rows
            place = target.new_empty(rows + 1)
            place[target] = torch.arange(len(target), device=target.device)
            full = all(chunk.padding is None for chunk in self.chunks)
            unused = None if full else (target >= rows)[:, None]
            ways = place[:-1], target.clamp(max=rows - 1), unused
            self._known_ways[only_middle] = ways
        return self._known_ways[only_middle]

    def samples(self, chunk: Chunk) -> Int[Tensor, " s"]:
        """Of the batch: which one each window lies in."""
        # The rows of padding are the highest, and no window is all padding.
        return chunk.target.amin(1) // (self.rows // self.batch)

    def _targets(self, chunk: Chunk, *, only_middle: bool) -> Int[Tensor, " cells"]:
        if not only_middle:
            return chunk.target.flatten()
        target = middle(chunk.target).flatten()
        batch_rows = self.rows // self.batch
        return target // batch_rows * self.map_rows + target % self.map_rows


def middle(windows: Shaped[Tensor, "s k *c"]) -> Shaped[Tensor, "s q *c"]:
    """Cells of the middle frame."""
    k = windows.shape[1] // 3
    return windows[:, k : 2 * k]


def _sections(counts: list[int], first: int, windows: int) -> tuple[tuple[int, int], ...]:
    """(kind, how many) of the windows from `first` on, if there are `counts` of each kind."""
    ends = list(accumulate(counts, initial=0))
    last = first + windows
    shared = (min(end, last) - max(start, first) for start, end in pairwise(ends))
    return tuple((kind, number) for kind, number in enumerate(shared) if number > 0)


def relative_index(window: tuple[int, int, int]) -> Int[Tensor, "k k"]:
    """Row of the bias table for each pair (query, key): query − key, ordered (t, y, x)."""
    axes = [torch.arange(size) for size in window]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    difference = cells[:, None] - cells[None] + torch.tensor(window) - 1
    _, h, w = window
    t, y, x = difference.unbind(-1)
    return (t * (2 * h - 1) + y) * (2 * w - 1) + x


def separated_pairs(window: tuple[int, int, int]) -> Bool[Tensor, "4 k k"]:
    """Pairs that the roll brought together, for interior, right, bottom and corner windows."""
    _, h, w = window
    below = (torch.arange(h) >= h - h // 2)[None, :, None].expand(window).flatten()
    right = (torch.arange(w) >= w - w // 2)[None, None, :].expand(window).flatten()
    rows, columns = below[:, None] != below, right[:, None] != right
    return torch.stack((torch.zeros_like(rows), columns, rows, rows | columns))


class WindowAttention(nn.Module):
    """Multi-head attention among the cells of a window: softmax(QKᵀ / √(C/n) + B + mask) V.

    B is the relative position bias; mask separates regions in shifted border windows.
    """

    index: Int[Tensor, "k k"]
    separated: Bool[Tensor, "4 k k"]

    def __init__(self, channels: int, heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.backend = BACKENDS[0]
        t, h, w = window
        table = torch.empty((2 * t - 1) * (2 * h - 1) * (2 * w - 1), heads)
        self.position_bias = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.register_buffer("index", relative_index(window), persistent=False)
        self.register_buffer("separated", separated_pairs(window), persistent=False)

    def biases(self, *, shifted: bool) -> Float[Tensor, "kinds n k k"]:
        """Additive bias per kind of window; the same for every step of a forward pass."""
        k = self.index.shape[0]
        launched = suits_triton(self.backend, self.position_bias)
        pairs = self.index if launched else self.index.T
        table = self.position_bias
        if launched:
            table = table.to(computed_in(table))
        bias = table[pairs.flatten()].view(k, k, self.heads).permute(2, 0, 1).contiguous()
        if not launched:
            bias = bias.mT  # stored by key, as the kernel of the CPU wants it
        if not shifted:
            return bias[None]
        return bias + SEPARATED * self.separated[:, None].to(bias.dtype)

    def forward(
        self,
        windows: Float[Tensor, "s k c"],
        biases: Float[Tensor, "kinds n k k"],
        sections: tuple[tuple[int, int], ...],
        *,
        only_middle: bool,
    ) -> Float[Tensor, "s q c"]:
        """Attend; with `only_middle` the queries are those of the middle frame alone.

        Args:
            windows: their cells, normalised.
            biases: of every kind of windows.
            sections: kinds of the windows, see `Chunk`.
            only_middle: see above.
        """
        c, n = windows.shape[-1], self.heads
        if only_middle:
            biases = middle(biases.flatten(0, 1)).unflatten(0, biases.shape[:2])
        if suits_triton(self.backend, windows):
            # Queries of the other frames cost less than a launch of their own.
            query, key, value = self.qkv(windows).chunk(3, dim=-1)
            query = middle(query) if only_middle else query
        elif only_middle:
            weight, shift = self.qkv.weight, self.qkv.bias
            query = pointwise(middle(windows), weight[:c], shift[:c])
            key, value = pointwise(windows, weight[c:], shift[c:]).chunk(2, dim=-1)
        else:
            query, key, value = self.qkv(windows).chunk(3, dim=-1)
        query, key, value = (
            x.unflatten(-1, (n, c // n)).transpose(1, 2) for x in (query, key, value)
        )
        attended = attend_windows(query, key, value, biases, sections, self.backend)
        return self.proj(attended.transpose(1, 2).flatten(2))
