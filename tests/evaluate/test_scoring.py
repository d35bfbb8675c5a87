"""A clip of a benchmark: frames of a network, whole or in windows; the details."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn

from iart.errors import DeviceError, WeightsError
from iart.evaluate.clips import Clip, find_clips
from iart.evaluate.protocol import read_protocol
from iart.evaluate.results import ClipRecord, CropRecord
from iart.evaluate.scoring import CropPicker, ThereAndBack, enlarger_for, limit_crops, scored_frames
from iart.files.images import read_image
from iart.model import IART
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.resize import imresize
from iart.upscaling import budget
from iart.upscaling.budget import SAFE_SHARE, Tiling, network_bytes
from tests.evaluate.made import make_data, make_protocol
from tests.upscaling.test_clip import TINY


class Position(nn.Module):
    """Enlarges by repetition, and tells how many frames it saw before each frame, and in all."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.seen.append(frames.shape[1])
        return frames.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    clips = {"a": 9}
    data = make_data(tmp_path / "data", clips)
    return find_clips(read_protocol(make_protocol(tmp_path / "p.yml", clips=clips)), data)[0]


def frames(model: nn.Module, clip: Clip, window: int | None = None, overlap: int = 3):
    return list(scored_frames(enlarger_for(model, clip, window=window, overlap=overlap), clip))


def window_for(model: nn.Module, clip: Clip, overlap: int = 3, share: float = 1.0) -> int:
    return enlarger_for(model, clip, window=None, overlap=overlap, share=share).tiling.window


@pytest.mark.parametrize(("window", "seen"), [(9, [9]), (5, [5, 5]), (4, [4, 4, 4, 4])])
def test_all_frames_in_order(clip: Clip, window: int, seen: list[int]):
    model = Position()
    made = frames(model, clip, window, overlap=1)
    assert model.seen[: len(seen)] == seen
    assert len(made) == 9
    for frame, path in zip(made, clip.lq, strict=True):
        assert frame[:, ::4, ::4].equal(read_image(path))


def test_only_scored_frames_come_out(clip: Clip):
    centre = Clip(clip.name, clip.size, (4,), clip.gt[4:5], clip.lq)
    model = Position()
    (frame,) = frames(model, centre)
    assert model.seen == [9]
    assert frame[:, ::4, ::4].equal(read_image(clip.lq[4]))


def test_the_network_sees_the_whole_clip(clip: Clip):
    torch.manual_seed(0)
    model = IART(TINY).eval()
    small = torch.stack([read_image(path) for path in clip.lq]).float() / 255
    with torch.inference_mode():
        expected = to_uint8(model(small[None])[0])
    assert torch.stack(frames(model, clip)).equal(expected)


def test_memory_decides(clip: Clip, monkeypatch: pytest.MonkeyPatch):
    """The whole clip, or windows, and never tiles; twice as much there and back."""
    model, free = IART(TINY), 10**10
    monkeypatch.setattr(budget, "free_memory", lambda device: free)
    assert window_for(model, clip) == 9
    needed = {n: network_bytes(model, Tiling(n, 0, 16), 12, 16) for n in (9, 4)}
    free = needed[9] / SAFE_SHARE + 100
    assert window_for(model, clip) == 9
    assert window_for(model, clip, share=0.99) == 4
    assert window_for(ThereAndBack(model), clip) == 4
    free = needed[4] / SAFE_SHARE - 100
    with pytest.raises(
        DeviceError, match=r"clip 'a': 16x12 is too large.*whole pictures, 4 frames"
    ):
        window_for(model, clip)
    assert enlarger_for(model, clip, window=5, overlap=1).tiling == Tiling(5, 1, None)
    assert enlarger_for(model, clip, window=50, overlap=3).tiling.window == 9


def test_frames_in_windows_where_memory_runs_out(clip: Clip):
    class Hungry(Position):
        def forward(self, frames: Tensor) -> Tensor:
            if frames.shape[1] > 4:
                raise torch.OutOfMemoryError
            return super().forward(frames)

    model = Hungry()
    made = frames(model, clip)
    assert set(model.seen) == {4}
    for frame, path in zip(made, clip.lq, strict=True):
        assert frame[:, ::4, ::4].equal(read_image(path))
    with pytest.raises(DeviceError, match="too little memory for 5 frames of 16x12 in whole"):
        frames(model, clip, window=5)


class Ramp(nn.Module):
    """Adds to each frame its place in the clip."""

    def forward(self, frames: Tensor) -> Tensor:
        places = torch.arange(frames.shape[1]).reshape(1, -1, 1, 1, 1)
        return (frames + places).repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


