"""Pieces give what the whole gives, and memory that runs out makes them smaller."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import iart
from iart.errors import DeviceError
from iart.model import IART, IARTConfig
from iart.upscaling import enlarge
from iart.upscaling.budget import SMALLEST_TILE, Tiling
from iart.upscaling.clip import Step, enlarge_steps, upscale, upscale_frames
from iart.upscaling.enlarge import Enlarger
from iart.video.frame import Frame
from tests.model.formula import smooth_input, with_formula_weights
from tests.upscaling.test_clip import TINY as SMALL
from tests.upscaling.test_clip import Repeat, noise, repeat4

TINY = IARTConfig(channels=24, mid_channels=32, depths=(2, 2), heads=(4, 4))


def moving(frames: int, height: int, width: int) -> Tensor:
    """A texture, detail on top of large shapes, that moves by (2, 3) pixels from frame to frame."""
    h, w = height + 2 * frames, width + 3 * frames
    fine, coarse = smooth_input("tiles", (3, h, w), clamp=True), noise(1, 3, h // 16, w // 16)
    shapes = nn.functional.interpolate(coarse, (h, w), mode="bicubic")[0].clamp(0, 1)
    picture = (fine + 2 * shapes) / 3
    return torch.stack(
        [picture[:, 2 * i : 2 * i + height, 3 * i : 3 * i + width] for i in range(frames)]
    )


def worst_psnr(clip: Tensor, reference: Tensor) -> float:
    """Of the worst frame, in dB."""
    errors = (clip - reference).square().mean(dim=(1, 2, 3))
    return -10 * float(errors.max().clamp(min=1e-12).log10())


def enlarged(model: nn.Module, clip: Tensor, tile: int | None, kept: slice = slice(None)) -> Tensor:
    return Enlarger(model, Tiling(len(clip), 0, tile)).enlarge(clip, kept)[0]


def test_tiles_of_the_shipped_model_are_as_good_as_the_whole_picture():
    model, clip = iart.load_model("light", "cpu"), moving(6, 48, 160)
    whole, tiled = enlarged(model, clip, None), enlarged(model, clip, SMALLEST_TILE)
    assert not tiled.equal(whole)
    assert worst_psnr(tiled, whole) > 80


@pytest.mark.parametrize(
    ("config", "frames"),
    [(TINY, 2), pytest.param(IARTConfig(), 3, marks=pytest.mark.slow)],
    ids=["tiny", "full"],
)
def test_tiles_are_as_good_as_the_whole_picture_for_any_weights(config: IARTConfig, frames: int):
    model, clip = with_formula_weights(IART(config)), moving(frames, 40, 120)
    whole, tiled = enlarged(model, clip, None), enlarged(model, clip, SMALLEST_TILE)
    assert not tiled.equal(whole)
    assert worst_psnr(tiled, whole) > 55


def test_windows_that_float16_cannot_hold_are_computed_in_bfloat16(
    caplog: pytest.LogCaptureFixture,
):
    model, clip = with_formula_weights(IART(SMALL)).requires_grad_(False), noise(8, 3, 9, 13)
    model._precision, model._widens = "float16", True  # as "auto" has it on a GPU
    frames = [Frame(x, i, Fraction(1)) for i, x in enumerate(clip)]
    tiling = Tiling(4, 1, None)

    def states(enlarger: Enlarger, steps: list[Step]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return [(x.data, dict(state or {})) for x, state in enlarge_steps(steps, enlarger)]

    def kinds(made: list[tuple[Tensor, dict[str, Tensor]]]) -> set[torch.dtype]:
        return {x.dtype for _, state in made for key, x in state.items() if key.endswith("_back")}

    steps = [Step(frame) for frame in frames]
    assert kinds(states(Enlarger(model, tiling), steps)) == {torch.float16}
    assert not caplog.records
    model.extract.weight *= 1e6
    made = states(Enlarger(model, tiling), steps)
    assert kinds(made) == {torch.bfloat16}
    assert "float16 cannot hold" in caplog.text
    assert len(caplog.records) == 1
    expected = states(Enlarger(model.in_precision("bfloat16"), tiling), steps)
    for (ours, _), (theirs, _) in zip(made, expected, strict=True):
        assert ours.equal(theirs)
    # where a run goes on, the state tells that its chain is in bfloat16
    index = next(i for i, (_, state) in enumerate(made) if state)
    rest = [Step(x, i > index) for i, x in enumerate(frames)]
    rest[index + 1] = replace(rest[index + 1], state=made[index][1])
    again = Enlarger(model, tiling)
    for (ours, _), (theirs, _) in zip(states(again, rest), made[index + 1 :], strict=True):
        assert ours.equal(theirs)


def test_flow_in_pieces_is_nearly_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(enlarge, "FLOW_TILES", 2)
    model, clip = iart.load_model("light", "cpu"), moving(2, 40, 330)
    assert worst_psnr(enlarged(model, clip, 96), enlarged(model, clip, None)) > 50


@pytest.mark.parametrize(("branches", "tile"), [(2, None), (4, SMALLEST_TILE)])
def test_state_that_is_carried_brings_windows_closer_to_the_whole_clip(
    branches: int, tile: int | None
):
    model = with_formula_weights(IART(replace(SMALL, branches=branches)))
    clip = moving(8, 16, 100)

    class Stateless(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return model(frames)

    whole = enlarged(model, clip, tile)
    carried = upscale(clip, model, window=5, overlap=1, tile=tile)
    apart = upscale(clip, Stateless(), window=5, overlap=1, tile=tile)
    assert not carried.equal(whole)
    assert (carried - whole).square().mean() < 0.9 * (apart - whole).square().mean()


@pytest.mark.parametrize("tile", [None, SMALLEST_TILE])
def test_state_with_all_that_follows_known_is_the_whole_clip(tile: int | None):
    """Also after a single frame, and through shorter windows if memory runs out."""
    model = with_formula_weights(IART(replace(SMALL, branches=4)))
    clip = moving(6, 16, 100)
    enlarger, whole, state = Enlarger(model, Tiling(6, 0, tile)), enlarged(model, clip, tile), {}
    for kept in (slice(0, 1), slice(1, 2), slice(2, 6)):
        large, state = enlarger.enlarge(clip[kept.start :], slice(0, kept.stop - kept.start), state)
        torch.testing.assert_close(large, whole[kept])


def test_a_stream_and_a_clip_are_the_same():
    model, clip = with_formula_weights(IART(SMALL)), moving(12, 16, 20)
    frames = [Frame(x, i, Fraction(1, 25), 1, i == 4) for i, x in enumerate(clip)]
    stream = upscale_frames(frames, model, window=5, overlap=1)
    scenes = [upscale(scene, model, window=5, overlap=1) for scene in (clip[:4], clip[4:])]
    assert torch.stack([frame.data for frame in stream]).equal(torch.cat(scenes))


def test_a_run_that_goes_on_is_given_the_state():
    model, clip = with_formula_weights(IART(SMALL)), moving(17, 16, 20)
    frames = [Frame(x, i, Fraction(1, 25)) for i, x in enumerate(clip)]
    tiling = Tiling(5, 1, None)
    done = list(
        enlarge_steps(
            [Step(x, begins_chain=i == 9) for i, x in enumerate(frames)], Enlarger(model, tiling)
        )
    )
    ends = [i for i, (_, state) in enumerate(done, 1) if state is not None]
    assert ends == [4, 8, 9, 12, 17]
    for stop in (8, 12):
        steps = [
            Step(x, i >= stop, i == 9, done[stop - 1][1] if i == stop else None)
            for i, x in enumerate(frames)
        ]
        rest = list(enlarge_steps(steps, Enlarger(model, tiling)))
        assert all(a.data.equal(b.data) for (a, _), (b, _) in zip(rest, done[stop:], strict=True))


def test_tiles_in_half_precision():
    clip = moving(2, 24, 110)
    exact = enlarged(iart.load_model("light", "cpu"), clip, None)
    half = enlarged(iart.load_model("light", "cpu", "bfloat16"), clip, SMALLEST_TILE)
    assert 55 < worst_psnr(half, exact) < 80


def test_only_kept_frames_come_back():
    model, clip = iart.load_model("light", "cpu"), moving(4, 24, 110)
    for tile in (None, SMALLEST_TILE):
        whole = enlarged(model, clip, tile)
        torch.testing.assert_close(enlarged(model, clip, tile, slice(1, 3)), whole[1:3])


def test_a_picture_of_few_rows_is_no_flow():
    model, clip = iart.load_model("light", "cpu"), noise(2, 3, 2, 150)
    torch.testing.assert_close(
        enlarged(model, clip, SMALLEST_TILE), enlarged(model, clip, None), atol=1e-4, rtol=0
    )


# ---- out of memory


class Hungry(Repeat):
    """Exact ×4, for pieces that are not too large."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, frames: Tensor) -> Tensor:
        if frames.numel() > 3 * self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
        return super().forward(frames)


