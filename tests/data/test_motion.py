import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iart.data import motion
from iart.data.clips import Scene
from iart.data.motion import Speed, low_resolution_flow, moving_clip
from iart.model.flow import warp


def textured(seed: int, side: int = 256, frames: int = 1) -> Scene:
    """Blurred noise: structure everywhere, nothing finer than a few pixels."""
    noise = torch.rand(frames, 3, side, side, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 9, 1, 4), 9, 1, 4)
    stretched = ((smooth - 0.5) * 8 + 0.5).clamp(0, 1) * 255
    return Scene(f"noise{seed}", stretched.byte().permute(0, 2, 3, 1).numpy())


def ramp(side: int = 256) -> Scene:
    """Red grows with x, green with y: linear, so that no interpolation errs."""
    y, x = np.mgrid[0:side, 0:side].astype(np.uint8)
    return Scene("ramp", np.stack((x, y, 0 * x), axis=-1)[None])


def residual(clip: Tensor, flow: Tensor, margin: int = 8) -> Tensor:
    """|next frame brought back by the flow − this frame|, away from borders."""
    back = warp(clip[1:], flow[:-1])
    return (back - clip[:-1]).abs()[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("seed", range(4))
def test_the_flow_brings_the_next_frame_onto_this_one(seed: int):
    rng = np.random.default_rng(seed)
    clip, flow = moving_clip(textured(1), textured(2), 4, 48, Speed(5.0), rng)
    assert clip.shape == (4, 3, 48, 48)
    assert flow.shape == (4, 2, 48, 48)
    assert clip.min() >= 0
    assert clip.max() <= 1
    error, still = residual(clip, flow), residual(clip, torch.zeros_like(flow))
    assert error.median() < 0.01
    # Not by chance: neither no flow nor the opposite flow does it.
    assert error.median() < 0.3 * still.median()
    assert error.median() < 0.3 * residual(clip, -flow).median()


def test_pure_shifts_are_exact():
    """One layer, whole pixels: what the next frame shows at p + flow is this frame."""
    shift = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    maps = torch.stack([shift + i * torch.tensor([[0, 0, 3.0], [0, 0, -2]]) for i in range(3)])
    flow = motion._flow(maps, 32)
    assert flow.shape == (2, 2, 32, 32)
    torch.testing.assert_close(flow[:, 0], torch.full((2, 32, 32), -3.0))
    torch.testing.assert_close(flow[:, 1], torch.full((2, 32, 32), 2.0))
    picture = textured(3).frames[0]
    layer = motion._Layer.draw(picture, maps, 32, np.random.default_rng(0))
    clip = torch.stack(list(layer.seen(32)))
    torch.testing.assert_close(clip[1][:, 2:, :-3], clip[0][:, :-2, 3:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_fractional_shifts_are_exact_on_a_ramp(seed: int):
    rng = np.random.default_rng(seed)
    speed = Speed(2.0, zoom=0.0, turn=0.0)
    clip, flow = moving_clip(ramp(), ramp(), 2, 32, speed, rng)
    # Each layer moves as a whole: the flow takes two values at most.
    assert len(flow[0].flatten(1).T.round(decimals=3).unique(dim=0)) <= 2
    error = residual(clip, flow, margin=4)
    # Where one layer covers (or uncovers) the other there is no answer.
    share = (error.amax(1) < 1e-4).float().mean()
    assert share > 0.6
    assert error.median() < 1e-5


def test_zoom_and_turn_are_exact_on_a_ramp():
    rng = np.random.default_rng(5)
    maps = motion._trajectory(3, Speed(1.0, zoom=0.05, turn=0.05), rng)
    layer = motion._Layer.draw(ramp().frames[0], maps, 32, rng)
    clip = torch.stack(list(layer.seen(32)))
    error = (warp(clip[1:], motion._flow(maps, 32)) - clip[:-1]).abs()[..., 6:-6, 6:-6]
    assert error.max() < 1e-4


def test_a_seed_gives_a_clip():
    def make(seed: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(seed)
        return moving_clip(textured(1), textured(2), 2, 24, Speed(3.0), rng)

    assert all(a.equal(b) for a, b in zip(make(0), make(0), strict=True))
    assert not make(0)[0].equal(make(1)[0])


def test_scenes_smaller_than_the_clip_are_enlarged():
    rng = np.random.default_rng(0)
    clip, flow = moving_clip(textured(1, 16), textured(2, 20), 2, 48, Speed(3.0), rng)
    assert clip.isfinite().all()
    assert flow.isfinite().all()


def test_no_speed_stands_still():
    rng = np.random.default_rng(0)
    clip, flow = moving_clip(textured(1), textured(2), 3, 24, Speed(0.0, zoom=0.0, turn=0.0), rng)
    torch.testing.assert_close(clip[0], clip[2])
    torch.testing.assert_close(flow, torch.zeros_like(flow), rtol=0, atol=1e-5)


def test_low_resolution_flow():
    flow = torch.full((1, 2, 8, 8), 4.0)
    flow[:, 0, :4] = 8.0
    small = low_resolution_flow(flow, 4)
    assert small[0].tolist() == [[[2, 2], [1, 1]], [[1, 1], [1, 1]]]