def test_there_and_back_is_the_mean_of_both_ways():
    clip = torch.rand(1, 3, 3, 2, 2)
    there = ThereAndBack(Ramp())(clip)
    assert there.shape == (1, 3, 3, 8, 8)
    # Of 6 places, frame i has i on the way there and 5 − i on the way back.
    assert (there[..., ::4, ::4] - clip).allclose(torch.tensor(2.5))


def test_flip_seq_shows_twice_as_many(clip: Clip):
    model = Position()
    made = frames(ThereAndBack(model), clip)
    assert model.seen == [18]
    assert made[3][:, ::4, ::4].equal(read_image(clip.lq[3]))


class Broken(nn.Module):
    """Gives NaN."""

    precision: str

    def forward(self, frames: Tensor) -> Tensor:
        return Position()(frames) * float("nan")


def test_a_network_that_gives_nan(clip: Clip):
    model = Broken()
    model.precision = "float16"
    with pytest.raises(WeightsError, match=r"clip 'a' hold NaN.*float16.*--precision float32"):
        frames(model, clip)


def smooth(seed: int, height: int = 160, width: int = 200) -> UInt8[Tensor, "3 h w"]:
    """A picture that bicubic restores well."""
    coarse = torch.rand(3, height // 20, width // 20, generator=torch.Generator().manual_seed(seed))
    return to_uint8(imresize(coarse, 20))


def pixels(png: bytes | None) -> UInt8[Tensor, "3 h w"]:
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_place_that_differs_is_found_and_cut() -> None:
    picker = CropPicker(3, count=2, size=32)
    frames = [smooth(i) for i in range(3)]
    results = [frame.clone() for frame in frames]
    results[1][:, 60:92, 100:132] = 255 - results[1][:, 60:92, 100:132]
    for i, (gt, result) in enumerate(zip(frames, results, strict=True)):
        picker.add(f"{i}.png", degrade_bi(gt), result, gt)
    best, second = picker.crops()
    assert (best.frame, best.y, best.x) == ("1.png", 60, 100)
    assert best.difference > 10 * second.difference
    assert max(abs(best.y - second.y), abs(best.x - second.x)) >= 32
    place = (slice(None), slice(60, 92), slice(100, 132))
    assert torch.equal(pixels(best.result), results[1][place])
    assert torch.equal(pixels(best.gt), frames[1][place])
    lr = degrade_bi(frames[1])
    assert torch.equal(pixels(best.lr)[:, ::4, ::4], lr[:, 15:23, 25:33])
    assert torch.equal(pixels(best.bicubic), to_uint8(imresize(lr.float() / 255, 4))[place])


@pytest.mark.parametrize(("frames", "seen"), [(1, 1), (5, 5), (8, 8), (9, 8), (100, 8)])
def test_a_few_frames_spread_over_the_clip_are_looked_at(frames: int, seen: int) -> None:
    gt = smooth(0, 40, 40)
    picker = CropPicker(frames, count=200, size=4)
    for i in range(frames):
        result = gt.clone()
        result[:, i // 10 * 4 : i // 10 * 4 + 4, i % 10 * 4 : i % 10 * 4 + 4] ^= 255
        picker.add(str(i), None, result, gt)
    named = {crop.frame for crop in picker.crops() if crop.difference > 0}
    assert len(named) == seen
    assert all(crop.lr is None and crop.bicubic is None for crop in picker.crops())


def test_frames_smaller_than_a_crop() -> None:
    gt = smooth(1, 40, 60)
    picker = CropPicker(1)
    picker.add("a", None, gt, gt)
    (crop,) = picker.crops()
    assert pixels(crop.gt).shape == (3, 40, 60)
    tiny = CropPicker(1)
    tiny.add("a", None, gt[:, :3], gt[:, :3])
    assert tiny.crops() == ()


def test_limit_keeps_those_that_differ_most() -> None:
    crop = CropRecord("a", 0, 0, 0.0, None, None, b"", b"")
    crops = [[5.0, 1.0], [4.0, 4.0], [6.0]]
    clips = [
        ClipRecord(str(i), (), None, 0.0, crops=tuple(replace(crop, difference=d) for d in row))
        for i, row in enumerate(crops)
    ]
    left = [[c.difference for c in clip.crops] for clip in limit_crops(clips, 3)]
    assert left == [[5.0], [4.0], [6.0]]
    assert limit_crops(clips, 5) == tuple(clips)