def test_pieces_become_smaller_and_stay_so(caplog: pytest.LogCaptureFixture):
    clip = noise(13, 3, 100, 400)
    enlarger = Enlarger(Hungry(13 * 100**2), Tiling(13, 3, 400))
    assert enlarger.enlarge(clip, slice(2, 11))[0].equal(repeat4(clip[2:11]))
    assert enlarger.tiling == Tiling(13, 3, 100)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "cpu has run out of memory; from here on tiles of 100 pixels, 13 frames" in caplog.text
    enlarger.enlarge(clip, slice(0, 13))
    assert len(caplog.records) == 2


def test_windows_become_shorter_when_tiles_cannot():
    clip = noise(13, 3, 100, 100)
    enlarger = Enlarger(Hungry(4 * 68**2), Tiling(13, 3, 100))
    for kept in (slice(0, 13), slice(2, 11), slice(5, 6)):
        assert enlarger.enlarge(clip, kept)[0].equal(repeat4(clip[kept]))
    assert enlarger.tiling == Tiling(4, 1, SMALLEST_TILE)


def test_memory_that_suffices_for_nothing_is_named():
    clip = noise(5, 3, 100, 100)
    with pytest.raises(DeviceError, match="too little memory for 5 frames of 100x100 in tiles"):
        Enlarger(Hungry(100), Tiling(16, 3, 100)).enlarge(clip, slice(0, 5))


