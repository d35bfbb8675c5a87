"""What training has to reach, on runs of some minutes."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iart.data.degrade import degrade_bi, to_uint8
from iart.data.lmdb_write import make_lmdb
from iart.evaluate.metrics import psnr
from iart.inference.upscale import upscale
from iart.resize import imresize
from iart.train.options import Options, read_options
from iart.weights import load_model
from tests.train.tiny import folder_of, make_pairs, run

OPTIONS = Path(__file__).parents[2] / "options"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_thirty_steps_of_the_published_recipe():
    """The published network and recipe; of the file only paths and sizes are changed."""
    make_pairs(Path("pairs"), clips=8, frames=6, side=96)
    for part in ("gt", "lq"):
        make_lmdb(Path("pairs") / part, Path(f"{part}.lmdb"))
    Path("clips.txt").write_text("".join(f"{i:03d} 6 (96,96,3)\n" for i in range(1, 9)))
    overrides = (
        "datasets.train.dataroot_gt=gt.lmdb", "datasets.train.dataroot_lq=lq.lmdb",
        "datasets.train.meta_info_file=clips.txt", "datasets.val.dataroot_gt=pairs/gt",
        "datasets.val.dataroot_lq=pairs/lq", "datasets.train.gt_size=64",
        "datasets.train.num_frame=4", "network_g.spynet_path=null", "train.total_iter=30",
        "val=null", "logger.use_tb_logger=false",
    )  # fmt: skip
    chosen = read_options(OPTIONS / "IART_REDS_N16_600K.yml", overrides)
    lines = run(chosen)
    losses = [float(line.split()[5]) for line in lines if line.startswith("step ")]
    assert len(losses) == 30
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    path = folder_of("IART_REDS_N16_600K") / "models" / "net_g_30.pth"
    model = load_model(path, device="cpu")
    assert model.config == chosen.network_g.config()
    file = torch.load(path, weights_only=True)
    flow = "spynet.basic_module.0.basic_module.0.weight"
    assert file["params"][flow].equal(file["params_ema"][flow])  # fixed for 5000 steps


def light(**sections: Any) -> Options:
    """The light configuration with other clips and another recipe."""
    network = yaml.safe_load((OPTIONS / "IART_light.yml").read_text())["network_g"]
    return Options.model_validate({"network_g": network, **sections})


def demo_frames() -> list[np.ndarray]:
    """Of the clip that ships: 50 of 640×360."""
    demo = resources.files("iart") / "assets" / "demo.mp4"
    with resources.as_file(demo) as path, av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.slow
def test_data_costs_little():
    """With the loader a step takes at most 1.15 × what it takes on batches in memory."""
    Path("scenes/demo").mkdir(parents=True)
    for i, frame in enumerate(demo_frames()):
        Image.fromarray(frame).save(f"scenes/demo/{i:02d}.png")
    overrides = (
        "datasets.train.dataroot_gt=scenes", "datasets.train.exclude=[]", "val=null",
        "train.flow=null", "train.total_iter=12", "logger.print_freq=12", "num_threads=1",
    )  # fmt: skip
    run(read_options(OPTIONS / "IART_light.yml", overrides))
    log = (folder_of("IART_light") / "log.jsonl").read_text()
    assert json.loads(log)["data_wait_share"] < 1 - 1 / 1.15


@pytest.mark.slow
def test_the_light_network_learns_a_clip_by_heart():
    """From random weights to 3 dB over bicubic on 8 frames of the demo clip: some minutes."""
    frames = demo_frames()
    truth = torch.from_numpy(np.stack(frames[20:28])).permute(0, 3, 1, 2)[..., 120:248, 256:384]
    low = degrade_bi(truth)
    for part, clip in (("gt", truth), ("lq", low)):
        (Path("clip") / part / "demo").mkdir(parents=True)
        for i, frame in enumerate(clip):
            picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
            picture.save(Path("clip") / part / "demo" / f"{i:08d}.png")
    section = {
        "type": "DVDRecurrentDataset", "dataroot_gt": "clip/gt", "dataroot_lq": "clip/lq",
        "num_frame": 8, "gt_size": 128, "use_hflip": False, "use_rot": False,
    }  # fmt: skip
    recipe = {
        "total_iter": 300, "ema_decay": 0.9, "flow_lr_mul": 0.0,
        "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99]},
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [300]},
        "pixel_opt": {"type": "CharbonnierLoss"},
    }  # fmt: skip
    run(light(name="by_heart", datasets={"train": section}, train=recipe))
    model = load_model(folder_of("by_heart") / "models" / "net_g_300.safetensors", device="cpu")
    large = upscale(low.float() / 255, model, window=8, overlap=0)
    bicubic = imresize(low.float() / 255, 4.0)
    scores = [
        np.mean([psnr(a, b) for a, b in zip(to_uint8(result), truth, strict=True)])
        for result in (large, bicubic)
    ]
    assert scores[0] > scores[1] + 3
