"""Synthetic camera motion over still pictures: sharp clips whose optical flow is known exactly.

Two layers move on their own, each by shift, zoom and rotation, and the front one covers the other
through a mask of random blobs. Positions are (x, y) in pixels of the clip, from its centre.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from iart.data.clips import Scene
from iart.device import send, staging

# Pixels of the mask per blob, about; the mask is blurred noise above a threshold.
BLOB = 24


@dataclass(frozen=True)
class Speed:
    """Motion per frame: how fast a layer may move."""

    shift: float
    """Largest shift, pixels of the clip."""
    zoom: float = 0.03
    """Largest change of size, as a share."""
    turn: float = 0.03
    """Largest rotation, radians."""


@dataclass(frozen=True)
class Motion:
    """All that a clip of two layers is made of, drawn; nothing is computed yet.

    Attributes:
        frames: of the clip.
        size: side of the clip, in pixels.
        front: the layer that the mask lies on.
        back: the layer that is seen beside it.
        blobs: noise that the mask is made of.
        threshold: above which the noise covers.
    """

    frames: int
    size: int
    front: "_Layer"
    back: "_Layer"
    blobs: Float[Tensor, "1 1 c c"]
    threshold: float

    def clip(self) -> Float[Tensor, "t 3 s s"]:
        """The clip in [0, 1], computed on the CPU."""
        return _composed(self)[0]


def draw_motion(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> Motion:
    """Draw a clip of `frames` frames, `size` × `size`, of one frame of each scene."""
    layers = []
    for scene in (front, back):
        steps = _trajectory(frames + 1, speed, rng)
        picture = scene.frames[rng.integers(len(scene.frames))]
        layers.append(_Layer.draw(picture, steps, size, rng))
    above, below = layers
    cells = 2 * size // BLOB + 2
    blobs = torch.from_numpy(rng.standard_normal((1, 1, cells, cells))).float()
    return Motion(frames, size, above, below, blobs, float(rng.uniform(-0.6, 0.6)))


def moving_clip(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> tuple[Float[Tensor, "t 3 s s"], Float[Tensor, "t 2 s s"]]:
    """A clip of `frames` frames, `size` × `size`, and its flow from each frame to the next.

    The last flow repeats what the next frame would have. Channel 0 of the flow is x.
    """
    motion = draw_motion(front, back, frames, size, speed, rng)
    clip, covers = _composed(motion)
    front_flow, back_flow = (_flow(layer.steps, size) for layer in (motion.front, motion.back))
    return clip, torch.where(covers > 0.5, front_flow, back_flow)


def moving_pictures(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> Float[Tensor, "t 3 s s"]:
    """The clip of `moving_clip` alone."""
    return draw_motion(front, back, frames, size, speed, rng).clip()


def moving_batch(motions: Sequence[Motion], device: torch.device) -> Float[Tensor, "b t 3 s s"]:
    """The clips of motions of one size and length, computed at once on a device.

    They are those of `Motion.clip` within rounding.
    """
    size, frames = motions[0].size, motions[0].frames
    pictures, places, masks, blobs, thresholds = send_motions(motions, device)
    pictures = pictures.permute(0, 3, 1, 2).float() / 255
    seen = torch.zeros((), device=device)
    for y in (-0.25, 0.25):
        for x in (-0.25, 0.25):
            grid = _places(places, size, x, y).flatten(1, 2)
            seen = seen + F.grid_sample(
                pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
            )
    seen = (seen / 4).unflatten(2, (frames, size)).transpose(1, 2)
    above, below = seen[::2], seen[1::2]
    mask = F.grid_sample(
        blobs, _places(masks, size).flatten(1, 2), mode="bicubic", padding_mode="border",
        align_corners=True,
    )  # fmt: skip
    mask = mask.unflatten(2, (frames, size)).transpose(1, 2)
    cover = ((mask - thresholds) * 20).clamp(0, 1)
    return cover * above + (1 - cover) * below


def send_motions(motions: Sequence[Motion], device: torch.device) -> tuple[Tensor, ...]:
    """What `moving_batch` computes with, on its device.

    Returns:
        What is seen of each layer's picture, front and back in turn, as bytes in squares that hold
        the largest of the batch; maps to places in these, from −1 to 1; maps to places of the
        masks, likewise; the masks' noise, and its thresholds.
    """
    size, frames = motions[0].size, motions[0].frames
    layers = [layer for motion in motions for layer in (motion.front, motion.back)]
    parts, maps = zip(*(layer.visible(frames, size) for layer in layers), strict=True)
    side = max(max(part.shape[:2]) for part in parts)
    pictures = staging((len(parts), side, side, 3), torch.uint8, device)
    for target, part in zip(pictures.numpy(), parts, strict=True):
        target[: part.shape[0], : part.shape[1]] = part
    places = torch.from_numpy(np.stack(maps)) * (2 / side)
    places[..., 2] -= 1
    sent = (
        pictures,
        places.float(),
        # over twice the clip's extent
        torch.stack([motion.front.steps[:frames] for motion in motions]) / size,
        torch.cat([motion.blobs for motion in motions]),
        torch.tensor([motion.threshold for motion in motions]).view(-1, 1, 1, 1, 1),
    )
    return tuple(send(tensor, device) for tensor in sent)


def _places(
    maps: Float[Tensor, "n t 2 3"], size: int, x: float = 0.0, y: float = 0.0
) -> Float[Tensor, "n t s s 2"]:
    """Where maps take the pixels of a clip, moved by (x, y)."""
    axis = torch.arange(size, device=maps.device) + (0.5 - size / 2)
    across = maps[..., None, :, 0] * (axis + x)[:, None]
    down = maps[..., None, :, 1] * (axis + y)[:, None] + maps[..., None, :, 2]
    return across[:, :, None] + down[:, :, :, None]


def _composed(motion: Motion) -> tuple[Float[Tensor, "t 3 s s"], Float[Tensor, "t 1 s s"]]:
    """The clip, and where its front layer covers it."""
    frames, size = motion.frames, motion.size
    grid = _centred_grid(size)
    clip, covers = torch.empty(frames, 3, size, size), torch.empty(frames, 1, size, size)
    layers = zip(motion.front.seen(size), motion.back.seen(size), strict=True)
    # One frame after the other, which stays in the processor's cache.
    for i, (above, below) in zip(range(frames), layers, strict=False):
        # The mask lies on the front layer, over twice the clip's extent, and moves with it.
        positions = torch.einsum("yxj,ij->yxi", grid, motion.front.steps[i])[None]
        mask = F.grid_sample(
            motion.blobs, positions / size, mode="bicubic", padding_mode="border",
            align_corners=True,
        )  # fmt: skip
        cover = ((mask[0] - motion.threshold) * 20).clamp(0, 1)
        clip[i] = cover * above + (1 - cover) * below
        covers[i] = cover
    return clip, covers


def _trajectory(steps: int, speed: Speed, rng: np.random.Generator) -> Float[Tensor, "t 2 3"]:
    """For each step the map from positions in the clip to positions on the layer."""
    maps = [np.eye(3)]
    shift = rng.uniform(-1, 1, 2) * speed.shift * rng.random()
    zoom, turn = rng.uniform(-1, 1, 2) * (speed.zoom, speed.turn) * rng.random()
    for _ in range(steps - 1):
        jitter = rng.normal(0, 0.1 * speed.shift, 2) * rng.random()
        c, s = (1 + zoom) * np.cos(turn), (1 + zoom) * np.sin(turn)
        dx, dy = shift + jitter
        maps.append(maps[-1] @ np.array([[c, -s, dx], [s, c, dy], [0, 0, 1]]))
    return torch.from_numpy(np.stack(maps)[:, :2]).float()


def _centred_grid(size: int, per_pixel: int = 1) -> Float[Tensor, "p p 3"]:
    """Homogeneous positions of a square's pixels (or `per_pixel`² points in each)."""
    axis = (torch.arange(size * per_pixel) + 0.5) / per_pixel - size / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((x, y, torch.ones_like(x)), dim=-1)


