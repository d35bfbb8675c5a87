"""Attention inside 3-D windows with a relative position bias (Swin, adapted to three frames).

Letters: b batch, t frames (3), h w size, k cells of a window, n heads, c channels, s windows.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

# What a pair of cells from different regions of a rolled picture gets added before the softmax.
SEPARATED = -100.0


class WindowGrid:
    """How maps of one size are cut into windows, shifted by half a window or not.

    A shifted grid rolls the padded picture by half a window. Cells that the roll brought together
    must not see each other: that concerns only the last row and the last column of windows, so
    windows are ordered in sections (interior, right, bottom, corner) and only the last three carry
    a mask.
    """

    def __init__(self, h: int, w: int, window: tuple[int, int, int], *, shifted: bool) -> None:
        self.h, self.w = h, w
        _, self.window_h, self.window_w = window
        self.rows, self.columns = -(-h // self.window_h), -(-w // self.window_w)
        self.shift = (self.window_h // 2, self.window_w // 2) if shifted else (0, 0)
        border = 1 if shifted else 0
        row_parts = ((0, self.rows - border), (self.rows - border, self.rows))
        column_parts = ((0, self.columns - border), (self.columns - border, self.columns))
        # (kind, first row, end row, first column, end column), half-open; kind indexes the biases
        self.sections = [
            (2 * i + j, *rows, *columns)
            for i, rows in enumerate(row_parts)
            for j, columns in enumerate(column_parts)
            if rows[0] < rows[1] and columns[0] < columns[1]
        ]

    def partition(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "s k c"]:
        """Cut maps into windows, section by section; padded with zeros at the right and bottom."""
        kh, kw = self.window_h, self.window_w
        x = F.pad(x, (0, 0, 0, self.columns * kw - self.w, 0, self.rows * kh - self.h))
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), dims=(2, 3))
        parts = (
            x[:, :, top * kh : bottom * kh, left * kw : right * kw]
            for _, top, bottom, left, right in self.sections
        )
        return torch.cat(
            [
                rearrange(part, "b t (i y) (j x) c -> (b i j) (t y x) c", y=kh, x=kw)
                for part in parts
            ]
        )

    def merge(self, windows: Float[Tensor, "s k c"], batch: int) -> Float[Tensor, "b t h w c"]:
        """Undo `partition`; the windows may hold fewer frames than were cut."""
        kh, kw = self.window_h, self.window_w
        frames, c = windows.shape[1] // (kh * kw), windows.shape[2]
        x = windows.new_empty(batch, frames, self.rows * kh, self.columns * kw, c)
        for (_, top, bottom, left, right), part in zip(
            self.sections, self.split(windows, batch), strict=True
        ):
            x[:, :, top * kh : bottom * kh, left * kw : right * kw] = rearrange(
                part,
                "(b i j) (t y x) c -> b t (i y) (j x) c",
                b=batch, i=bottom - top, y=kh, x=kw,
            )  # fmt: skip
        if any(self.shift):
            x = x.roll(self.shift, dims=(2, 3))
        return x[:, :, : self.h, : self.w]

    def split(self, windows: Tensor, batch: int) -> tuple[Tensor, ...]:
        """Windows of each section."""
        counts = [
            batch * (bottom - top) * (right - left) for _, top, bottom, left, right in self.sections
        ]
        return windows.split(counts)


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
        t, h, w = window
        table = torch.empty((2 * t - 1) * (2 * h - 1) * (2 * w - 1), heads)
        self.position_bias = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.register_buffer("index", relative_index(window), persistent=False)
        self.register_buffer("separated", separated_pairs(window), persistent=False)

    def biases(self, *, shifted: bool) -> Float[Tensor, "kinds n k k"]:
        """Additive bias per kind of window; the same for every step of a forward pass."""
        k = self.index.shape[0]
        bias = self.position_bias[self.index.flatten()].view(k, k, self.heads).permute(2, 0, 1)
        if not shifted:
            return bias[None].contiguous()
        return bias + SEPARATED * self.separated[:, None].to(bias.dtype)

    def forward(
        self,
        windows: Float[Tensor, "s k c"],
        biases: Float[Tensor, "kinds n k k"],
        grid: WindowGrid,
        batch: int,
        *,
        only_middle: bool,
    ) -> Float[Tensor, "s q c"]:
        """Attend; with `only_middle` the queries are those of the middle frame alone."""
        s, k, c = windows.shape
        n = self.heads
        if only_middle:
            middle = slice(k // 3, 2 * (k // 3))
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(windows[:, middle], weight[:c], bias[:c])
            key, value = F.linear(windows, weight[c:], bias[c:]).chunk(2, dim=-1)
            biases = biases[:, :, middle]
        else:
            query, key, value = self.qkv(windows).chunk(3, dim=-1)
        query, key, value = (
            x.view(s, x.shape[1], n, c // n).transpose(1, 2) for x in (query, key, value)
        )
        sections = (grid.split(x, batch) for x in (query, key, value))
        attended = [
            F.scaled_dot_product_attention(q, k_, v, attn_mask=biases[kind][None].to(q.dtype))
            for (kind, *_), q, k_, v in zip(grid.sections, *sections, strict=True)
        ]
        return self.proj(torch.cat(attended).transpose(1, 2).flatten(2))
