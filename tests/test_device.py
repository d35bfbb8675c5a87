import pytest
import torch

from iart.device import autocast, available_devices, pick_device, pick_precision
from iart.errors import DeviceError

CPU = torch.device("cpu")


def test_auto_is_a_device_of_this_machine():
    device = pick_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert any(name.startswith(device.type) for name in available_devices())


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
