from pathlib import Path

import numpy as np
import pytest
import torch

from iart import device
from iart.device import (
    autocast,
    available_devices,
    download,
    free_memory,
    pick_device,
    pick_precision,
    stored,
    threads_per_process,
    unsigned,
    upload,
)
from iart.errors import DeviceError

CPU = torch.device("cpu")


def test_auto_is_a_device_of_this_machine():
    picked = pick_device()
    assert picked.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert any(name.startswith(picked.type) for name in available_devices())


def test_a_device_may_be_given_as_such():
    assert pick_device(CPU) == CPU
    assert pick_device("cpu") == CPU


def test_devices_are_checked_and_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert threads_per_process(["cpu"]) is None
    assert threads_per_process(["cpu", "cpu"]) == 2
    with pytest.raises(DeviceError, match="cuda:99"):
        threads_per_process(["cpu", "cuda:99"])
    with pytest.raises(DeviceError, match="no device"):
        threads_per_process([])


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
    assert pick_precision("auto", CPU) is torch.float32
    with pytest.raises(DeviceError, match="float16 needs a GPU"):
        pick_precision("float16", CPU)
    with pytest.raises(DeviceError, match="unknown precision 'half'"):
        pick_precision("half", CPU)


@pytest.mark.parametrize(
    ("capability", "chosen"), [((6, 1), torch.float32), ((7, 5), torch.float16)]
)
def test_auto_is_float16_on_gpus_with_tensor_cores(
    capability: tuple[int, int], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_precision("auto", torch.device("cuda")) is chosen


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


def test_numbers_of_16_bits_are_the_same_there_and_back():
    numbers = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    there = unsigned(torch.from_numpy(numbers.view(np.int16)))
    assert there.equal(torch.arange(2.0**16).view(256, 256))
    np.testing.assert_array_equal(stored(there, numbers.dtype).numpy().view(np.uint16), numbers)
    eight = there[:1]
    assert stored(eight, np.dtype(np.uint8)).equal(torch.arange(256, dtype=torch.uint8)[None])


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_numbers_go_to_a_gpu_and_come_back(dtype: type):
    numbers = np.arange(200).reshape(10, 20).astype(dtype)
    there = upload(numbers[:, 1:], torch.device("cuda"))
    assert there.is_cuda
    np.testing.assert_array_equal(there.cpu().numpy(), numbers[:, 1:])
    back = download([there, there + 1], numbers.dtype)
    np.testing.assert_array_equal(back[0], numbers[:, 1:])
    np.testing.assert_array_equal(back[1], numbers[:, 1:] + 1)


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
