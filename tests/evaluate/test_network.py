"""Frames by a network: the whole clip at once if the memory allows, else windows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iart.errors import DeviceError, WeightsError
from iart.evaluate.clips import Clip, find_clips
from iart.evaluate.network import ThereAndBack, enlarger_for, scored_frames
from iart.evaluate.protocol import read_protocol
from iart.files.images import read_image
from iart.model import IART
from iart.pictures.degrade import to_uint8
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
