import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from iart.errors import InputError, OptionsError
from iart.model import IART, IARTConfig
from iart.upscaling.budget import TileOption
from iart.upscaling.clip import upscale, upscale_frames
from iart.video.frame import Frame

TINY = IARTConfig(
    channels=8,
    mid_channels=8,
    head_channels=8,
    flow_channels=(4, 4, 4, 4),
    flow_levels=3,
    depths=(2,),
    heads=(2,),
    window=(3, 4, 4),
    branches=2,
)


def repeat4(clip: Tensor) -> Tensor:
    return clip.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


class Repeat(nn.Module):
    """Exact ×4, and notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        assert frames.shape[0] == 1
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.shown.append(frames[0])
        return repeat4(frames)


class Neighbours(nn.Module):
    """Every frame becomes the sum of it and its neighbours, as far as they are shown."""

    def forward(self, frames: Tensor) -> Tensor:
        total = frames.clone()
        total[:, 1:] += frames[:, :-1]
        total[:, :-1] += frames[:, 1:]
        return repeat4(total / 4)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def video(clip: Tensor, cuts: set[int] = frozenset()) -> list[Frame]:  # pyright: ignore[reportArgumentType]
    """With times of a variable rate."""
    base = Fraction(1001, 90000)
    return [Frame(x, 7 + i * i, base, 2 * i + 1, i in cuts) for i, x in enumerate(clip)]


@pytest.mark.parametrize("tile", [None, 33, 38, "auto"])
@pytest.mark.parametrize("t", [1, 4, 5, 13])
def test_an_exact_model_gives_an_exact_clip(t: int, tile: TileOption):
    clip = noise(t, 3, 20, 41)
    assert upscale(clip, Repeat(), window=5, overlap=1, tile=tile).equal(repeat4(clip))


@pytest.mark.parametrize("window", [4, 5, 9, 30])
def test_context_is_enough_for_a_model_that_looks_one_frame_far(window: int):
    clip = noise(17, 3, 6, 8)
    whole = Neighbours()(clip[None])[0]
    torch.testing.assert_close(upscale(clip, Neighbours(), window=window, overlap=1), whole)


def test_no_clip_no_frames():
    assert upscale(noise(0, 3, 6, 8), Repeat()).shape == (0, 3, 24, 32)


def test_the_result_is_alike_and_can_be_worked_with():
    clip = noise(3, 3, 6, 8).double()
    large = upscale(clip, IART(TINY))
    assert large.dtype == torch.float64
    assert large.min() >= 0
    assert large.max() <= 1
    large += 1  # tensors of inference mode would not take part in this
    assert not large.requires_grad


def test_training_goes_on_after_it():
    model = IART(TINY)
    shown = Repeat()
    assert model.training
    upscale(noise(2, 3, 6, 8), model)
    assert model.training
    upscale(noise(2, 3, 6, 8), shown.eval())
    assert not shown.training


def test_integers_are_refused():
    # The annotation says so too, which only tests look at.
    with pytest.raises((OptionsError, TypeCheckError)):
        upscale(noise(2, 3, 6, 8).byte(), Repeat())


def test_frames_keep_their_times_and_marks():
    frames = video(noise(14, 3, 6, 8), cuts={3, 9})
    large = list(upscale_frames(frames, Repeat(), window=5, overlap=1))
    for small, frame in zip(frames, large, strict=True):
        assert frame.data.equal(repeat4(small.data))
        assert (frame.pts, frame.time_base) == (small.pts, small.time_base)
        assert (frame.duration, frame.cut) == (small.duration, small.cut)


def test_no_window_crosses_a_cut():
    clip = noise(14, 3, 6, 8)
    large = upscale_frames(video(clip, cuts={3, 9}), Neighbours(), window=5, overlap=1)
    scenes = (clip[:3], clip[3:9], clip[9:])
    expected = torch.cat([Neighbours()(scene[None])[0] for scene in scenes])
    torch.testing.assert_close(torch.stack([frame.data for frame in large]), expected)


def test_frames_come_before_the_next_window_is_read():
    taken = 0

    def arriving() -> Iterator[Frame]:
        nonlocal taken
        for frame in video(noise(30, 3, 6, 8)):
            taken += 1
            yield frame

    for index, _ in enumerate(upscale_frames(arriving(), Repeat(), window=6, overlap=1)):
        assert taken <= index + 6 + 1


def test_a_frame_does_not_keep_its_window():
    large = list(upscale_frames(video(noise(6, 3, 6, 8)), Repeat(), window=6, overlap=0))
    assert all(f.data.untyped_storage().nbytes() == f.data.nbytes for f in large)


def test_windows_that_keep_nothing_are_refused_at_once():
    with pytest.raises(OptionsError, match="overlap must be 0 to 1 frames for a window of 4"):
        next(upscale_frames([], Repeat(), window=4, overlap=2))


@pytest.mark.parametrize("factor", [255.0, -3.0])
def test_values_far_outside_are_refused_with_their_range(factor: float):
    clip = factor * noise(2, 3, 6, 8)
    low, high = (float(x) for x in clip.aminmax())
    message = rf"from {low:.4g} to {high:.4g}, expected RGB in \[0, 1\]\. Divide 8-bit values"
    with pytest.raises(InputError, match=message):
        upscale(clip, Repeat())
    with pytest.raises(InputError, match=message):
        list(upscale_frames(video(clip), Repeat()))


def test_values_that_filters_overshoot_are_taken():
    upscale(1.4 * noise(2, 3, 6, 8) - 0.2, Repeat())


def test_clips_of_another_shape_are_refused():
    """In a process without the checks of types that tests run under."""
    code = """
import torch, iart
for shape in ((3, 6, 8), (2, 4, 6, 8), (1, 2, 3, 6, 8)):
    try:
        iart.upscale(torch.zeros(shape), iart.load_model("bicubic"))
    except iart.InputError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "upscale takes a clip of shape (frames, 3, height, width), got "
    assert run.stdout.splitlines() == [
        expected + shape for shape in ("(3, 6, 8)", "(2, 4, 6, 8)", "(1, 2, 3, 6, 8)")
    ]
