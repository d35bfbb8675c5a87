"""Extra metrics: what this machine cannot compute is one line, never a crash."""

import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import MissingExtraError, OptionsError
from iart.evaluate.metrics.extra import extra_metrics
from iart.evaluate.metrics.perceptual import load_perceptual

CPU = torch.device("cpu")


def frames(seed: int, count: int, height: int = 60, width: int = 82) -> UInt8[Tensor, "t 3 h w"]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(60, 180, (count, 3, 8, 8), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, size=(height, width)).to(torch.uint8)


def test_unknown_names_list_the_known_ones() -> None:
    known = "tof, flicker, blockiness, sharpness, lpips, dists, tlp"
    with pytest.raises(OptionsError, match=rf"'psnr' \(there are {known}\)"):
        extra_metrics(["psnr"], CPU)
    with pytest.raises(OptionsError, match="lpips, dists"):
        load_perceptual("tof", CPU)


@pytest.mark.parametrize(("name", "module"), [("lpips", "lpips"), ("dists", "DISTS_pytorch")])
def test_a_library_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    extra = extra_metrics([name], CPU)
    assert extra.names == ()
    (note,) = extra.notes
    assert f"no module '{module}'" in note
    assert "pip install" in note


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import torchvision_of_nobody", "no module 'torchvision_of_nobody'"),
        ("raise OSError('no network\\nat all')", r"OSError: no network at all"),
        ("", "AttributeError"),
    ],
)
def test_a_library_that_does_not_load_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    (tmp_path / "lpips.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)  # afterwards as it was before
    del sys.modules["lpips"]
    with pytest.raises(MissingExtraError, match=says) as error:
        load_perceptual("lpips", CPU)
    assert "\n" not in str(error.value)


def test_a_metric_that_fails_on_the_way_is_a_note_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lpips.py").write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__()\n"
        "        self.left = 2\n"
        "    def forward(self, result, gt):\n"
        "        self.left -= 1\n"
        "        if self.left < 0:\n"
        "            raise RuntimeError('frames are too small\\nfor it')\n"
        "        return (result - gt).abs().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)  # afterwards as it was before
    del sys.modules["lpips"]
    extra = extra_metrics(["tof", "lpips", "tof"], CPU)
    assert (extra.names, extra.notes) == (("tof", "lpips"), ())
    clip = extra.clip()
    for frame in frames(3, 4):
        clip.add(frame, frame)
    assert clip.frames == [{"lpips": 0.0}, {"lpips": 0.0}, {}, {}]
    assert clip.over_time("tof") == 0
    assert clip.notes == ("lpips is not computed: frames are too small",)
