"""Weights: round trips in both layouts, and every kind of file that must be refused."""

import json
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

from iart import weights
from iart.errors import DeviceError, OptionsError, OutputError, WeightsError
from iart.model import IART, IARTConfig
from iart.model.bicubic import Bicubic
from iart.weights import (
    blend,
    convert,
    load_model,
    read_metadata,
    read_model,
    save_model,
    weights_hash,
)
from iart.weights.published import to_published, unused_tensors
from tests.model.formula import with_formula_weights

OFFICIAL = Path(__file__).parent / "golden" / "official_state_dict.json"
CONFIG = IARTConfig(
    channels=24,
    mid_channels=12,
    head_channels=8,
    flow_channels=(4, 6),
    flow_levels=3,
    depths=(1, 2),
    heads=(2, 3),
    window=(3, 4, 4),
    branches=4,
)
TABLE = "swin_backbone.forward_1.layers.1.residual_group.blocks.1.attn.relative_position_bias_table"

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> IART:
    return with_formula_weights(IART(CONFIG))


@pytest.fixture
def state(model: IART) -> State:
    """A published state that a test may change."""
    return {name: tensor.clone() for name, tensor in to_published(model).items()}


def written(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_same(ours: IART, other: IART) -> None:
    assert ours.config == other.config
    expected = ours.state_dict()
    actual = other.state_dict()
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


# Round trips


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("branches", [1, 4])
def test_save_and_load(tmp_path: Path, suffix: str, branches: int) -> None:
    model = with_formula_weights(IART(replace(CONFIG, branches=branches)))
    path = tmp_path / f"w{suffix}"
    save_model(model, path)
    before = torch.random.get_rng_state()
    loaded = load_model(path, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(model, loaded)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad for p in read_model(path).parameters())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_loaded_model_computes_the_same(tmp_path: Path, model: IART) -> None:
    save_model(model, tmp_path / "w.pth")
    frames = torch.rand(1, 3, 3, 9, 10)
    with torch.inference_mode():
        expected = model(frames)
        assert torch.equal(load_model(tmp_path / "w.pth", "cpu")(frames), expected)
        half = load_model(tmp_path / "w.pth", "cpu", "bfloat16")(frames)
    assert half.dtype == torch.float32
    difference = (half - expected).abs().mean()
    assert 0 < difference < 0.1 * expected.std()


def test_full_configuration_in_the_published_layout(tmp_path: Path) -> None:
    with torch.no_grad():
        model = IART(IARTConfig())
    save_model(model, tmp_path / "full.pth")
    state = torch.load(tmp_path / "full.pth", weights_only=True)["params"]
    official = json.loads(OFFICIAL.read_text())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == official
    unused = unused_tensors(model.config)
    assert len(unused) == 24
    assert sum(state[name].numel() for name in unused) == 567_136
    assert not any(state[name].any() for name in unused)
    assert_same(model, read_model(tmp_path / "full.pth"))


def test_published_ours_published_is_bit_identical(tmp_path: Path, state: State) -> None:
    for name in unused_tensors(CONFIG):
        state[name].normal_()  # what the release leaves there; nothing reads it
    published, ours, again = (tmp_path / n for n in ("a.pth", "b.safetensors", "c.pth"))
    written({"params": state}, published)
    convert(published, ours)
    convert(ours, again)
    back = torch.load(again, weights_only=True)["params"]
    assert back.keys() == state.keys()
    for name in state.keys() - unused_tensors(CONFIG):
        assert back[name].dtype == state[name].dtype
        assert torch.equal(back[name], state[name]), name
    assert weights_hash(read_model(published)) == weights_hash(read_model(ours))


@pytest.mark.parametrize("window", [1, 2, 5, 8])
def test_configuration_is_read_off_the_shapes(tmp_path: Path, window: int) -> None:
    config = replace(
        CONFIG, window=(3, window, window), depths=(2,), heads=(4,), flow_levels=1, branches=2
    )
    save_model(IART(config), tmp_path / "w.pth")
    assert read_model(tmp_path / "w.pth").config == config


@pytest.mark.parametrize("key", [None, "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_kinds_of_published_files(
    tmp_path: Path, model: IART, state: State, key: str | None, prefix: str
) -> None:
    named = {prefix + name: tensor for name, tensor in state.items()}
    content = named if key is None else {key: named, "epoch": 3}
    assert_same(model, read_model(written(content, tmp_path / "w.pth")))


@pytest.mark.parametrize("texts", [None, {"format": "pt"}])
def test_names_tell_the_layout_and_not_the_container(
    tmp_path: Path, model: IART, state: State, texts: dict[str, str] | None
) -> None:
    published = tmp_path / "published.safetensors"
    published.write_bytes(safetensors.torch.save(state, texts))
    assert_same(model, read_model(published))
    plain = tmp_path / "state.safetensors"
    plain.write_bytes(safetensors.torch.save(model.state_dict(), texts))
    assert_same(model, read_model(plain))
    assert_same(model, read_model(written(model.state_dict(), tmp_path / "state.pth")))
    more = {**model.state_dict(), "branches.extra": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unknown: branches\.extra"):
        read_model(written(more, tmp_path / "more.pth"))


def test_smoothed_weights_are_preferred(tmp_path: Path, model: IART, state: State) -> None:
    raw = {n: t + 1 if n.startswith("conv_first.") else t for n, t in state.items()}
    path = written({"params": raw, "params_ema": state}, tmp_path / "w.pth")
    assert_same(model, read_model(path))
    assert_same(model, read_model(path, key="params_ema"))
    difference = load_model(path, "cpu", key="params").extract.weight - model.extract.weight
    torch.testing.assert_close(difference.detach(), torch.ones_like(difference))
    with pytest.raises(WeightsError, match=r"no 'best' \(found: params, params_ema\)"):
        read_model(path, key="best")


def test_unused_tensors_and_constants_may_be_absent(
    tmp_path: Path, model: IART, state: State
) -> None:
    parameters = {weights.published_name(name) for name, _ in model.named_parameters()}
    state = {name: tensor for name, tensor in state.items() if name in parameters}
    assert_same(model, read_model(written(state, tmp_path / "w.pth")))


def test_half_precision_on_disk(tmp_path: Path, model: IART) -> None:
    save_model(model, tmp_path / "half.safetensors", dtype="float16")
    save_model(model, tmp_path / "single.safetensors")
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "single")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = read_model(tmp_path / "half.safetensors")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].half().float()), name
    convert(tmp_path / "half.safetensors", tmp_path / "half.pth", dtype="bfloat16")
    assert read_model(tmp_path / "half.pth").extract.weight.dtype == torch.float32


