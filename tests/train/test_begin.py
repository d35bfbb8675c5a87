"""What a run begins with: weights of others in every layout, and what is said of wrong ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from iart.errors import OptionsError, WeightsError
from iart.model import IART, IARTConfig
from iart.train.initial_weights import LICENCE, load_flow, load_network, new_network
from iart.weights import published_name, read_model, save_model
from iart.weights.published import to_published
from tests.model.formula import with_formula_weights
from tests.train.tiny import assert_same, folder_of, make_pairs, options, run

TINY = options().network_g.config()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def other(config: IARTConfig = TINY) -> IART:
    return with_formula_weights(IART(config))


def spynet(model: IART) -> dict[str, Tensor]:
    """The flow network alone under its published names, with its constants."""
    return {
        published_name(f"flow.{name}").removeprefix("spynet."): tensor.clone()
        for name, tensor in (*model.flow.named_parameters(), *model.flow.named_buffers())
    }


# ---- the flow network


@pytest.mark.parametrize("nested", [True, False])
def test_spynet_s_published_file(nested: bool, caplog: pytest.LogCaptureFixture):
    tensors = spynet(other())
    assert "basic_module.0.basic_module.2.weight" in tensors
    assert "mean" in tensors
    torch.save({"params": tensors} if nested else tensors, "spynet.pth")
    with caplog.at_level("INFO", logger="iart"):
        model = new_network(options(network_g__spynet_path="spynet.pth"))
    assert_same(dict(model.flow.state_dict()), dict(other().flow.state_dict()))
    assert [r.getMessage() for r in caplog.records] == [f"'spynet.pth': {LICENCE}"]


def test_spynet_without_its_constants():
    tensors = {n: t for n, t in spynet(other()).items() if n not in ("mean", "std")}
    torch.save(tensors, "spynet.pth")
    model = IART(TINY)
    load_flow(model, Path("spynet.pth"))
    assert_same(dict(model.flow.state_dict()), dict(other().flow.state_dict()))


@pytest.mark.parametrize("name", ["whole.safetensors", "whole.pth"])
def test_the_flow_of_a_whole_network(name: str):
    save_model(other(), name)
    model = IART(TINY)
    load_flow(model, Path(name))
    assert_same(dict(model.flow.state_dict()), dict(other().flow.state_dict()))


def refused_flow(config: IARTConfig = TINY) -> str:
    with pytest.raises(WeightsError) as caught:
        load_flow(IART(config), Path("f.pth"))
    message = str(caught.value)
    assert message.startswith("network_g.spynet_path: ")
    assert "'f.pth'" in message
    assert "or null for flow weights of our own" in message
    assert "\n" not in message
    return message


def test_flow_of_another_size():
    wider = other(replace(TINY, flow_channels=(8, 6)))
    torch.save(spynet(wider), "f.pth")
    assert "basic_module.0.basic_module.2.weight [6, 8, 7, 7] instead of [4," in refused_flow()
    save_model(wider, "f.pth")
    assert "channels and levels ((8, 6), 2), network_g has ((8, 4), 2)" in refused_flow()


def test_flow_that_is_incomplete():
    tensors = spynet(other())
    del tensors["basic_module.1.basic_module.0.bias"]
    torch.save(tensors, "f.pth")
    assert "missing: basic_module.1.basic_module.0.bias" in refused_flow()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 and no more"])
def test_flow_that_is_no_weights(content: bytes):
    Path("f.pth").write_bytes(content)
    refused_flow()


def test_flow_of_nothing_known():
    torch.save({"a.weight": torch.zeros(2)}, "f.pth")
    assert "not weights of IART" in refused_flow()


def test_a_missing_file_is_named_with_its_option():
    make_pairs(Path("pairs"))
    with pytest.raises(OptionsError, match=r"network_g\.spynet_path: .*'x\.pth'.*spynet_path=null"):
        run(options(network_g__spynet_path="x.pth"))


# ---- the whole network


def both(name: str) -> tuple[IART, IART]:
    """A published file with two sets of weights, and the networks that they are of."""
    first, second = other(), other()
    with torch.no_grad():
        second.extract.weight += 1
    parts = {}
    for key, model in (("params", first), ("params_ema", second)):
        save_model(model, "part.pth")
        parts[key] = torch.load("part.pth", weights_only=True)["params"]
    torch.save(parts, name)
    return first, second


@pytest.mark.parametrize("key", ["params", "params_ema"])
def test_either_weights_of_a_published_file(key: str):
    expected = both("w.pth")[key == "params_ema"]
    model = new_network(options(path__pretrain_network_g="w.pth", path__param_key_g=key))
    assert_same(dict(model.state_dict()), dict(expected.state_dict()))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_the_only_weights_of_a_file(name: str):
    save_model(other(), name)
    model = IART(TINY)
    load_network(model, Path(name), "params_ema", strict=True)
    assert_same(dict(model.state_dict()), dict(other().state_dict()))


def test_another_rate_of_stochastic_depth_is_no_other_network():
    save_model(other(), "w.safetensors")
    load_network(IART(replace(TINY, drop_path=0.5)), Path("w.safetensors"), "params", strict=True)


def test_another_network_is_refused():
    save_model(other(replace(TINY, depths=(1,), mid_channels=4)), "w.pth")
    with pytest.raises(WeightsError) as caught:
        new_network(options(path__pretrain_network_g="w.pth"))
    assert "mid_channels is 4, network_g has 8; depths is (1,), network_g has (2,)" in str(
        caught.value
    )
    assert "path.strict_load_g=false" in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_fits_is_taken(name: str, caplog: pytest.LogCaptureFixture):
    source = other(replace(TINY, depths=(1,), mid_channels=4))
    save_model(source, name)
    changes: dict[str, Any] = {"path__pretrain_network_g": name, "path__strict_load_g": False}
    with caplog.at_level("INFO", logger="iart"):
        model = new_network(options(**changes))
    assert model.extract.weight.equal(source.extract.weight)
    fresh = new_network(options())
    assert model.head.up1.weight.equal(fresh.head.up1.weight)  # of another shape
    (message,) = (r.getMessage() for r in caplog.records)
    count = len(list(model.parameters()))
    assert f"'{name}' gave " in message
    assert f" of {count} tensors; missing: " in message
    assert "of another shape: " in message
    assert "unknown" not in message


def strange(model: IART, **changes: Tensor) -> dict[str, Tensor]:
    """Tensors of which few or none are of the network."""
    return {**{f"old.{name}": tensor for name, tensor in model.state_dict().items()}, **changes}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_of_which_nothing_fits_is_an_error(name: str):
    tensors = strange(other())
    if name == "w.pth":
        torch.save(tensors, name)
    else:
        save_file(tensors, name)
    chosen = options(path__pretrain_network_g=name, path__strict_load_g=False)
    with pytest.raises(WeightsError) as caught:
        new_network(chosen)
    message = str(caught.value)
    assert f"cannot use '{name}': none of its tensors fits network_g (missing: " in message
    assert "unknown: old." in message


def test_a_file_of_which_little_fits_is_a_warning(caplog: pytest.LogCaptureFixture):
    source = other()
    torch.save(strange(source, **{"conv_first.weight": source.extract.weight.detach()}), "w.pth")
    model = new_network(options(path__pretrain_network_g="w.pth", path__strict_load_g=False))
    assert model.extract.weight.equal(source.extract.weight)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'w.pth' gave only 1 of " in record.getMessage()
    assert "unknown: old." in record.getMessage()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("strict", [True, False])
def test_the_container_does_not_matter(name: str, prefix: str, strict: bool):
    source = other()
    tensors = {prefix + n: t for n, t in to_published(source).items()}
    if name == "w.pth":
        torch.save(tensors, name)
    else:
        save_file(tensors, name)
    model = new_network(options(path__pretrain_network_g=name, path__strict_load_g=strict))
    assert_same(dict(model.state_dict()), dict(source.state_dict()))


def test_going_on_needs_no_file_of_weights():
    chosen = options(path__pretrain_network_g="gone.pth", network_g__spynet_path="gone.pth")
    new_network(chosen, resumed=True)


# ---- fine-tuning the published network


@pytest.mark.slow
def test_fine_tuning_from_a_published_file():
    """The full network with formula weights: two steps on a small crop, and back."""
    make_pairs(Path("pairs"), clips=1)
    save_model(other(IARTConfig()), "published.pth")
    full = {"type": "IART", "use_checkpoint": True}
    chosen = options(
        network_g=full, path__pretrain_network_g="published.pth", train__total_iter=2,
        train__optim_g__lr=1e-5, datasets__train__num_frame=2, train__ema_decay=0.5,
    )  # fmt: skip
    run(chosen)
    path = folder_of() / "models" / "net_g_2.pth"
    file = torch.load(path, weights_only=True)
    assert file.keys() == {"params", "params_ema"}
    assert file["params"].keys() == torch.load("published.pth", weights_only=True)["params"].keys()
    start = other(IARTConfig())
    raw, smooth = (read_model(path, key=key) for key in ("params", "params_ema"))
    assert raw.config == IARTConfig()
    name = "head.last.weight"
    moved = (raw.get_parameter(name) - start.get_parameter(name)).abs().max()
    assert 0 < moved < 1e-4  # two steps of Adam from the file's weights
    assert not smooth.get_parameter(name).equal(raw.get_parameter(name))
    assert_same(dict(read_model(path).state_dict()), dict(smooth.state_dict()))  # the default
