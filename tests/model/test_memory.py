import subprocess
import sys
from pathlib import Path

import pytest

from iart.bench.growth import ClipSize, peaks_of_a_process
from iart.model import IART, IARTConfig
from iart.model.memory import estimate_memory, estimate_tiled_memory, memory_in_use
from iart.weights import save_model
from tests.model.test_kernels import needs_compiler

LIGHT = IARTConfig(
    channels=32,
    mid_channels=32,
    head_channels=16,
    flow_channels=(12, 16, 12, 8),
    flow_levels=5,
    depths=(2,),
    heads=(2,),
    window=(3, 4, 4),
    branches=2,
)
MEASURE = """
import sys
from iart.runtime import keep_freed_memory
keep_freed_memory()
import torch
from pathlib import Path
from iart.model import IART, IARTConfig
def kilobytes(key):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1])
model = IART(eval(sys.argv[1])).eval()
with torch.inference_mode():
    model(torch.zeros(1, 2, 3, 8, 8))  # what libraries take once
    before = kilobytes("VmRSS")
    model(torch.rand(1, *(int(x) for x in sys.argv[2:])))
print(1024 * (kilobytes("VmHWM") - before))
"""


def measured_memory(config: IARTConfig, frames: int, height: int, width: int) -> int:
    """In a process of its own: peaks never fall."""
    shape = (str(x) for x in (frames, 3, height, width))
    command = [sys.executable, "-c", MEASURE, repr(config), *shape]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def assert_formula_holds(
    model: str, config: IARTConfig, sizes: list[tuple[int, int, int]], precision: str = "float32"
) -> None:
    """Within a tenth of what is in use in a process that keeps no freed blocks."""
    measured = peaks_of_a_process(model, "cpu", [ClipSize(*size) for size in sizes], precision)
    for size, peak in zip(sizes, measured, strict=True):
        assert memory_in_use(config, *size, precision) == pytest.approx(peak, rel=0.1), size


@needs_proc
@needs_compiler
@pytest.mark.slow
def test_the_formula_says_what_is_in_use() -> None:
    assert_formula_holds("light", LIGHT, [(1, 64, 96), (3, 90, 125)])
    assert_formula_holds("light", LIGHT, [(5, 48, 64), (16, 48, 64), (3, 180, 320)])
    assert_formula_holds("light", LIGHT, [(3, 96, 128), (9, 96, 128)], "bfloat16")


@needs_proc
@needs_compiler
@pytest.mark.parametrize(
    "config",
    [
        IARTConfig(
            channels=24, mid_channels=16, head_channels=8, flow_channels=(8, 8), flow_levels=2,
            depths=(2, 1), heads=(2, 2), window=(3, 4, 4), branches=2,
        ),
        IARTConfig(
            channels=32, head_channels=32, depths=(2, 2), heads=(4, 4), flow_levels=5, branches=1
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_the_formula_holds_for_other_networks(config: IARTConfig, tmp_path: Path) -> None:
    save_model(IART(config), tmp_path / "other.safetensors")
    sizes = [(1, 64, 96), (4, 64, 96), (10, 45, 60)]
    assert_formula_holds(str(tmp_path / "other.safetensors"), config, sizes)


@needs_proc
@needs_compiler
@pytest.mark.slow
def test_the_formula_holds_for_the_full_network() -> None:
    assert_formula_holds("full", IARTConfig(), [(2, 24, 40), (3, 48, 64)])


def assert_plan_fits(config: IARTConfig, size: tuple[int, int, int]) -> None:
    """A plan may ask for more than it takes: allocators differ in what they keep."""
    share = measured_memory(config, *size) / estimate_memory(config, *size)
    assert 0.5 < share < 1.15


@needs_proc
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((8, 120, 160), marks=pytest.mark.slow),
        pytest.param((5, 240, 320), marks=pytest.mark.slow),
        pytest.param((16, 180, 320), marks=pytest.mark.slow),
        pytest.param((8, 480, 640), marks=pytest.mark.slow),
    ],
)
def test_what_is_planned_with_meets_what_a_process_takes(size: tuple[int, int, int]):
    assert_plan_fits(LIGHT, size)


@needs_proc
@pytest.mark.slow
def test_what_is_planned_with_meets_what_the_full_network_takes():
    assert_plan_fits(IARTConfig(), (3, 96, 128))


def test_memory_grows_with_everything_and_shrinks_with_precision():
    small = estimate_memory(LIGHT, 5, 100, 100)
    assert small < estimate_memory(LIGHT, 6, 100, 100)
    assert small < estimate_memory(LIGHT, 5, 120, 100)
    assert small < estimate_memory(LIGHT, 5, 100, 120)
    assert small < estimate_memory(IARTConfig(), 5, 100, 100)
    assert estimate_memory(IARTConfig(), 5, 100, 100, "bfloat16") < estimate_memory(
        IARTConfig(), 5, 100, 100
    )
    assert 0 < estimate_memory(LIGHT, 1, 1, 1) < 10_000_000


def test_tiles_take_less_than_the_whole_and_what_is_held_does_not_depend_on_them():
    whole = estimate_memory(LIGHT, 16, 480, 720)
    network, held = estimate_tiled_memory(LIGHT, 16, 480, 720, 256, 1024)
    small_network, small_held = estimate_tiled_memory(LIGHT, 16, 480, 720, 96, 384)
    assert network + held < whole
    assert small_network < network / 2
    assert held * 0.9 < small_held <= held
    assert estimate_tiled_memory(LIGHT, 8, 480, 720, 256, 1024)[0] == network
