"""Optical flow between neighbouring frames: SpyNet (Ranjan & Black, CVPR 2017, §3) and warping.

Convention: flow has channel 0 = x (right) and channel 1 = y (down), in pixels of its own map, and
points from the current frame to where to look in the other one. Always float32.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from threading import Lock
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from iart.device import without_autocast
from iart.model.kernels import SCALE
from iart.model.kernels.dispatch import BACKENDS, suits_split
from iart.model.kernels.plain import split

PIXELS_AT_ONCE = 2**18
"""Pairs of frames are taken together up to so many pixels, or one by one, but for training."""

Flows = tuple[Float[Tensor, "b s 2 h w"], Float[Tensor, "b s 2 h w"]]
"""Backward and forward flows of a clip, as `neighbour_flows` gives them."""


def warp(
    x: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "b 2 h w"],
    padding_mode: str = "zeros",
    mode: str = "bilinear",
) -> Float[Tensor, "b c h w"]:
    """Sample `x` at p + flow(p); pixel centres are integers (align_corners).

    Args:
        x: the map to look in.
        flow: displacement in pixels.
        padding_mode: "zeros" or "border", for positions outside `x`.
        mode: "bilinear", "nearest" or "bicubic" (Keys, a = −0.75).
    """
    h, w = x.shape[-2:]
    rows = torch.arange(h, device=x.device, dtype=flow.dtype)
    columns = torch.arange(w, device=x.device, dtype=flow.dtype)
    grid_x = 2 * (columns + flow[:, 0]) / max(w - 1, 1) - 1
    grid_y = 2 * (rows[:, None] + flow[:, 1]) / max(h - 1, 1) - 1
    grid = torch.stack((grid_x, grid_y), dim=-1)
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding_mode, align_corners=True)


def _level(channels: tuple[int, ...]) -> nn.Sequential:
    """One pyramid level: 7×7 convolutions 8 → channels → 2 with ReLU between."""
    sizes = (8, *channels, 2)
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Conv2d(i, o, kernel_size=7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _split_levels(levels: nn.ModuleList) -> list[Callable[[Tensor], Tensor]]:
    """The same levels, computed by `iart.model.kernels.gpu_flow`; without a gradient.

    Weights are split anew at each call: kept, they would outlive a step of training.
    """
    layers = [[x for x in cast("nn.Sequential", net) if isinstance(x, nn.Conv2d)] for net in levels]
    kernels = [x.weight.permute(2, 3, 1, 0) for level in layers for x in level]
    parts = split(torch.cat([x.flatten() for x in kernels])).split([x.numel() for x in kernels], 1)
    halves = (part.view(2, *x.shape) for part, x in zip(parts, kernels, strict=True))

    def of_level(level: list[nn.Conv2d]) -> Callable[[Tensor], Tensor]:
        known = [(next(halves), x.bias, x is level[-1]) for x in level]

        def net(x: Tensor) -> Tensor:
            x = split(SCALE * x.permute(0, 2, 3, 1))
            for layer in known:
                x = torch.ops.iart.convolve(x, *layer)
            return x

        return net

    return [of_level(level) for level in layers]


class SpyNet(nn.Module):
    """Coarse-to-fine flow: at each level `flow = net([reference, warp(other, up), up]) + up`.

    `up` is the flow of the coarser level, doubled in size and value. Frames are brought to
    multiples of 2^(levels − 1), and to at least twice that, before the pyramid is built.
    """

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self, channels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.backend = BACKENDS[0]
        self.levels = nn.ModuleList(_level(channels) for _ in range(levels))
        # What the published network was trained with (the statistics of ImageNet).
        statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        for name, values in statistics.items():
            buffer = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def pyramid_size(self, size: int) -> int:
        """The side, in pixels, to which a side of `size` pixels is resized before the pyramid."""
        multiple = 2 ** (len(self.levels) - 1)
        return max(-(-size // multiple), 2) * multiple

    def coarse_to_fine(
        self,
        reference: Float[Tensor, "b 3 h w"],
        other: Float[Tensor, "b 3 h w"],
        levels: Sequence[Callable[[Tensor], Tensor]] | None = None,
    ) -> list[Float[Tensor, "b 2 _ _"]]:
        """Flow of every level, coarsest first; h and w as `pyramid_size` gives them.

        Args:
            reference: where flow starts, RGB in [0, 1].
            other: where it ends.
            levels: what computes the levels; None is they themselves.
        """
        references, others = [(reference - self.mean) / self.std], [(other - self.mean) / self.std]
        for pyramid in (references, others):
            for _ in range(len(self.levels) - 1):
                pyramid.append(F.avg_pool2d(pyramid[-1], kernel_size=2, stride=2))
        b, _, h, w = references[-1].shape
        flow = reference.new_zeros(b, 2, h // 2, w // 2)
        flows = []
        for net, ref, oth in zip(
            levels or self.levels, references[::-1], others[::-1], strict=True
        ):
            h, w = ref.shape[-2:]
            up = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            up = F.pad(up, (0, w - up.shape[-1], 0, h - up.shape[-2]), mode="replicate")
            flow = net(torch.cat((ref, warp(oth, up, "border"), up), dim=1)) + up
            flows.append(flow)
        return flows

    def forward(
        self, reference: Float[Tensor, "b 3 h w"], other: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 2 h w"]:
        """Flow from `reference` to `other`, RGB in [0, 1], any size; float32 under autocast."""
        h, w = reference.shape[-2:]
        at_once = max(1, PIXELS_AT_ONCE // (h * w))
        if torch.is_grad_enabled():
            at_once = len(reference)
        suits = suits_split(self.backend, reference, other, *self.parameters())
        levels = _split_levels(self.levels) if suits else None
        pairs = zip(reference.split(at_once), other.split(at_once), strict=True)
        with without_autocast(reference.device), exact_convolutions():
            return torch.cat([self._flow(*pair, levels) for pair in pairs])

    def _flow(
        self,
        reference: Float[Tensor, "b 3 h w"],
        other: Float[Tensor, "b 3 h w"],
        levels: Sequence[Callable[[Tensor], Tensor]] | None,
    ) -> Float[Tensor, "b 2 h w"]:
        h, w = reference.shape[-2:]
        size = self.pyramid_size(h), self.pyramid_size(w)
        pair = torch.stack((reference, other)).to(self.mean.dtype).flatten(0, 1)
        if size != (h, w):
            pair = F.interpolate(pair, size, mode="bilinear", align_corners=False)
        flow = self.coarse_to_fine(*pair.chunk(2), levels=levels)[-1]
        if size != (h, w):
            flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
            flow = torch.stack((flow[:, 0] * (w / size[1]), flow[:, 1] * (h / size[0])), dim=1)
        return flow


_lock = Lock()
_blocks = 0
_before = ExitStack()


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """In the block, float32 convolutions are in float32.

    Otherwise GPUs round what they multiply to 10 bits (TF32), and alignment jumps where a flow
    crosses an integer. What the backward pass of training does later is as it was.

    PyTorch's settings are those of the whole process: while blocks of several threads overlap, the
    first changes them and the last puts them back.
    """
    global _blocks
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    if hasattr(cudnn, "conv"):  # torch 2.9 and later
        places, name, exact = (cudnn.conv, mkldnn.conv), "fp32_precision", "ieee"
    else:
        places, name, exact = (cudnn,), "allow_tf32", False
    with _lock:
        if not _blocks:
            for place in places:
                _before.callback(setattr, place, name, getattr(place, name))
                setattr(place, name, exact)
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                _before.close()


def neighbour_flows(
    spynet: SpyNet, frames: Float[Tensor, "b t 3 h w"], *, mirrored: bool = False
) -> Flows:
    """(backward, forward) flows between neighbours, s = t − 1.

    `backward[:, i]` points from frame i to i + 1, `forward[:, i]` from frame i + 1 to i.

    Args:
        spynet: the flow network.
        frames: the clip.
        mirrored: whether the clip's second half is its first one reversed. Then forward is backward
            reversed: half of the work is saved. The frames are not compared.
    """
    b, t = frames.shape[:2]
    if t == 1:
        nothing = frames.new_zeros((b, 0, 2, *frames.shape[-2:]), dtype=torch.float32)
        return nothing, nothing
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    backward = spynet(first, second).unflatten(0, (b, t - 1))
    if mirrored:
        return backward, backward.flip(1)
    return backward, spynet(second, first).unflatten(0, (b, t - 1))
