"""IART: extract → flow → propagate → upsample. Read this file first.

Xu, Yu, Wang, Yang, Wen, Yan: "Enhancing Video Super-Resolution via Implicit Resampling-based
Alignment", CVPR 2024. Letters in shapes: b batch, t time, c channels, h w low-resolution size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from iart.model.align import ALIGNMENTS, Align, ImplicitAlign, InterpolatedAlign
from iart.model.conv import Conv
from iart.model.flow import Flows, SpyNet, neighbour_flows
from iart.model.fuse import SwinIRFM
from iart.model.propagate import BRANCHES, Apply, directly, propagate, recomputed
from iart.model.upsample import Head


@dataclass(frozen=True)
class IARTConfig:
    """Sizes of the network; the defaults are the published ("full") configuration."""

    channels: int = 120
    """C, width of features and attention; divisible by 4 and by every number of heads."""
    mid_channels: int = 64
    """Width of the head at h × w and 2h × 2w."""
    head_channels: int = 64
    """Width of the head at 4h × 4w."""
    flow_channels: tuple[int, ...] = (32, 64, 32, 16)
    """Widths inside each level of SpyNet."""
    flow_levels: int = 6
    """Levels of SpyNet's pyramid."""
    depths: tuple[int, ...] = (6, 6, 6)
    """Blocks of each residual group of a SwinIRFM."""
    heads: tuple[int, ...] = (6, 6, 6)
    """Attention heads of each residual group; alignment has those of the first."""
    window: tuple[int, int, int] = (3, 8, 8)
    """Cells of an attention window: frames (always 3), rows, columns."""
    branches: int = 4
    """Passes through time, backward and forward in turn."""
    drop_path: float = 0.1
    """Rate of stochastic depth of the last block; grows linearly from 0 at the first."""
    alignment: str = "implicit"
    """How features follow flow: one of `iart.model.align.ALIGNMENTS`; others are ablations."""

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths {self.depths} and heads {self.heads} must be equally long")
        if self.channels % 4 or any(self.channels % n for n in self.heads):
            raise ValueError(
                f"channels ({self.channels}) must be divisible by 4 and by heads {self.heads}"
            )
        if self.window[0] != 3:
            raise ValueError(f"a window spans 3 frames, got {self.window}")
        if not 1 <= self.branches <= len(BRANCHES):
            raise ValueError(f"branches must be 1 to {len(BRANCHES)}, got {self.branches}")
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be {', '.join(ALIGNMENTS)}, got {self.alignment!r}")


class IART(nn.Module):
    """Recurrent ×4 video super-resolution with implicit alignment.

    features_i = extract(frame_i); each branch b then gives, frame by frame in its direction,
    y_i = SwinIRFM_b[align(y_{i∓1}), x_i, align(y_{i∓2})] with x the branch before; the last branch
    goes through the head and is added to the bilinearly enlarged frame.
    """

    def __init__(self, config: IARTConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.extract = Conv(3, c)
        self.flow = SpyNet(config.flow_channels, config.flow_levels)
        implicit = config.alignment == "implicit"
        self.align: Align = (
            ImplicitAlign(c, config.heads[0]) if implicit else InterpolatedAlign(config.alignment)
        )
        self.branches = nn.ModuleDict(
            {
                name: SwinIRFM(c, config.depths, config.heads, config.window, config.drop_path)
                for name in BRANCHES[: config.branches]
            }
        )
        self.head = Head(c, config.mid_channels, config.head_channels)

    def forward(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        draws: Float[Tensor, "b branches t blocks 2"] | None = None,
        *,
        flows: Flows | None = None,
        kept: slice = slice(None),
        apply: Apply = directly,
        recompute: bool = False,
    ) -> Float[Tensor, "b kept 3 4*h 4*w"]:
        """Enlarge a clip of t ≥ 1 frames, RGB in [0, 1], any h, w ≥ 1; not clamped.

        Args:
            frames: the clip.
            draws: numbers in [0, 1) that decide what stochastic depth drops (training only): for
                every sample, branch, frame, block and its two halves; None drops nothing.
            flows: of the clip; None computes them.
            kept: frames to give; the others are context.
            apply: how the parts that see one step or one frame are called: in tiles, for instance.
            recompute: save memory in training: what those parts compute inside is computed again
                for the gradient instead of kept.
        """
        apply = recomputed if recompute else apply
        backward_flows, forward_flows = flows or neighbour_flows(self.flow, frames)
        features = [apply(self._extract, x) for x in frames.unbind(1)]
        for i, (name, fuse) in enumerate(self.branches.items()):
            backward = name.startswith("backward")
            propagate(
                features,
                backward_flows if backward else forward_flows,
                cast("SwinIRFM", fuse),
                self.align,
                None if draws is None else draws[:, i],
                backward=backward,
                apply=apply,
            )
        shown = frames[:, kept].unbind(1)
        pairs = zip(features[kept], shown, strict=True)
        return _stack((apply(self.head, *pair) for pair in pairs), len(shown))

    def _extract(self, frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w c"]:
        return self.extract(rearrange(frame, "b c h w -> b h w c"))


def _stack(
    frames: Iterator[Float[Tensor, "b 3 h w"]], count: int
) -> Float[Tensor, "b {count} 3 h w"]:
    """Stack along time; without a gradient in the memory of the result alone."""
    if torch.is_grad_enabled():
        return torch.stack(list(frames), dim=1)
    first = next(frames)
    clip = first.new_empty(first.shape[0], count, *first.shape[1:])
    clip[:, 0] = first
    del first  # frames that are done do not wait while the next one is made
    for i in range(1, count):
        clip[:, i] = next(frames)
    return clip