@dataclass(frozen=True)
class _Layer:
    """A picture that is seen through maps; 2×2 points a pixel.

    Attributes:
        picture: all of it.
        steps: for each step the map from positions in the clip to positions on the layer.
        factor: pixels of the picture a pixel of the clip.
        centre: (x, y) of the picture that is in the clip's centre at first.
    """

    picture: UInt8[np.ndarray, "h w 3"]
    steps: Float[Tensor, "t 2 3"]
    factor: float
    centre: tuple[float, float]

    @classmethod
    def draw(
        cls,
        picture: UInt8[np.ndarray, "h w 3"],
        steps: Float[Tensor, "t 2 3"],
        size: int,
        rng: np.random.Generator,
    ) -> "_Layer":
        """Which part of the picture is seen, and how large."""
        h, w, _ = picture.shape
        # About two pixels of the picture a pixel of the clip, while the clip still fits.
        factor = min(rng.uniform(1.7, 2.4), 0.95 * min(h, w) / size)
        x = w / 2 + rng.uniform(-1, 1) * max(w - factor * size, 0) / 2
        y = h / 2 + rng.uniform(-1, 1) * max(h - factor * size, 0) / 2
        return cls(picture, steps, factor, (x, y))

    def seen(self, size: int) -> Iterator[Float[Tensor, "3 s s"]]:
        """What every step shows, computed on the CPU."""
        h, w, _ = self.picture.shape
        picture = torch.from_numpy(self.picture.copy()).permute(2, 0, 1).float()[None] / 255
        grid = _centred_grid(size, 2)
        grids = [grid[y::2, x::2].reshape(-1, 3) for y in (0, 1) for x in (0, 1)]
        middle = torch.tensor(self.centre).repeat(size)
        scale = torch.tensor((2 / w, 2 / h)).repeat(size)
        # Memory is used again: to ask the system for more takes longer than all the arithmetic.
        places = torch.empty(1, size, size, 2)
        rows = places.view(-1, scale.numel())
        for at in self.steps:
            total = torch.zeros(())
            for points in grids:
                torch.mm(points, at.T, out=places.view(-1, 2))
                rows.mul_(self.factor).add_(middle).mul_(scale).sub_(1)
                # Reflected beyond its edges, so that nothing flat appears.
                total = total + F.grid_sample(
                    picture, places, mode="bilinear", padding_mode="reflection",
                    align_corners=False,
                )[0]  # fmt: skip
            yield total.div_(4)

    def visible(
        self, frames: int, size: int
    ) -> tuple[UInt8[np.ndarray, "y x 3"], Float64[np.ndarray, "t 2 3"]]:
        """The part of the picture that is seen in some frames, reflected beyond its edges.

        Returns:
            The part; and maps from positions in the clip, from its centre, to positions in the
            part, from its corner, both in pixels.
        """
        h, w, _ = self.picture.shape
        maps = self.factor * self.steps[:frames].double().numpy()
        maps[..., 2] += self.centre
        corners = size / 2 * np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [2 / size] * 4])
        reached = maps @ corners
        # One more pixel at each side is for interpolation, and more than rounding needs.
        first = np.floor(reached.min(axis=(0, 2))).astype(int) - 1
        last = np.ceil(reached.max(axis=(0, 2))).astype(int) + 1
        maps[..., 2] -= first
        columns, rows = (
            _reflected(np.arange(start, stop), count)
            for start, stop, count in zip(first, last, (w, h), strict=True)
        )
        start, stop = columns.min(), columns.max() + 1
        part = self.picture[rows, start:stop]
        return part if part.shape[1] == len(columns) else part[:, columns - start], maps


def _reflected(places: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Pixels of a picture that goes on mirrored: … 1 0 | 0 1 … n−1 | n−1 n−2 … of `count` = n."""
    places = places % (2 * count)
    return np.minimum(places, 2 * count - 1 - places)


def _flow(maps: Float[Tensor, "t 2 3"], size: int) -> Float[Tensor, "s 2 n n"]:
    """Flow between successive maps: where the layer's point under a pixel is a frame later."""
    square = torch.cat((maps, maps.new_tensor([[[0, 0, 1]]]).expand(len(maps), 1, 3)), dim=1)
    step = torch.linalg.solve(square[1:], square[:-1])
    grid = _centred_grid(size)
    moved = torch.einsum("yxj,tij->tiyx", grid, step[:, :2])
    return moved - grid[..., :2].permute(2, 0, 1)


def low_resolution_flow(flow: Float[Tensor, "t 2 h w"], factor: int) -> Float[Tensor, "t 2 _ _"]:
    """The flow at 1/`factor` of the size, in pixels of the smaller picture."""
    return F.avg_pool2d(flow, factor) / factor
