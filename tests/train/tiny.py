"""A tiny run on made clips, for the tests beside this file."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iart.pictures.degrade import degrade_bi
from iart.train.loop import train
from iart.train.options.run import TrainingOptions
from iart.train.step import Objective

NAME = "tiny"


class Sum(Objective):
    """All losses of a section `train` in one number."""

    def __call__(self, output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(self.terms(output, truth).values())).sum()


def picture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth blobs."""
    noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))


def make_scenes(root: Path, frames: int = 4) -> None:
    """Two scenes of 64×64: `root/one` and `root/two`."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        big = picture(rng, 96)
        for i in range(frames):
            crop = big[2 * i : 2 * i + 64, 3 * i : 3 * i + 64]
            Image.fromarray(crop).save(root / name / f"{i}.png")


def make_pairs(root: Path, clips: int = 2, frames: int = 4, side: int = 64) -> None:
    """Pairs of clips as REDS has them: `root/gt/001 …` and, a quarter of the size, `root/lq`."""
    rng = np.random.default_rng(1)
    for clip in range(1, clips + 1):
        big = picture(rng, side + 3 * frames)
        for part in ("gt", "lq"):
            (root / part / f"{clip:03d}").mkdir(parents=True)
        for i in range(frames):
            gt = np.ascontiguousarray(big[2 * i : 2 * i + side, 3 * i : 3 * i + side])
            Image.fromarray(gt).save(root / "gt" / f"{clip:03d}" / f"{i:08d}.png")
            lq = degrade_bi(torch.from_numpy(gt).permute(2, 0, 1)).permute(1, 2, 0).numpy()
            Image.fromarray(lq).save(root / "lq" / f"{clip:03d}" / f"{i:08d}.png")


PAIRS: dict[str, Any] = {
    "type": "REDSRecurrentDataset", "dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq",
    "num_frame": 3, "gt_size": 32, "batch_size_per_gpu": 1,
}  # fmt: skip
SCENES: dict[str, Any] = {
    "type": "SceneDataset", "dataroot_gt": "scenes", "num_frame": 3, "gt_size": 32,
    "reduce": [1.5, 2.0], "batch_size_per_gpu": 1,
}  # fmt: skip


def tree(**changes: Any) -> dict[str, Any]:
    """An option file; keys of `changes` are places with `__` for a dot."""
    options: dict[str, Any] = {
        "name": NAME,
        "network_g": {
            "embed_dim": 8, "mid_channels": 8, "head_channels": 4, "flow_channels": [8, 4],
            "flow_levels": 2, "depths": [2], "num_heads": [2], "window_size": [3, 4, 4],
            "branches": 2, "drop_path_rate": 0.2, "use_checkpoint": False,
        },
        "datasets": {"train": copy.deepcopy(PAIRS)},
        "train": {
            "total_iter": 4, "ema_decay": 0.9, "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [100_000]},
            "flow_lr_mul": 0.25, "pixel_opt": {"type": "CharbonnierLoss"},
        },
        "val": {"val_freq": 1000},
        "logger": {"print_freq": 1, "save_checkpoint_minutes": 60},
    }  # fmt: skip
    for place, value in changes.items():
        *parents, key = place.split("__")
        node = options
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return options


def adversarial(**changes: Any) -> dict[str, Any]:
    """A run with two discriminators and all that belongs to them."""
    return {
        "network_d": {"type": "UNetDiscriminatorSN", "num_feat": 4},
        "network_d2": {"type": "CIPLABUnetD", "num_feat": 4, "levels": 2, "frames": 3},
        "train__gan_opt": {"type": "GANLoss", "gan_type": "relativistic", "loss_weight": 0.01},
        "train__gan2_opt": {"type": "GANLoss", "gan_type": "hinge", "loss_weight": 0.01},
        "train__optim_d": {"type": "Adam", "lr": 1e-3},
        "train__feature_matching_opt": {"type": "CIPLABFeatureMatchingLoss", "loss_weight": 0.1},
        "train__consistency_opt": {"cutmix_prob_max": 1.0, "cutmix_prob_scale": 1},
        **changes,
    }


def options(**changes: Any) -> TrainingOptions:
    """The tiny run with some changes."""
    return TrainingOptions.model_validate(tree(**changes))


def run(chosen: TrainingOptions, **keywords: Any) -> list[str]:
    """Train on one CPU process and return what was reported."""
    lines: list[str] = []
    train(chosen, device="cpu", report=lines.append, **keywords)
    return lines


def folder_of(name: str = NAME) -> Path:
    """Of a run."""
    return Path("experiments") / name


def latest(name: str = NAME) -> Path:
    """The last state of a run."""
    states = (folder_of(name) / "training_states").glob("*.state")
    return max(states, key=lambda path: int(path.stem))


def state_of(name: str = NAME) -> dict[str, Any]:
    """What that holds."""
    return torch.load(latest(name), weights_only=True)


def assert_same(a: Any, b: Any) -> None:
    """Equal bit for bit, at any depth."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.equal(b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b
