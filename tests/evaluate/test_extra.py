"""Extra metrics: what this machine cannot compute is one line, never a crash."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import DataError, MissingExtraError, OptionsError
from iart.evaluate.extra import extra_metrics
from iart.evaluate.perceptual import load_perceptual
from iart.evaluate.vmaf import GT, RESULT, VmafClip, VmafProgram, find_vmaf

CPU = torch.device("cpu")


def frames(seed: int, count: int, height: int = 60, width: int = 82) -> UInt8[Tensor, "t 3 h w"]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(60, 180, (count, 3, 8, 8), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, size=(height, width)).to(torch.uint8)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(OptionsError, match=r"'psnr' \(there are tof, lpips, dists, vmaf\)"):
        extra_metrics(["psnr"], CPU)
    with pytest.raises(OptionsError, match="lpips, dists"):
        load_perceptual("vmaf", CPU)


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


def test_no_vmaf_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="there is no 'vmaf' or 'ffmpeg'"):
        find_vmaf()
    assert extra_metrics(["vmaf", "tof"], CPU).names == ("tof",)


def test_an_ffmpeg_without_libvmaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").symlink_to(shutil.which("true") or "/bin/true")  # lists no filters
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="without libvmaf"):
        find_vmaf()


def test_files_for_vmaf_hold_luma_in_420(tmp_path: Path) -> None:
    result, gt = frames(1, 2, 5, 7), frames(2, 2, 5, 7)
    copy = VmafProgram(Path(shutil.which("cp") or "/bin/cp"), (RESULT, GT, str(tmp_path)))
    clip = VmafClip(copy)
    for pair in zip(result, gt, strict=True):
        clip.add(*pair)
    with pytest.raises(DataError, match="cp' failed: exit code 0"):  # it scores nothing
        clip.scores()
    clip.close()
    written = (tmp_path / RESULT).read_bytes()
    header, first, second = written.split(b"FRAME\n")
    assert header == b"YUV4MPEG2 W7 H5 F25:1 Ip A1:1 C420jpeg\n"
    assert first[35:] == second[35:] == bytes([128]) * (2 * 3 * 4)
    red, green, blue = result[1, :, 4, 6].tolist()
    expected = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    assert abs(second[34] - expected) <= 0.5
    assert (tmp_path / GT).stat().st_size == len(written)


def test_a_program_that_fails_is_a_note_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vmaf").symlink_to(shutil.which("false") or "/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path))
    extra = extra_metrics(["tof", "vmaf"], CPU)
    assert (extra.names, extra.notes) == (("tof", "vmaf"), ())
    with extra.clip() as scorer:
        for frame in frames(3, 3):
            scorer.add(frame, frame)
        found = scorer.finish()
    assert found.frames == ({}, {}, {})
    assert found.temporal == 0
    (note,) = found.notes
    assert note.startswith("vmaf is not computed: ")
    assert "failed: exit code 1" in note


@pytest.mark.slow
def test_vmaf_of_equal_frames_is_high_and_of_others_lower() -> None:
    try:
        find_vmaf()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    gt = frames(4, 3, 288, 352)
    noisy = (gt.float() + 40 * torch.randn(gt.shape)).clamp(0, 255).to(torch.uint8)
    for result, low, high in ((gt, 90, 100), (noisy, 0, 80)):
        with extra_metrics(["vmaf"], CPU).clip() as scorer:
            for pair in zip(result, gt, strict=True):
                scorer.add(*pair)
            found = scorer.finish()
        assert found.notes == ()
        assert all(low <= values["vmaf"] <= high for values in found.frames)
