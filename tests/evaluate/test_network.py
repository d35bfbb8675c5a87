"""Frames by a network: the whole clip at once if the memory allows, else windows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iart.data.degrade import to_uint8
from iart.device import estimate_memory
from iart.errors import DeviceError, OptionsError, WeightsError
from iart.evaluate.layout import Clip, find_clips
from iart.evaluate.network import Enlarger, ThereAndBack
from iart.evaluate.pictures import read_picture
from iart.evaluate.protocol import read_protocol
from iart.inference.tiling import SAFE_SHARE
from iart.model import IART
from tests.evaluate.made import make_data, make_protocol
from tests.inference.test_upscale import TINY


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


def frames(enlarger: Enlarger, clip: Clip, window: int) -> list[Tensor]:
    return list(enlarger.frames(clip, window))


@pytest.mark.parametrize(("window", "seen"), [(9, [9]), (5, [5, 5]), (4, [4, 4, 4, 4])])
def test_all_frames_in_order(clip: Clip, window: int, seen: list[int]):
    model = Position()
    made = frames(Enlarger(model, overlap=1), clip, window)
    assert model.seen[: len(seen)] == seen
    assert len(made) == 9
    for frame, path in zip(made, clip.lq, strict=True):
        assert frame[:, ::4, ::4].equal(read_picture(path))


def test_only_scored_frames_come_out(clip: Clip):
    centre = Clip(clip.name, clip.size, (4,), clip.gt[4:5], clip.lq)
    model = Position()
    (frame,) = frames(Enlarger(model), centre, 9)
    assert model.seen == [9]
    assert frame[:, ::4, ::4].equal(read_picture(clip.lq[4]))


def test_the_network_sees_the_whole_clip(clip: Clip):
    torch.manual_seed(0)
    model = IART(TINY).eval()
    small = torch.stack([read_picture(path) for path in clip.lq]).float() / 255
    with torch.inference_mode():
        expected = to_uint8(model(small[None])[0])
    assert torch.stack(frames(Enlarger(model), clip, 9)).equal(expected)


def test_memory_decides(clip: Clip):
    model = IART(TINY)
    needed = [estimate_memory(TINY, n, 12, 16) for n in range(10)]
    assert Enlarger(model).frames_at_once(clip) == 9
    assert Enlarger(model, room=needed[9]).frames_at_once(clip) == 9
    assert Enlarger(model, room=needed[8]).frames_at_once(clip) == 8
    assert Enlarger(model, room=needed[7], overlap=3).frames_at_once(clip) == 7
    with pytest.raises(DeviceError, match="too little memory for clip 'a', even in windows"):
        Enlarger(model, room=needed[6], overlap=3).frames_at_once(clip)
    assert Enlarger(model, room=needed[6], overlap=2).frames_at_once(clip) == 6
    twice = estimate_memory(TINY, 16, 12, 16)
    assert Enlarger(model, room=twice, flip_seq=True).frames_at_once(clip) == 8
    assert Enlarger(model, window=5, room=1).frames_at_once(clip) == 5
    assert Enlarger(model, window=50).frames_at_once(clip) == 9
    assert Enlarger(Position(), room=1).frames_at_once(clip) == 9  # nobody knows what it needs


def test_the_share_of_memory(monkeypatch: pytest.MonkeyPatch):
    def share(share: float, window: int | None = None) -> Enlarger:
        return Enlarger.with_memory_share(
            IART(TINY), share, precision="float32", flip_seq=False, window=window, overlap=3
        )

    monkeypatch.setattr("iart.evaluate.network.free_memory", lambda device: 1000)
    assert share(0.5).room == round(SAFE_SHARE * 500)
    with pytest.raises(OptionsError, match="overlap must be 0 to 2 frames for a window of 5"):
        share(1.0, window=5)
    monkeypatch.setattr("iart.evaluate.network.free_memory", lambda device: None)
    assert share(1.0).room is None


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
    made = frames(Enlarger(model, flip_seq=True), clip, 9)
    assert model.seen == [18]
    assert made[3][:, ::4, ::4].equal(read_picture(clip.lq[3]))


class Broken(nn.Module):
    """Gives NaN."""

    def forward(self, frames: Tensor) -> Tensor:
        return Position()(frames) * float("nan")


def test_a_network_that_gives_nan(clip: Clip):
    with pytest.raises(WeightsError, match=r"clip 'a' hold NaN.*float16.*--precision float32"):
        frames(Enlarger(Broken(), "float16"), clip, 9)
