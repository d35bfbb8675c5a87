"""Validation: scores of whole clips, the best weights, pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from iart.model import IART
from iart.pictures.degrade import to_uint8
from iart.pictures.scores import psnr, ssim
from iart.train import validate as module
from iart.train.validate import main_score
from iart.upscaling.clip import upscale
from iart.weights import read_model
from tests.train.tiny import SCENES, folder_of, make_pairs, make_scenes, options, run, state_of

HELD_OUT: dict[str, Any] = {
    "type": "VideoRecurrentTestDataset", "dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq"
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("folder")


def validations() -> list[dict[str, Any]]:
    lines = (folder_of() / "log.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [entry for entry in found if any(name.startswith("val/") for name in entry)]


def read(part: str, clip: str) -> torch.Tensor:
    paths = sorted((Path("pairs") / part / clip).iterdir())
    return torch.from_numpy(np.stack([np.asarray(Image.open(p)) for p in paths])).permute(
        0, 3, 1, 2
    )


def test_scores_are_those_of_the_averaged_weights():
    metrics = {
        "y": {"type": "calculate_psnr", "test_y_channel": True, "crop_border": 2},
        "ssim": {"type": "calculate_ssim"},
    }
    run(options(datasets__val=HELD_OUT, val={"val_freq": 2, "metrics": metrics}))
    first, last = validations()
    assert (first["step"], last["step"]) == (2, 4)
    model = read_model(folder_of() / "models" / "net_g_4.safetensors").eval()
    expected: dict[str, list[float]] = {"y": [], "ssim": []}
    for clip in ("001", "002"):
        large = to_uint8(upscale(read("lq", clip).float() / 255, model, window=4, overlap=0))
        for result, truth in zip(large, read("gt", clip), strict=True):
            expected["y"].append(psnr(result, truth, crop=2, luma=True))
            expected["ssim"].append(ssim(result, truth))
    assert last["val/val/y"] == pytest.approx(np.mean(expected["y"]), abs=1e-3)
    assert last["val/val/ssim"] == pytest.approx(np.mean(expected["ssim"]), abs=1e-3)


def test_pictures_of_the_middle_frame_and_on_request_all():
    run(options(datasets__val=HELD_OUT, val__save_img=True, train__total_iter=1))
    pictures = folder_of() / "visualization" / "val"
    compared = np.asarray(Image.open(pictures / "002.png"))
    assert compared.shape == (64, 3 * 64, 3)
    assert (compared[:, 128:] == read("gt", "002")[2].permute(1, 2, 0).numpy()).all()
    frames = sorted((pictures / "002").iterdir())
    assert [path.name for path in frames] == [f"{i:08d}.png" for i in range(4)]
    assert (np.asarray(Image.open(frames[2])) == compared[:, 64:128]).all()


def test_the_best_weights_are_kept(monkeypatch: pytest.MonkeyPatch):
    scores = iter([30.0, 32.0, 31.0])
    monkeypatch.setattr(module, "_mean_score", lambda *_: next(scores))
    held_out = {**HELD_OUT, "meta_info_file": "one.txt"}
    Path("one.txt").write_text("001 4 (64,64,3)\n")
    chosen = options(
        datasets__val=held_out, train__total_iter=3, logger__save_checkpoint_freq=1,
        val={"val_freq": 1, "metrics": {"psnr": {"type": "calculate_psnr"}}},
    )  # fmt: skip
    run(chosen)
    best, second = (
        read_model(folder_of() / "models" / f"net_g_{label}.safetensors").state_dict()
        for label in ("best", "2")
    )
    assert all(best[name].equal(second[name]) for name in best)
    assert state_of()["best"] == 32.0


def test_scenes_are_scored_in_three_ways(folder: Path):
    make_scenes(folder / "scenes")
    run(options(datasets__val={**SCENES, "reduce": [2, 2]}, train__total_iter=1))
    (entry,) = validations()
    names = {f"val/val/psnr{suffix}" for suffix in ("", "_frame_by_frame", "_bicubic")}
    assert entry.keys() == {"step", *names}
    assert all(10 < entry[name] < 60 for name in names)


def test_no_validation_on_request():
    run(options(datasets__val=HELD_OUT, val=None, train__total_iter=1))
    assert validations() == []


def test_a_clip_too_large_for_the_memory_is_shown_in_windows(monkeypatch: pytest.MonkeyPatch):
    make_pairs(Path("long"), frames=6)
    held_out = {**HELD_OUT, "dataroot_gt": "long/gt", "dataroot_lq": "long/lq"}
    lengths: list[int] = []
    forward = IART._advance

    def hungry(
        model: IART, frames: Tensor, *arguments: Any, **keywords: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not torch.is_grad_enabled():
            lengths.append(frames.shape[1])
            if frames.shape[1] > 4:
                raise torch.OutOfMemoryError
        return forward(model, frames, *arguments, **keywords)

    monkeypatch.setattr(IART, "_advance", hungry)
    run(options(datasets__val=held_out, train__total_iter=1))
    assert lengths[0] == 6
    assert 4 in lengths
    assert validations()


def test_the_main_score_is_the_mean_of_the_first_over_sets():
    scores = {"a/psnr": 30.0, "a/ssim": 0.8, "b/psnr": 20.0, "b/ssim": 0.9}
    assert main_score(scores) == 25.0
