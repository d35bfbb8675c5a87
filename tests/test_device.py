import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iart import device
from iart.bench.peaks import Size, peaks_of_a_process
from iart.device import (
    CPU_CELLS,
    CPU_HEAD,
    CPU_ROWS,
    FLOW_PIXELS,
    autocast,
    available_devices,
    estimate_memory,
    estimate_tiled_memory,
    free_memory,
    memory_in_use,
    pick_device,
    pick_precision,
)
from iart.errors import DeviceError
from iart.model import IART, IARTConfig, flow, fuse, kernels, upsample
from iart.model.flow import PIXELS_AT_ONCE
from iart.weights import save_model

CPU = torch.device("cpu")


def test_auto_is_a_device_of_this_machine():
    picked = pick_device()
    assert picked.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert any(name.startswith(picked.type) for name in available_devices())


def test_a_device_may_be_given_as_such():
    assert pick_device(CPU) == CPU
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:x", "", "meta"])
def test_what_is_no_device_is_refused(name: str):
    with pytest.raises(DeviceError, match=f"unknown device '{name}'"):
        pick_device(name)


def test_an_absent_device_is_named_with_those_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match=r"'cuda:1' is not available \(found: cuda:0, cpu\)"):
        pick_device("cuda:1")
    with pytest.raises(DeviceError, match="'mps' is not available"):
        pick_device("mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="'cuda' is not available"):
        pick_device("cuda")


def test_precision():
    assert pick_precision("float32", CPU) is torch.float32
    assert pick_precision("bfloat16", CPU) is torch.bfloat16
    assert pick_precision("float16", torch.device("cuda")) is torch.float16
    with pytest.raises(DeviceError, match="float16 needs a GPU"):
        pick_precision("float16", CPU)
    with pytest.raises(DeviceError, match="unknown precision 'half'"):
        pick_precision("half", CPU)


def test_bfloat16_is_refused_where_a_gpu_lacks_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(DeviceError, match="has no bfloat16"):
        pick_precision("bfloat16", torch.device("cuda"))


def test_autocast_changes_the_type_of_products_only_when_asked():
    x = torch.ones(2, 2)
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16


# ---- memory

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
from iart.allocator import keep_freed_memory
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
needs_kernel = pytest.mark.skipif(
    kernels.in_use() == "torch", reason="PyTorch attends in 4 MB more"
)


def test_the_formula_knows_the_pieces_of_the_network():
    assert CPU_CELLS == fuse.CELLS_AT_ONCE
    assert CPU_HEAD == upsample.NUMBERS_AT_ONCE
    assert CPU_ROWS == upsample.SHORTEST_STRIPE
    assert FLOW_PIXELS == flow.PIXELS_AT_ONCE


def assert_formula_holds(
    model: str, config: IARTConfig, sizes: list[tuple[int, int, int]], precision: str = "float32"
) -> None:
    """Within a tenth of what is in use in a process that keeps no freed blocks."""
    measured = peaks_of_a_process(model, "cpu", [Size(*size) for size in sizes], precision)
    for size, peak in zip(sizes, measured, strict=True):
        assert memory_in_use(config, *size, precision) == pytest.approx(peak, rel=0.1), size


@needs_proc
@needs_kernel
def test_the_formula_says_what_is_in_use() -> None:
    assert_formula_holds("light", LIGHT, [(1, 64, 96), (3, 90, 125), (5, 48, 64)])
    assert_formula_holds("light", LIGHT, [(3, 96, 128)], "bfloat16")


@needs_proc
@needs_kernel
@pytest.mark.slow
def test_the_formula_says_what_is_in_use_by_more() -> None:
    assert_formula_holds("light", LIGHT, [(16, 48, 64), (3, 180, 320)])
    assert_formula_holds("light", LIGHT, [(9, 96, 128)], "bfloat16")


@needs_proc
@needs_kernel
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
def test_the_formula_holds_for_other_networks(config: IARTConfig, tmp_path: Path) -> None:
    save_model(IART(config), tmp_path / "other.safetensors")
    sizes = [(1, 64, 96), (4, 64, 96), (10, 45, 60)]
    assert_formula_holds(str(tmp_path / "other.safetensors"), config, sizes)


@needs_proc
@needs_kernel
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
        (8, 120, 160),
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


def test_the_formula_knows_how_many_pairs_are_taken_together():
    assert FLOW_PIXELS == PIXELS_AT_ONCE


def test_tiles_take_less_than_the_whole_and_what_is_held_does_not_depend_on_them():
    whole = estimate_memory(LIGHT, 16, 480, 720)
    network, held = estimate_tiled_memory(LIGHT, 16, 480, 720, 256, 1024)
    small_network, small_held = estimate_tiled_memory(LIGHT, 16, 480, 720, 96, 384)
    assert network + held < whole
    assert small_network < network / 2
    assert held * 0.9 < small_held <= held
    assert estimate_tiled_memory(LIGHT, 8, 480, 720, 256, 1024)[0] == network


def test_free_memory():
    free = free_memory(CPU)
    assert free is None or free > 10_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_knows_the_limits_of_containers(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "CGROUPS", tmp_path / "cgroup")
    own = tmp_path / "proc" / "self"
    own.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    8000 kB\n")
    names = ("memory.max", "memory.current")
    root, line = tmp_path / "cgroup", "0::/user/job"
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        root, line = root / "memory", "7:cpu,memory:/user/job"
    (own / "cgroup").write_text(f"3:pids:/elsewhere\n{line}\n")

    def limit(group: Path, most: str, used: int) -> None:
        group.mkdir(parents=True, exist_ok=True)
        for name, content in zip(names, (most, used), strict=True):
            (group / name).write_text(f"{content}\n")
        (group / "memory.stat").write_text("anon 5\ninactive_file 1000\n")

    assert free_memory(CPU) == 8000 * 1024  # no group is visible
    limit(root / "user" / "job", "max", 3_000_000)
    assert free_memory(CPU) == 8000 * 1024
    limit(root / "user", "5000000", 3_000_000)
    assert free_memory(CPU) == 2_001_000
    limit(root / "user" / "job", "3500000", 3_000_000)
    assert free_memory(CPU) == 501_000
    limit(root, "3100000", 3_000_000)
    assert free_memory(CPU) == 101_000


def test_free_memory_of_a_system_that_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "PROC", tmp_path)
    assert free_memory(CPU) is None
    assert free_memory(torch.device("mps")) is None
