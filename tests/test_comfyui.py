"""The nodes for ComfyUI, beside a stand-in for the three modules of it that they use.

ComfyUI itself needs torchvision and does not run here. The stand-in is called as ComfyUI is.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from iart import Frame, load_model, save_model, upscale_frames
from iart.model import IART
from tests.upscaling.test_clip import TINY

NODES = Path(__file__).parents[1] / "comfyui-iart"


class Interrupted(BaseException):
    """As newer versions of ComfyUI raise; older ones have an Exception."""


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The stand-in; notes what it is told."""
    told = SimpleNamespace(progress=[], emptied=0, interrupt_at=None, looks=0)

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None) -> None:
            told.progress.append((value, total or self.total))

    def look() -> None:
        told.looks += 1
        if told.interrupt_at == told.looks:
            raise Interrupted

    def empty() -> None:
        told.emptied += 1

    modules = {
        name: ModuleType(name) for name in ("comfy", "comfy.utils", "comfy.model_management")
    }
    utils, management = modules["comfy.utils"], modules["comfy.model_management"]
    modules["comfy"].__dict__.update(utils=utils, model_management=management)
    utils.__dict__["ProgressBar"] = ProgressBar
    management.__dict__.update(
        throw_exception_if_processing_interrupted=look,
        get_torch_device=lambda: torch.device("cpu"),
        intermediate_device=lambda: torch.device("cpu"),
        soft_empty_cache=empty,
    )
    folders: dict[str, Path] = {}
    paths = ModuleType("folder_paths")
    paths.__dict__.update(
        models_dir=str(tmp_path),
        add_model_folder_path=lambda kind, path: folders.update({kind: Path(path)}),
        get_filename_list=lambda kind: sorted(p.name for p in folders[kind].glob("*")),
        get_full_path=lambda kind, name: str(folders[kind] / name),
    )
    for name, module in {**modules, "folder_paths": paths}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return told


@pytest.fixture
def nodes(comfy: SimpleNamespace) -> Iterator[ModuleType]:
    """Loaded by path, as ComfyUI does."""
    name = str(NODES).replace(".", "_x_")
    found = importlib.util.spec_from_file_location(name, NODES / "__init__.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    yield module
    for known in [known for known in sys.modules if known.startswith(name)]:
        del sys.modules[known]


def pictures(channels: int = 3) -> torch.Tensor:
    """Six pictures of two scenes."""
    torch.manual_seed(1)
    dark, bright = torch.rand(2, 1, 24, 48, channels)
    noise = 0.02 * torch.rand(6, 24, 48, channels)
    return torch.cat([0.3 * dark] * 3 + [0.6 + 0.3 * bright] * 3) + noise


def test_the_protocol_of_nodes(nodes: ModuleType):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(kind, kind.FUNCTION))
        assert isinstance(kind.RETURN_TYPES, tuple)
        assert kind.INPUT_TYPES()["required"]
    shown = json.loads((NODES / "workflow.json").read_text())["nodes"]
    for node in shown:
        kind = nodes.NODE_CLASS_MAPPINGS.get(node["type"])
        if kind is not None:
            inputs = kind.INPUT_TYPES()["required"]
            assert len(node["inputs"]) + len(node["widgets_values"]) == len(inputs)
            assert tuple(output["type"] for output in node["outputs"]) == kind.RETURN_TYPES


@pytest.mark.parametrize("channels", [3, 4])
def test_a_batch_is_what_upscale_frames_makes_of_it(
    nodes: ModuleType, comfy: SimpleNamespace, tmp_path: Path, channels: int
):
    torch.manual_seed(0)
    (tmp_path / "iart").mkdir()
    save_model(IART(TINY), tmp_path / "iart" / "tiny.safetensors")
    load, upscale = (kind() for kind in nodes.NODE_CLASS_MAPPINGS.values())
    names = load.INPUT_TYPES()["required"]["name"][0]
    assert {"light", "bicubic", "tiny.safetensors"} <= set(names)
    (model,) = load.load("tiny.safetensors", "float32")
    images = pictures(channels)
    (large,) = upscale.upscale(model, images, 4, 1, 32, True)
    frames = [
        Frame(image[..., :3].permute(2, 0, 1).contiguous(), index, Fraction(1, 25), 1, index == 3)
        for index, image in enumerate(images)
    ]
    reference = load_model(tmp_path / "iart" / "tiny.safetensors", "cpu")
    expected = upscale_frames(frames, reference, window=4, overlap=1, tile=32)
    for made, frame in zip(large, expected, strict=True):
        assert torch.equal(made[..., :3].permute(2, 0, 1), frame.data)
    assert large.shape == (6, 96, 192, channels)
    assert comfy.progress == [(count, 6) for count in range(1, 7)]
    assert comfy.emptied == 1


def test_an_interruption_frees_memory(nodes: ModuleType, comfy: SimpleNamespace):
    load, upscale = (kind() for kind in nodes.NODE_CLASS_MAPPINGS.values())
    (model,) = load.load("bicubic", "float32")
    comfy.interrupt_at = 8
    with pytest.raises(Interrupted):
        upscale.upscale(model, pictures(), 2, 0, 0, False)
    assert comfy.emptied == 1
