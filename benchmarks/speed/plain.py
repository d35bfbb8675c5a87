"""IART as its published formulas stand, without a thought for speed: what ours is measured against.

A whole network for the weights of `iart.model.IART`, by the same names. All is vectorised, nothing
is saved: alignment gathers the four cells of each pixel and projects all of them; every block cuts
windows for itself, stores the matrix of attention, adds the bias and (shifted) a mask for every
window, and takes its softmax; all three frames go through every block, and the middle one is taken
at the end; the two directions of flow are computed apart. Convolutions see channels first,
attention channels last.

Letters: b batch, t frames, c channels, h w size, p pixels, s windows, k cells of a window, n heads.
"""

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iart.model import IARTConfig

CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
Clip = list[Tensor]  # a map b c h w of each frame
Maps = Float[Tensor, "b 3 h w c"]
Mask = Float[Tensor, "m k k"]  # of the m windows of a picture
BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


def conv(i: int, o: int, side: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size of its maps."""
    return nn.Conv2d(i, o, side, padding=side // 2)


def warp(
    x: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"], padding_mode: str
) -> Float[Tensor, "b c h w"]:
    """Sample `x` at p + flow(p), bilinearly; flow in pixels, channel 0 = x."""
    h, w = x.shape[-2:]
    place = pixels(flow) + rearrange(flow, "b d h w -> b h w d")
    grid = 2 * place / torch.tensor((max(w - 1, 1), max(h - 1, 1)), device=flow.device) - 1
    return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=True)


def pixels(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "h w 2"]:
    """Place (x, y) of every pixel."""
    h, w = like.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack((x, y), dim=-1).to(like)


class SpyNet(nn.Module):
    """Flow from coarse to fine: `flow = net([reference, warp(other, up), up]) + up`."""

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, channels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for _ in range(levels):
            layers = [(conv(i, o, 7), nn.ReLU()) for i, o in pairwise((8, *channels, 2))]
            self.levels.append(nn.Sequential(*sum(layers, ())[:-1]))
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)

    def pyramid(self, frames: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 _ _"]]:
        """The frames at every level, coarsest first."""
        levels = [(frames - self.mean) / self.std]
        for _ in self.levels[1:]:
            levels.insert(0, F.avg_pool2d(levels[0], 2))
        return levels

    def forward(
        self, reference: Float[Tensor, "b 3 h w"], other: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 2 h w"]:
        """Flow from `reference` to `other`."""
        h, w = reference.shape[-2:]
        multiple = 2 ** (len(self.levels) - 1)
        size = [max(math.ceil(side / multiple), 2) * multiple for side in (h, w)]
        first, second = (
            self.pyramid(F.interpolate(x, size, mode="bilinear", align_corners=False))
            for x in (reference, other)
        )
        b, _, coarse_h, coarse_w = first[0].shape
        flow = reference.new_zeros(b, 2, coarse_h // 2, coarse_w // 2)
        for net, ref, oth in zip(self.levels, first, second, strict=True):
            up = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            missing = [side - got for side, got in zip(ref.shape[2:], up.shape[2:], strict=True)]
            up = F.pad(up, (0, missing[1], 0, missing[0]), mode="replicate")
            flow = net(torch.cat((ref, warp(oth, up, "border"), up), dim=1)) + up
        flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((w / size[1], h / size[0])).view(2, 1, 1)


def sine_encoding(
    place: Float[Tensor, "*b 2"], channels: int, extent: float
) -> Float[Tensor, "*b {channels}"]:
    """Sine encoding of (y, x), the first half of the channels from y, the last from x."""
    half = channels // 2
    j = torch.arange(half, device=place.device)
    angle = place[..., None] / (extent + 1e-6) * 2 * math.pi / 0.01 ** (2 * (j // 2) / half)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-3)


class Align(nn.Module):
    """Each pixel attends to the four cells of the source around p + flow."""

    position_bias: Float[Tensor, "4 c"]
    cells: Int[Tensor, "4 2"]

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        cells = torch.tensor(CELLS)
        self.register_buffer("cells", cells, persistent=False)
        encoding = sine_encoding(cells.float(), channels, 1)
        self.register_buffer("position_bias", encoding, persistent=False)

    def forward(
        self,
        source: Float[Tensor, "b c h w"],
        current: Float[Tensor, "b c h w"],
        flow: Float[Tensor, "b 2 h w"],
    ) -> Float[Tensor, "b c h w"]:
        """Bring `source` to the place of `current`; flow in pixels, channel 0 = x."""
        b, c, h, w = source.shape
        n = self.heads
        place = (pixels(flow) + rearrange(flow, "b d h w -> b h w d")).flip(-1)  # (y, x)
        floor = place.floor()
        y, x = (floor.long()[..., None, :] + self.cells).unbind(-1)  # b h w 4
        first = torch.arange(b, device=flow.device).view(b, 1, 1, 1) * (h * w)
        index = first + y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
        cells = rearrange(source, "b c h w -> (b h w) c").index_select(0, index.flatten())
        cells = cells.view(b * h * w, 4, c) + self.position_bias

        fraction = sine_encoding(place - floor, c, 2)
        query = self.query(rearrange(current, "b c h w -> b h w c") + fraction)
        query = rearrange(query, "b h w (n d) -> (b h w) n 1 d", n=n) * (c // n) ** -0.5
        key = rearrange(self.key(cells), "p i (n d) -> p n i d", n=n)
        value = rearrange(self.value(cells), "p i (n d) -> p n i d", n=n)
        out = (query @ key.transpose(-2, -1)).softmax(-1) @ value
        return rearrange(out, "(b h w) n 1 d -> b (n d) h w", b=b, h=h)


def shift_mask(rows: int, columns: int, window: tuple[int, int, int]) -> Mask:
    """−100 for pairs that the roll of a padded map of this size brought together, 0 for others."""
    t, kh, kw = window
    region = torch.zeros(rows, columns)
    for i, y in enumerate((slice(0, -kh), slice(-kh, -(kh // 2)), slice(-(kh // 2), None))):
        for j, x in enumerate((slice(0, -kw), slice(-kw, -(kw // 2)), slice(-(kw // 2), None))):
            region[y, x] = 3 * i + j
    of_cell = rearrange(region, "(i y) (j x) -> (i j) (y x)", y=kh, x=kw).repeat(1, t)
    return -100.0 * (of_cell[:, :, None] != of_cell[:, None]).float()


class Attention(nn.Module):
    """softmax(QKᵀ / √(C/n) + B + mask) V among the cells of each window."""

    index: Int[Tensor, " pairs"]

    def __init__(self, channels: int, heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads = heads
        t, h, w = window
        table = torch.empty((2 * t - 1) * (2 * h - 1) * (2 * w - 1), heads)
        self.position_bias = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        cells = torch.cartesian_prod(*(torch.arange(side) for side in window))
        apart = cells[:, None] - cells + torch.tensor(window) - 1  # query − key, from 0
        steps = torch.tensor(((2 * h - 1) * (2 * w - 1), 2 * w - 1, 1))
        self.register_buffer("index", (apart * steps).sum(-1).flatten(), persistent=False)

    def forward(self, windows: Float[Tensor, "s k c"], mask: Mask | None) -> Float[Tensor, "s k c"]:
        """Attend; with a mask there are m windows per picture."""
        (s, k, c), n = windows.shape, self.heads
        query, key, value = rearrange(self.qkv(windows), "s k (q n d) -> q s n k d", q=3, n=n)
        bias = rearrange(self.position_bias[self.index], "(q k) n -> n q k", q=k)
        attention = (query * (c // n) ** -0.5) @ key.transpose(-2, -1) + bias
        if mask is not None:
            attention = attention.view(-1, len(mask), n, k, k) + mask[:, None]
        out = attention.view(s, n, k, k).softmax(-1) @ value
        return self.proj(rearrange(out, "s n k d -> s k (n d)"))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); odd blocks shift their windows by half."""

    def __init__(
        self, channels: int, heads: int, window: tuple[int, int, int], *, shifted: bool
    ) -> None:
        super().__init__()
        _, kh, kw = self.window = window
        self.shift = (kh // 2, kw // 2) if shifted else (0, 0)
        self.norm1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Maps, mask: Mask) -> Maps:
        """`mask` is that of shifted blocks."""
        x = x + self.attend(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Maps, mask: Mask) -> Maps:
        """Cut into windows, attend, put together."""
        (b, _, h, w, _), (_, kh, kw), shifted = x.shape, self.window, any(self.shift)
        x = F.pad(x, (0, 0, 0, -w % kw, 0, -h % kh))
        rows = x.shape[2] // kh
        if shifted:
            x = x.roll((-self.shift[0], -self.shift[1]), dims=(2, 3))
        windows = rearrange(x, "b t (i y) (j x) c -> (b i j) (t y x) c", y=kh, x=kw)
        windows = self.attention(windows, mask if shifted else None)
        merged = "(b i j) (t y x) c -> b t (i y) (j x) c"
        x = rearrange(windows, merged, b=b, i=rows, y=kh, x=kw)
        if shifted:
            x = x.roll(self.shift, dims=(2, 3))
        return x[:, :, :h, :w]


class Group(nn.Module):
    """Blocks, a convolution per frame, and what came in added."""

    def __init__(self, channels: int, depth: int, heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, heads, window, shifted=i % 2 == 1) for i in range(depth)
        )
        self.conv = conv(channels, channels)

    def forward(self, x: Maps, mask: Mask, *, recompute: bool) -> Maps:
        """All three frames."""
        y = x
        for block in self.blocks:
            y = checkpoint(block, y, mask, use_reentrant=False) if recompute else block(y, mask)
        y = self.conv(rearrange(y, "b t h w c -> (b t) c h w"))
        return x + rearrange(y, "(b t) c h w -> b t h w c", t=3)


