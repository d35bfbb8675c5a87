"""Window and tiles follow from free memory."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iart.errors import DeviceError, OptionsError
from iart.files.complete import Destination
from iart.model import IART, IARTConfig
from iart.model.bicubic import Bicubic
from iart.upscaling import budget as tiling
from iart.upscaling.budget import SMALLEST_TILE, Tiling, film_bytes, network_bytes, plan_tiling
from iart.upscaling.film.job import open_job
from tests.model.test_memory import LIGHT, needs_proc

GB = 1_000_000_000


@pytest.fixture(scope="module")
def model() -> IART:
    """Wide and shallow: most of its memory is that of the maps that a step fuses."""
    return IART(
        IARTConfig(
            channels=240, head_channels=16, depths=(1,), heads=(4,), window=(3, 4, 4), branches=1
        )
    )


def having(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    def free_memory(device: torch.device) -> int | None:
        assert device.type == "cpu"
        return free

    monkeypatch.setattr(tiling, "free_memory", free_memory)


def test_much_memory_shows_whole_pictures(
    model: IART, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    for free in (100 * GB, None):
        having(monkeypatch, free)
        assert plan_tiling(model, 480, 720) == Tiling(16, 3, 720)
    assert not caplog.records


def test_less_and_less_memory_gives_tiles_then_shorter_windows(
    model: IART, monkeypatch: pytest.MonkeyPatch
):
    plans: list[Tiling] = []
    for free in (20 * GB * 9**i // 10**i for i in range(18)):
        having(monkeypatch, free)
        plans.append(plan_tiling(model, 480, 720))
        assert network_bytes(model, plans[-1], 480, 720) < free
    assert plans[0] == Tiling(16, 3, 720)
    order = [(-plan.window, -(plan.tile or 0)) for plan in plans]
    assert order == sorted(order)
    assert len({plan.tile for plan in plans if plan.window == 16}) >= 3
    assert {plan.window: plan.overlap for plan in plans} == {16: 3, 8: 2, 4: 1}
    assert all(plan.tile is not None and plan.tile >= SMALLEST_TILE for plan in plans)


def test_what_would_be_needed_is_said_where_nothing_fits(
    model: IART, monkeypatch: pytest.MonkeyPatch
):
    having(monkeypatch, GB // 10)
    with pytest.raises(DeviceError) as caught:
        plan_tiling(model, 480, 720)
    assert str(caught.value) == (
        "720x480 is too large: cpu would need 2.1 GB of memory and has 0.1 GB to spare, even in "
        "tiles of 96 pixels, 4 frames at once. Free some memory, choose another --device, or pass "
        "--tile 96 --window 4 to try it"
    )


def test_what_was_chosen_is_said_with_the_reason(
    model: IART, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    having(monkeypatch, 11 * GB)
    plan = plan_tiling(model, 480, 720)
    [record] = caplog.records
    assert record.getMessage() == (
        f"720x480 in tiles of {plan.tile} pixels, 16 frames at once: "
        "otherwise cpu would need 8.9 GB of memory and has 8.2 GB to spare"
    )


def test_what_is_taken_besides_counts(model: IART, monkeypatch: pytest.MonkeyPatch):
    having(monkeypatch, 25 * GB // 2)
    assert plan_tiling(model, 480, 720).tile == 720
    assert plan_tiling(model, 480, 720, beside=film_bytes(480, 720)).tile != 720
    assert plan_tiling(model, 480, 720, share=0.8).tile != 720
    assert plan_tiling(model, 480, 720, share=0.8, frames=3).tile == 720


def test_what_is_asked_for_is_done(model: IART, monkeypatch: pytest.MonkeyPatch):
    having(monkeypatch, 0)
    assert plan_tiling(model, 480, 720, tile=None) == Tiling(16, 3, None)
    assert plan_tiling(model, 480, 720, window=9, overlap=1, tile=200) == Tiling(9, 1, 200)
    with pytest.raises(OptionsError, match="tile must be at least 32 pixels, got 31"):
        plan_tiling(model, 480, 720, tile=31)
    with pytest.raises(OptionsError, match="overlap must be"):
        plan_tiling(model, 480, 720, window=3, overlap=2)


def test_models_of_any_kind_are_planned_for(monkeypatch: pytest.MonkeyPatch):
    having(monkeypatch, 7 * GB)
    assert plan_tiling(Bicubic(), 1080, 1920).window < 16
    assert plan_tiling(Bicubic(), 480, 720) == Tiling(16, 3, 720)


def test_a_job_keeps_to_its_plan(tmp_path: Path):
    place = Destination(tmp_path / "out.mkv")
    with open_job(place, {}, overwrite=False) as job:
        assert job.tiling(lambda: Tiling(8, 2, 200)) == Tiling(8, 2, 200)
        assert job.tiling(lambda: Tiling(16, 3, 400)) == Tiling(8, 2, 200)


MEASURE = """
import sys, torch
from pathlib import Path
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.budget import Tiling
from iart.model import IART, IARTConfig
def kilobytes(key):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1])
model = IART(eval(sys.argv[1])).eval()
t, h, w, tile = (int(x) for x in sys.argv[2:])
model(torch.zeros(1, 2, 3, 8, 8))  # what libraries take once
before = kilobytes("VmRSS")
clip = torch.rand(t, 3, h, w)
Enlarger(model, Tiling(t, 0, tile)).enlarge(clip, slice(0, t))
print(1024 * (kilobytes("VmHWM") - before))
"""


@needs_proc
@pytest.mark.parametrize(
    ("frames", "height", "width", "tile"),
    [
        pytest.param(4, 200, 320, 128, marks=pytest.mark.slow),
        pytest.param(16, 180, 320, 128, marks=pytest.mark.slow),
        pytest.param(8, 480, 640, 256, marks=pytest.mark.slow),
        pytest.param(4, 960, 1280, 160, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_of_tiles_meets_the_measured_peak(
    frames: int, height: int, width: int, tile: int
):
    numbers = [str(x) for x in (frames, height, width, tile)]
    command = [sys.executable, "-c", MEASURE, repr(LIGHT), *numbers]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    read = 12 * (frames + 1) * height * width  # frames of a reader, which is not there
    estimated = network_bytes(IART(LIGHT), Tiling(frames, 0, tile), height, width) - read
    assert estimated == pytest.approx(measured, rel=0.25)