def test_metadata(tmp_path: Path, model: IART) -> None:
    facts = {"steps": "1000", "licence": "MIT"}
    save_model(model, tmp_path / "a.safetensors", metadata=facts)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_metadata(tmp_path / "b.safetensors") == facts
    convert(tmp_path / "a.safetensors", tmp_path / "b.pth")
    assert read_metadata(tmp_path / "b.pth") == {}
    with pytest.raises(OptionsError, match="config"):
        save_model(model, tmp_path / "c.safetensors", metadata={"config": "{}"})


def test_any_window_in_ours_square_ones_in_the_published_layout(tmp_path: Path) -> None:
    model = IART(replace(CONFIG, window=(3, 2, 4), drop_path=0.0))
    save_model(model, tmp_path / "w.safetensors")
    assert_same(model, read_model(tmp_path / "w.safetensors"))
    with pytest.raises(WeightsError, match="2×4"):
        save_model(model, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


# Names


def test_bicubic_is_a_model() -> None:
    assert isinstance(load_model("bicubic", "cpu"), Bicubic)


def test_shipped_names(tmp_path: Path, model: IART, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    save_model(model, assets / "small.safetensors")
    monkeypatch.setattr("iart.files.shipped.resources.files", lambda package: tmp_path)
    assert weights.model_names() == ["bicubic", "small"]
    assert_same(model, load_model("small", "cpu"))
    convert("small", tmp_path / "small.pth")
    with pytest.raises(WeightsError, match=r"unknown model 'tiny' \(available: bicubic, small\)"):
        load_model("tiny", "cpu")


@pytest.mark.parametrize("name", ["nowhere/w", "w.pth", Path("w.safetensors")])
def test_missing_file(tmp_path: Path, name: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="there is no such file"):
        load_model(name, "cpu")


def test_devices_and_precisions_are_checked_first() -> None:
    with pytest.raises(DeviceError):
        load_model("missing.pth", "abacus")
    with pytest.raises(DeviceError):
        load_model("missing.pth", "cpu", "int4")


# Tensors that do not fit


def drop(*starts: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name in [name for name in state if name.startswith(starts)]:
            del state[name]

    return change


def put(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    return lambda state: state.update({name: change(state[name])})


BREAKS: dict[str, tuple[Callable[[State], None], str]] = {
    "missing": (drop("conv_hr.weight"), "missing: conv_hr.weight"),
    "missing, shared sizes": (drop("conv_first.bias"), "missing: conv_first.bias"),
    "missing table": (drop(TABLE), f"missing: {TABLE}"),
    "no flow": (drop("spynet."), "spynet are missing"),
    "no head": (drop("conv_hr", "conv_last"), "conv_hr.bias is missing"),
    "no output": (drop("conv_last"), "missing: conv_last.weight, conv_last.bias"),
    "unknown": (lambda s: s.update(extra=torch.zeros(1)), "unknown: extra"),
    "transposed": (put("implicit_warp.q.weight", lambda t: t[:5]), r"\[5, 24\] instead of"),
    "wider": (put("conv_first.weight", lambda t: t.repeat(2, 1, 1, 1)), "shape: conv_first.weight"),
    "bias": (put("upconv1.bias", lambda t: t[:-1]), "shape: upconv1.bias"),
    "head": (
        put("conv_before_upsample.bias", lambda t: t[:-1]),
        "shape: conv_before_upsample.bias",
    ),
    "one table": (put(TABLE, lambda t: t[:-1]), f"shape: {TABLE}"),
    "heads of one": (put(TABLE, lambda t: t[:, :2]), f"shape: {TABLE}"),
    "scalar": (put("conv_last.bias", lambda t: t[0]), r"conv_last.bias \[\] instead of \[3\]"),
    "NaN": (put("upconv2.bias", lambda t: t * float("nan")), "not finite: upconv2.bias"),
    "infinite": (put("conv_hr.bias", lambda t: t / 0), "not finite: conv_hr.bias"),
    "too large": (put("conv_hr.bias", lambda t: t.double() * 1e300), "not finite: conv_hr.bias"),
    "integers": (put("conv_hr.bias", lambda t: t.long()), r"conv_hr.bias \(int64\)"),
    "complex": (
        put("conv_hr.bias", lambda t: t.to(torch.complex64)),
        "not plain numbers: conv_hr.bias",
    ),
    "sparse": (put("conv_hr.bias", lambda t: t.to_sparse()), "not plain numbers: conv_hr.bias"),
    "constant": (put("spynet.mean", lambda t: t * 0 + 0.5), "spynet.mean is not the constant"),
    "NaN constant": (
        put("spynet.std", lambda t: t * float("nan")),
        "spynet.std is not the constant",
    ),
    "encoding": (put("implicit_warp.position_bias", lambda t: t.flip(1)), "position_bias is not"),
    "cells": (put("implicit_warp.window_idx_offset", lambda t: t.flip(1)), "idx_offset is not"),
    "index": (
        put(TABLE.replace("bias_table", "index"), lambda t: t.T.contiguous()),
        "relative_position_index is not",
    ),
    "constant's shape": (
        put("spynet.mean", lambda t: t.flatten()),
        r"\[3\], expected \[1, 3, 1, 1\]",
    ),
}


@pytest.mark.parametrize("change", BREAKS)
def test_published_state_that_does_not_fit(tmp_path: Path, state: State, change: str) -> None:
    alter, message = BREAKS[change]
    alter(state)
    path = written({"params": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(path, "cpu")
    assert str(caught.value).startswith(f"cannot use '{path}': ")
    assert "\n" not in str(caught.value)


def test_errors_list_a_few_names_and_a_count(tmp_path: Path, state: State) -> None:
    state = {name: t for name, t in state.items() if "forward_2" not in name or ".norm1." in name}
    with pytest.raises(WeightsError, match=r"missing: (\S+, ){2}\S+ and \d+ more$"):
        read_model(written(state, tmp_path / "w.pth"))


def test_constants_may_be_rounded(tmp_path: Path, model: IART, state: State) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    read_model(written(half, tmp_path / "w.pth"))
    state["implicit_warp.window_idx_offset"] = state["implicit_warp.window_idx_offset"].double()
    state["implicit_warp.position_bias"] += 1e-4  # sines of other versions
    assert_same(model, read_model(written(state, tmp_path / "v.pth")))


# Files that are not weights of IART


def test_another_architecture(tmp_path: Path) -> None:
    names = (
        "spynet.basic_module.0.basic_module.0.weight",
        "feat_extract.main.0.weight",
        "deform_align.backward_1.weight",
        "backbone.backward_1.main.0.weight",
        "conv_hr.weight",
        "conv_last.weight",
    )
    path = written({"params": {name: torch.ones(4, 4, 3, 3) for name in names}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not weights of IART \(it looks like BasicVSR\+\+\)"):
        load_model(path, "cpu")


class Trap:
    """Unpickled naively, this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, state: State, legacy: bool) -> None:
    path, trap = tmp_path / "w.pth", tmp_path / "trapped"
    torch.save({"params": state, "x": Trap(trap)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"more than tensors \((posix|nt)\.mkdir\)"):
        load_model(path, "cpu")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (b"\n <html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"Dear reader, these are no weights.", "neither safetensors nor"),
        (b"{}", "neither safetensors nor"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"\x80\x02}q\x00.", "truncated or damaged"),
        (b"\x02\0\0\0\0\0\0\0{}", "not written by iart"),
        (b"\xff\0\0\0\0\0\0\0{}", "truncated or damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_not_a_checkpoint(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(path, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no weights but an empty dict"),
        ([1, 2], "no weights but a list"),
        (torch.zeros(3), "no weights but a Tensor"),
        ({"epoch": 3, "params_list": []}, "'epoch' is not a tensor but a int"),
        ({"params": {}}, "not weights of IART: found nothing"),
        ({1: torch.zeros(1)}, "'1' is not a tensor"),
    ],
)
def test_pickles_without_weights(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_model(written(content, tmp_path / "w.pth"))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it is a folder"):
        load_model(tmp_path, "cpu")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_anywhere(tmp_path: Path, model: IART, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_model(model, path)
    content = path.read_bytes()
    for length in (1, 8, 9, 60, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            load_model(path, "cpu")


# Our layout


def test_our_file_with_other_tensors(tmp_path: Path, model: IART) -> None:
    path = tmp_path / "w.safetensors"
    save_model(model, path)
    metadata = {"format": "iart", "format_version": "1"}
    metadata["config"] = json.dumps(asdict(model.config))
    whole = safetensors.torch.load(path.read_bytes())
    for change, message in (
        ({"extra": torch.zeros(1)}, "unknown: extra"),
        ({"extract.bias": torch.zeros(7)}, r"shape: extract.bias \[7\] instead of \[24\]"),
        ({"extract.bias": torch.zeros(24, dtype=torch.int8)}, r"extract.bias \(int8\)"),
        ({"extract.bias": torch.full((24,), torch.nan)}, "not finite: extract.bias"),
    ):
        path.write_bytes(safetensors.torch.save({**whole, **change}, metadata))
        with pytest.raises(WeightsError, match=message):
            load_model(path, "cpu")
    del whole["extract.bias"]
    path.write_bytes(safetensors.torch.save(whole, metadata))
    with pytest.raises(WeightsError, match=r"missing: extract\.bias"):
        load_model(path, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 25}, "divisible"),
        ({"channels": 24 * 2**30}, "sizes cannot be"),
        ({"channels": True}, "channels = True"),
        ({"channels": "24"}, "channels = '24'"),
        ({"depths": [10**9, 1]}, "sizes cannot be"),
        ({"depths": [1]}, "equally long"),
        ({"flow_levels": 10**12}, "sizes cannot be"),
        ({"window": [3, 10**6, 10**6]}, "sizes cannot be"),
        ({"window": [3, 4]}, "window"),
        ({"window": [3, 4, -4]}, r"window = \(3, 4, -4\)"),
        ({"branches": 5}, "branches"),
        ({"drop_path": 1.5}, "drop_path = 1.5"),
        ({"colour": 1}, "colour; expected channels"),
    ],
)
def test_configurations_that_cannot_be(
    tmp_path: Path, model: IART, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    config = {**asdict(model.config), **change}
    metadata = {"format": "iart", "format_version": "1", "config": json.dumps(config)}
    path.write_bytes(safetensors.torch.save(model.state_dict(), metadata))
    with pytest.raises(WeightsError, match=message):
        load_model(path, "cpu")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "not written by iart"),
        ({"format": "pt"}, "not written by iart"),
        ({"format": "iart", "format_version": "2", "config": "{}"}, "format version 2"),
        ({"format": "iart", "format_version": "1", "config": "{"}, "not JSON"),
        ({"format": "iart", "format_version": "1", "config": "[]"}, "has list"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata))
    with pytest.raises(WeightsError, match=message):
        load_model(path, "cpu")


def test_a_key_is_for_published_files(tmp_path: Path, model: IART) -> None:
    save_model(model, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="Leave key out"):
        load_model(tmp_path / "w.safetensors", "cpu", key="params")


# Writing


def test_nothing_is_overwritten_unasked(tmp_path: Path, model: IART) -> None:
    save_model(model, tmp_path / "a.pth")
    target = tmp_path / "b.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        convert(tmp_path / "a.pth", target)
    assert target.read_bytes() == b"precious"
    convert(tmp_path / "a.pth", target, overwrite=True)
    assert_same(model, read_model(target))


def test_a_blend_lies_between_two_models(tmp_path: Path, model: IART) -> None:
    other = deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    first, second = tmp_path / "first.pth", tmp_path / "second.safetensors"
    save_model(model, first)
    save_model(other, second)
    for share, factor in ((0.0, 1.0), (0.25, 1.5), (1.0, 3.0)):
        target = tmp_path / f"{share}.safetensors"
        blend(first, second, share, target)
        for mine, mixed in zip(model.parameters(), read_model(target).parameters(), strict=True):
            torch.testing.assert_close(mixed, factor * mine)
    assert_same(read_model(tmp_path / "1.0.safetensors"), other)
    save_model(IART(replace(CONFIG, head_channels=4)), second)
    with pytest.raises(WeightsError, match="head_channels 8 and 4"):
        blend(first, second, 0.5, tmp_path / "out.pth")
    with pytest.raises(OutputError, match="exists"):
        blend(first, first, 0.5, tmp_path / "1.0.safetensors")
    with pytest.raises(OptionsError, match="0 to 1"):
        blend(first, first, 1.5, tmp_path / "out.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_broken_model_is_not_written(tmp_path: Path, suffix: str) -> None:
    model = IART(CONFIG)
    path = tmp_path / f"w{suffix}"
    save_model(model, path)
    good = path.read_bytes()
    with torch.no_grad():
        model.head.last.weight[0] = 1e6
    with pytest.raises(WeightsError, match="not finite"):
        save_model(model, path, dtype="float16")
    with torch.no_grad():
        model.head.last.weight[0] = torch.nan
    with pytest.raises(WeightsError, match="not finite"):
        save_model(model, path)
    assert path.read_bytes() == good
    assert len(list(tmp_path.iterdir())) == 1


compiled: Callable[[nn.Module], nn.Module] = partial(torch.compile, backend="eager")  # pyright: ignore[reportAssignmentType]


def test_a_distributed_network_is_written_as_itself(tmp_path: Path, model: IART) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)  # pyright: ignore[reportPrivateImportUsage]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        save_model(DistributedDataParallel(deepcopy(model)), tmp_path / "w.safetensors")
    finally:
        torch.distributed.destroy_process_group()
    assert_same(model, read_model(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        nn.DataParallel,
        AveragedModel,
        lambda network: nn.DataParallel(compiled(network)),
    ],
    ids=["compiled", "parallel", "averaged", "both"],
)
def test_a_wrapped_network_is_written_as_itself(
    tmp_path: Path, model: IART, suffix: str, wrap: Callable[[IART], nn.Module]
) -> None:
    path = tmp_path / f"w{suffix}"
    save_model(wrap(model), path)
    assert_same(model, read_model(path))


def test_a_network_with_a_compiled_part_is_written_as_itself(tmp_path: Path, model: IART) -> None:
    partly = deepcopy(model)
    partly.flow = compiled(partly.flow)  # pyright: ignore[reportAttributeAccessIssue]
    assert any("_orig_mod" in name for name, _ in partly.named_parameters())
    save_model(partly, tmp_path / "w.safetensors")
    assert_same(model, read_model(tmp_path / "w.safetensors"))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_what_nothing_would_read_does_not_replace_a_good_file(tmp_path: Path, model: IART) -> None:
    path = tmp_path / "w.safetensors"
    save_model(model, path)
    good = path.read_bytes()
    changed = deepcopy(model)
    weight_norm(changed.head.last)  # two tensors in place of one
    with pytest.raises(WeightsError, match=r"would not be readable: missing: head\.last\.weight;"):
        save_model(changed, path)
    with pytest.raises(OptionsError, match="writes IART networks, not Bicubic"):
        save_model(Bicubic(), path)
    assert path.read_bytes() == good
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16])
def test_other_default_types_change_nothing(
    tmp_path: Path, model: IART, default: torch.dtype
) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for name in ("w.safetensors", "w.pth"):
            save_model(model, tmp_path / name)
            loaded = load_model(tmp_path / name, "cpu")
            assert_same(model, loaded)
            for (_, mine), (_, theirs) in zip(
                model.named_buffers(), loaded.named_buffers(), strict=True
            ):
                assert mine.equal(theirs)
                assert mine.dtype == theirs.dtype
    finally:
        torch.set_default_dtype(before)


def test_reading_draws_no_random_numbers(tmp_path: Path, model: IART) -> None:
    """Not even to put the state back after: threads that draw meanwhile would see it."""
    path = tmp_path / "w.safetensors"
    save_model(model, path)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seen: list[Tensor] = []

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if event == "return" and frame.f_code.co_name == "__init__":
            seen.append(torch.get_rng_state())

    before = torch.get_rng_state()
    sys.setprofile(trace)
    try:
        read_model(path)
    finally:
        sys.setprofile(None)
    assert len(seen) > 100
    assert all(state.equal(before) for state in seen)
    assert torch.rand(4).equal(expected)


def test_interrupted_writing_leaves_nothing(
    tmp_path: Path, model: IART, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "w.pth"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left on the disk"):
        save_model(model, path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_where_and_how_weights_cannot_be_written(tmp_path: Path, model: IART) -> None:
    with pytest.raises(OptionsError, match="suffix"):
        save_model(model, tmp_path / "w.onnx")
    with pytest.raises(OptionsError, match=r"Use \.pth"):
        save_model(model, tmp_path / "w.safetensors", layout="published")
    with pytest.raises(OptionsError, match="dtype"):
        save_model(model, tmp_path / "w.pth", dtype=torch.int8)
    with pytest.raises(OutputError, match="does not exist"):
        save_model(model, tmp_path / "nowhere" / "w.pth")


def test_a_name_that_no_file_can_have():
    with pytest.raises(WeightsError, match="unknown model"):
        load_model("n" * 300)


def test_bicubic_has_nothing_to_convert(tmp_path: Path):
    with pytest.raises(WeightsError, match="has no weights"):
        convert("bicubic", tmp_path / "out.pth")