def test_whole_pictures_stay_whole():
    with pytest.raises(
        DeviceError, match=r"whole pictures.*Pass a smaller --window or --tile auto"
    ):
        Enlarger(Hungry(100), Tiling(16, 3, None)).enlarge(noise(5, 3, 100, 100), slice(0, 5))


def test_other_errors_come_through():
    class Broken(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        enlarged(Broken(), noise(1, 3, 8, 8), 96)


def test_no_frame_is_lost(caplog: pytest.LogCaptureFixture):
    frames = [
        Frame(x, i, Fraction(1, 25), 1, i in (3, 12)) for i, x in enumerate(noise(30, 3, 50, 120))
    ]
    large = list(upscale_frames(frames, Hungry(5 * 50 * 110), window=8, overlap=2))
    assert [frame.pts for frame in large] == list(range(30))
    assert all(b.data.equal(repeat4(a.data)) for a, b in zip(frames, large, strict=True))
    assert len(caplog.records) == 2


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch, iart
from iart.upscaling.clip import upscale
torch.set_num_threads(1)
from iart.model import IART, IARTConfig
torch.manual_seed(0)
model = IART(IARTConfig(channels=96, mid_channels=8, head_channels=4, flow_channels=(4, 4),
    flow_levels=2, depths=(1,), heads=(4,), window=(3, 4, 4), branches=1)).eval()
clip = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
clip = torch.nn.functional.interpolate(clip, (256, 320), mode="bicubic").clamp(0, 1)
clip = torch.cat([clip.roll(2 * i, -1) for i in range(2)])
whole = upscale(clip, model, tile=None)
lines = Path("/proc/self/status").read_text().splitlines()
size = next(int(line.split()[1]) for line in lines if line.startswith("VmSize"))
most = 1024 * size + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    upscale(clip, model, tile=None)
except iart.DeviceError as error:
    print(error)
print(10 * float((upscale(clip, model) - whole).square().mean().log10()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.slow
def test_memory_that_really_runs_out():
    command = [sys.executable, "-c", SHORT_OF_MEMORY, "320000000"]
    # What is freed goes back to the system at once, so that the limit means the same every time.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    refusal, decibel = process.stdout.splitlines()
    assert "too little memory for 2 frames of 320x256 in whole pictures" in refusal
    assert "cpu has run out of memory; from here on tiles of" in process.stderr
    assert float(decibel) < -60
