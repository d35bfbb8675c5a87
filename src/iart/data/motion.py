"""Synthetic camera motion over still pictures: sharp clips whose optical flow is known exactly.

Two layers move on their own, each by shift, zoom and rotation, and the front one covers the other
through a mask of random blobs. Positions are (x, y) in pixels of the clip, from its centre.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from iart.data.clips import Scene

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


def moving_clip(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> tuple[Float[Tensor, "t 3 s s"], Float[Tensor, "t 2 s s"]]:
    """A clip of `frames` frames, `size` × `size`, and its flow from each frame to the next.

    The last flow repeats what the next frame would have. Channel 0 of the flow is x.
    """
    clip, covers, steps = _composed(front, back, frames, size, speed, rng)
    front_flow, back_flow = (_flow(each, size) for each in steps)
    return clip, torch.where(covers > 0.5, front_flow, back_flow)


def moving_pictures(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> Float[Tensor, "t 3 s s"]:
    """The clip of `moving_clip` alone."""
    return _composed(front, back, frames, size, speed, rng)[0]


def _composed(
    front: Scene, back: Scene, frames: int, size: int, speed: Speed, rng: np.random.Generator
) -> tuple[Float[Tensor, "t 3 s s"], Float[Tensor, "t 1 s s"], list[Float[Tensor, "t1 2 3"]]]:
    """The clip, where its front layer covers it, and the maps of both layers."""
    layers, steps = [], []
    for scene in (front, back):
        steps.append(_trajectory(frames + 1, speed, rng))
        picture = scene.frames[rng.integers(len(scene.frames))]
        layers.append(_Layer(picture, size, rng))
    cells = 2 * size // BLOB + 2
    noise = torch.from_numpy(rng.standard_normal((1, 1, cells, cells))).float()
    threshold = rng.uniform(-0.6, 0.6)
    grid = _centred_grid(size)
    clip, covers = torch.empty(frames, 3, size, size), torch.empty(frames, 1, size, size)
    # One frame after the other, which stays in the processor's cache.
    for i in range(frames):
        # The mask lies on the front layer, over twice the clip's extent, and moves with it.
        positions = torch.einsum("yxj,ij->yxi", grid, steps[0][i])[None]
        mask = F.grid_sample(
            noise, positions / size, mode="bicubic", padding_mode="border", align_corners=True
        )
        cover = ((mask[0] - threshold) * 20).clamp(0, 1)
        above, below = (layer.seen(each[i]) for layer, each in zip(layers, steps, strict=True))
        clip[i] = cover * above + (1 - cover) * below
        covers[i] = cover
    return clip, covers, steps


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


class _Layer:
    """A picture that is seen through maps; 2×2 points a pixel."""

    def __init__(self, picture: np.ndarray, size: int, rng: np.random.Generator) -> None:
        h, w, _ = picture.shape
        # About two pixels of the picture a pixel of the clip, while the clip still fits.
        self._factor = min(rng.uniform(1.7, 2.4), 0.95 * min(h, w) / size)
        centre_x = w / 2 + rng.uniform(-1, 1) * max(w - self._factor * size, 0) / 2
        centre_y = h / 2 + rng.uniform(-1, 1) * max(h - self._factor * size, 0) / 2
        self._picture = torch.from_numpy(picture.copy()).permute(2, 0, 1).float()[None] / 255
        grid = _centred_grid(size, 2)
        parts = (grid[y::2, x::2] for y in (0, 1) for x in (0, 1))
        self._grids = [part.reshape(-1, 3) for part in parts]
        self._middle = torch.tensor((centre_x, centre_y)).repeat(size)
        self._scale = torch.tensor((2 / w, 2 / h)).repeat(size)
        # Memory is used again: to ask the system for more takes longer than all the arithmetic.
        self._places = torch.empty(1, size, size, 2)

    def seen(self, at: Float[Tensor, "2 3"]) -> Float[Tensor, "3 s s"]:
        """One frame of it."""
        total = torch.zeros(())
        for grid in self._grids:
            torch.mm(grid, at.T, out=self._places.view(-1, 2))
            rows = self._places.view(-1, self._scale.numel())
            rows.mul_(self._factor).add_(self._middle).mul_(self._scale).sub_(1)
            # Reflected beyond its edges, so that nothing flat appears.
            total = total + F.grid_sample(
                self._picture, self._places, mode="bilinear", padding_mode="reflection",
                align_corners=False,
            )[0]  # fmt: skip
        return total.div_(4)


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
