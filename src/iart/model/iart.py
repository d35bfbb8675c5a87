"""IART: extract → flow → propagate → upsample. Read this file first.

Xu, Yu, Wang, Yang, Wen, Yan: "Enhancing Video Super-Resolution via Implicit Resampling-based
Alignment", CVPR 2024. Letters in shapes: b batch, t time, c channels, h w low-resolution size.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from iart.device import PRECISIONS, autocast, pick_precision, precision_name
from iart.errors import OptionsError
from iart.model.align import ALIGNMENTS, Align, ImplicitAlign, InterpolatedAlign
from iart.model.conv import Conv
from iart.model.flow import Flows, SpyNet, neighbour_flows
from iart.model.fuse import Grids, SwinIRFM
from iart.model.kernels.dispatch import usable_backend
from iart.model.propagate import BRANCHES, Apply, Past, directly, propagate, recomputed
from iart.model.upsample import Head
from iart.model.window import WindowAttention


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


LAST_FRAME = "frame"
"""Name in a state, see `IART.advance`, of the last frame that it knows."""


def with_last(
    state: Mapping[str, Tensor], frames: Float[Tensor, "b t 3 h w"]
) -> Float[Tensor, "b t2 3 h w"]:
    """Frames, and the one before them if there is a state: what flow is computed of."""
    return torch.cat([state[LAST_FRAME][:, None], frames], dim=1) if state else frames


class IART(nn.Module):
    """Recurrent ×4 video super-resolution with implicit alignment.

    features_i = extract(frame_i); each branch b then gives, frame by frame in its direction,
    y_i = SwinIRFM_b[align(y_{i∓1}), x_i, align(y_{i∓2})] with x the branch before; the last branch
    goes through the head and is added to the bilinearly enlarged frame.

    Attributes:
        config: sizes of the network.
        graphs: whether the functions that enlarge clips may replay windows as CUDA graphs.
    """

    def __init__(self, config: IARTConfig) -> None:
        super().__init__()
        self.config = config
        self._precision, self._widens = "float32", False
        self.graphs = True
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
        self.float()  # whatever PyTorch's default is, as the buffers are

    @property
    def precision(self) -> str:
        """What features are computed in: "float32", "bfloat16" or "float16".

        Weights, flow and coordinates stay float32. "float32" leaves autocast as the caller has it.
        May be set to "auto": float16 where the weights lie on a GPU, float32 elsewhere.

        Raises:
            DeviceError: on setting: unknown, or the model's device cannot compute in it.
        """
        return self._precision

    @precision.setter
    def precision(self, name: str) -> None:
        self._precision = precision_name(pick_precision(name, self.extract.weight.device))
        self._widens = name == "auto" and self._precision == "float16"

    @property
    def widens(self) -> bool:
        """Whether float16 was chosen by "auto".

        Then the functions that enlarge clips look for values that are not finite, and compute such
        windows in a wider type. `forward` does not: to look means to wait for the GPU.
        """
        return self._widens

    def in_precision(self, name: str) -> "IART":
        """The same network, of the same tensors, in another precision."""
        other = copy(self)
        other.precision = name
        return other

    @property
    def backend(self) -> str:
        """What computes most of it: one of `iart.model.kernels.dispatch.BACKENDS`.

        May be set to "auto": the fastest that works where the weights lie. What this machine cannot
        have becomes "torch" when it is set; a log line says so.

        Raises:
            OptionsError: on setting: unknown.
        """
        return self._choosing()[0].backend

    @backend.setter
    def backend(self, name: str) -> None:
        name = usable_backend(name, self.extract.weight.device)
        for part in self._choosing():
            part.backend = name

    def _choosing(self) -> list[SpyNet | WindowAttention | ImplicitAlign]:
        return [
            x for x in self.modules() if isinstance(x, SpyNet | WindowAttention | ImplicitAlign)
        ]

    def forward(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        draws: Float[Tensor, "b branches t blocks 2"] | None = None,
        *,
        flows: Flows | None = None,
        kept: slice = slice(None),
        apply: Apply = directly,
        recompute: bool = False,
        mirrored: bool = False,
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
            mirrored: the clip's second half is its first one reversed: half of the flows are those
                of the other half. The frames are not compared.

        Raises:
            OptionsError: the frames have another shape or are no floating point numbers.
        """
        _require_clip(frames)
        flows = flows or neighbour_flows(self.flow, frames, mirrored=mirrored)
        apply = recomputed if recompute else apply
        return self._advance(frames, {}, draws, flows, kept, apply, goes_on=False)[0]

    def advance(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        state: Mapping[str, Tensor],
        *,
        flows: Flows | None = None,
        kept: slice = slice(None),
        apply: Apply = directly,
    ) -> tuple[Float[Tensor, "b kept 3 4*h 4*w"], dict[str, Tensor]]:
        """Enlarge the next frames of a clip, with what forward branches know of those before.

        Args:
            frames: these frames; see `forward` for the rest.
            state: what this method gave for the frames before; empty if there are none.
            flows: of `with_last(state, frames)`; None computes them.
            kept: frames to give; those after them are context.
            apply: how parts of the network are called.

        Returns:
            The kept frames; and the state after the last of them.

        Raises:
            OptionsError: the frames have another shape or are no floating point numbers.
        """
        _require_clip(frames)
        flows = flows or neighbour_flows(self.flow, with_last(state, frames))
        return self._advance(frames, state, None, flows, kept, apply, goes_on=True)

    def _advance(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        state: Mapping[str, Tensor],
        draws: Float[Tensor, "b branches t blocks 2"] | None,
        flows: Flows,
        kept: slice,
        apply: Apply,
        *,
        goes_on: bool,
    ) -> tuple[Float[Tensor, "b kept 3 4*h 4*w"], dict[str, Tensor]]:
        with autocast(self.extract.weight.device, PRECISIONS[self._precision]):
            backward_flows, forward_flows = flows
            first, last = min(1, len(state)), range(frames.shape[1])[kept][-1]
            after = {LAST_FRAME: frames[:, last]}
            features = [apply(self._extract, x) for x in frames.unbind(1)]
            grids: dict[tuple[int, int, int], Grids] = {}
            for i, (name, fuse) in enumerate(self.branches.items()):
                backward = name.startswith("backward")
                past = propagate(
                    features,
                    backward_flows[:, first:] if backward else forward_flows,
                    cast("SwinIRFM", fuse),
                    self.align,
                    None if draws is None else draws[:, i],
                    backward=backward,
                    apply=apply,
                    past=Past(*(state.get(f"{name}.{key}") for key in Past._fields)),
                    until=None if backward else last,
                    grids=grids,
                )
                known = past._asdict() if goes_on and not backward else {}
                after |= {f"{name}.{key}": x for key, x in known.items() if x is not None}
                del past  # two maps that the next branch would be computed beside
            shown = frames[:, kept].unbind(1)
            pairs = zip(features[kept], shown, strict=True)
            return _stack((apply(self.head, *pair) for pair in pairs), len(shown)), after

    def _extract(self, frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w c"]:
        return self.extract(rearrange(frame, "b c h w -> b h w c"))


def _require_clip(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3 or 0 in frames.shape[1:]:
        raise OptionsError(
            "the network takes clips of shape (batch, frames, 3, height, width), got"
            f" {tuple(frames.shape)}"
        )
    if not frames.is_floating_point():
        raise OptionsError(f"the network takes floating point RGB in [0, 1], got {frames.dtype}")


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