class Fuse(nn.Module):
    """SwinIRFM over [previous, current, second-previous]; the middle one comes out."""

    def __init__(self, config: IARTConfig) -> None:
        super().__init__()
        c = config.channels
        self.embed_norm = nn.LayerNorm(c)
        self.groups = nn.ModuleList(
            Group(c, depth, heads, config.window)
            for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(c)
        self.conv = conv(c, c)

    def forward(
        self, maps: Float[Tensor, "b 3 c h w"], mask: Mask, *, recompute: bool
    ) -> Float[Tensor, "b c h w"]:
        """Fuse three maps."""
        x = self.embed_norm(rearrange(maps, "b t c h w -> b t h w c"))
        for group in self.groups:
            x = group(x, mask, recompute=recompute)
        x = rearrange(self.norm(x), "b t h w c -> b t c h w")
        return self.conv(x[:, 1]) + maps[:, 1]


class Head(nn.Module):
    """Features → what is added to the bilinear enlargement."""

    def __init__(self, config: IARTConfig) -> None:
        super().__init__()
        mid, head = config.mid_channels, config.head_channels
        self.reduce = conv(config.channels, mid)
        self.up1 = conv(mid, 4 * mid)
        self.up2 = conv(mid, 4 * head)
        self.refine = conv(head, head)
        self.last = conv(head, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 4*h 4*w"]:
        """One frame."""
        x = F.leaky_relu(F.pixel_shuffle(self.up1(self.reduce(x)), 2), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.up2(x), 2), 0.1)
        return self.last(F.leaky_relu(self.refine(x), 0.1))


class PlainIART(nn.Module):
    """The network; parameters are named as those of `iart.model.IART`.

    No stochastic depth, and flow is computed in both directions whatever the clip.
    """

    def __init__(self, config: IARTConfig) -> None:
        super().__init__()
        if config.alignment != "implicit":
            raise ValueError(f"the plain path aligns implicitly only, not {config.alignment!r}")
        self.window = config.window
        self.extract = conv(3, config.channels)
        self.flow = SpyNet(config.flow_channels, config.flow_levels)
        self.align = Align(config.channels, config.heads[0])
        self.branches = nn.ModuleDict({n: Fuse(config) for n in BRANCHES[: config.branches]})
        self.head = Head(config)

    def forward(
        self, frames: Float[Tensor, "b t 3 h w"], *, recompute: bool = False
    ) -> Float[Tensor, "b t 3 4*h 4*w"]:
        """Enlarge a clip of at least two frames; `recompute` keeps no block's insides."""
        b, t, _, h, w = frames.shape
        first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        with torch.autocast(frames.device.type, enabled=False):
            backward = self.flow(first, second).unflatten(0, (b, t - 1))
            forward = self.flow(second, first).unflatten(0, (b, t - 1))
        _, kh, kw = self.window
        mask = shift_mask(h + -h % kh, w + -w % kw, self.window).to(frames.device)
        features = list(self.extract(frames.flatten(0, 1)).unflatten(0, (b, t)).unbind(1))
        for name, fuse in self.branches.items():
            if name.startswith("backward"):
                flows = list(backward.unbind(1))[::-1]
                features = self.propagate(features[::-1], flows, fuse, mask, recompute)[::-1]
            else:
                flows = list(forward.unbind(1))
                features = self.propagate(features, flows, fuse, mask, recompute)
        enlarged = F.interpolate(
            frames.flatten(0, 1), scale_factor=4, mode="bilinear", align_corners=False
        ).unflatten(0, (b, t))
        return torch.stack([self.head(x) for x in features], dim=1) + enlarged

    def propagate(
        self, features: Clip, flows: Clip, fuse: nn.Module, mask: Mask, recompute: bool
    ) -> Clip:
        """One direction: maps in the order of travel, `flows[i]` from step i + 1 to step i."""
        done: Clip = []
        for i, current in enumerate(features):
            near = far = current
            if i > 0:
                near = self.align(done[-1], current, flows[i - 1])
                far = torch.zeros_like(current)
            if i > 1:
                far_flow = flows[i - 1] + warp(flows[i - 2], flows[i - 1], "zeros")
                far = self.align(done[-2], current, far_flow)
            maps = torch.stack((near, current, far), dim=1)
            done.append(cast("Tensor", fuse(maps, mask, recompute=recompute)))
        return done
