"""Optical flow between neighbouring frames: SpyNet (Ranjan & Black, CVPR 2017, §3) and warping.

Convention: flow has channel 0 = x (right) and channel 1 = y (down), in pixels of its own map, and
points from the current frame to where to look in the other one. Always float32.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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


class SpyNet(nn.Module):
    """Coarse-to-fine flow: at each level `flow = net([reference, warp(other, up), up]) + up`.

    `up` is the flow of the coarser level, doubled in size and value. Frames are brought to
    multiples of 2^(levels − 1), and to at least twice that, before the pyramid is built.
    """

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self, channels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(channels) for _ in range(levels))
        # What the published network was trained with (the statistics of ImageNet).
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def pyramid_size(self, size: int) -> int:
        """The side, in pixels, to which a side of `size` pixels is resized before the pyramid."""
        multiple = 2 ** (len(self.levels) - 1)
        return max(-(-size // multiple), 2) * multiple

    def coarse_to_fine(
        self, reference: Float[Tensor, "b 3 h w"], other: Float[Tensor, "b 3 h w"]
    ) -> list[Float[Tensor, "b 2 _ _"]]:
        """Flow of every level, coarsest first; h and w as `pyramid_size` gives them."""
        references, others = [(reference - self.mean) / self.std], [(other - self.mean) / self.std]
        for pyramid in (references, others):
            for _ in range(len(self.levels) - 1):
                pyramid.append(F.avg_pool2d(pyramid[-1], kernel_size=2, stride=2))
        b, _, h, w = references[-1].shape
        flow = reference.new_zeros(b, 2, h // 2, w // 2)
        flows = []
        for net, ref, oth in zip(self.levels, references[::-1], others[::-1], strict=True):
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
        size = self.pyramid_size(h), self.pyramid_size(w)
        with torch.autocast(reference.device.type, enabled=False):
            pair = torch.stack((reference, other)).to(self.mean.dtype).flatten(0, 1)
            if size != (h, w):
                pair = F.interpolate(pair, size, mode="bilinear", align_corners=False)
            flow = self.coarse_to_fine(*pair.chunk(2))[-1]
            if size != (h, w):
                flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
                flow = flow * flow.new_tensor((w / size[1], h / size[0])).view(1, 2, 1, 1)
        return flow


def neighbour_flows(
    spynet: SpyNet, frames: Float[Tensor, "b t 3 h w"]
) -> tuple[Float[Tensor, "b s 2 h w"], Float[Tensor, "b s 2 h w"]]:
    """(backward, forward) flows between neighbours, s = t − 1.

    `backward[:, i]` points from frame i to i + 1, `forward[:, i]` from frame i + 1 to i. A clip
    followed by its own time reversal has forward = backward reversed: half of the work is saved.
    """
    b, t = frames.shape[:2]
    first, second = frames[:, :-1], frames[:, 1:]
    if t == 1:
        nothing = frames.new_zeros((b, 0, 2, *frames.shape[-2:]), dtype=torch.float32)
        return nothing, nothing
    if t % 2 == 0 and torch.equal(frames, frames.flip(1)):
        backward = spynet(first.flatten(0, 1), second.flatten(0, 1)).unflatten(0, (b, t - 1))
        return backward, backward.flip(1)
    references = torch.cat((first.flatten(0, 1), second.flatten(0, 1)))
    others = torch.cat((second.flatten(0, 1), first.flatten(0, 1)))
    backward, forward = spynet(references, others).chunk(2)
    return backward.unflatten(0, (b, t - 1)), forward.unflatten(0, (b, t - 1))
