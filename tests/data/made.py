"""Pairs of clips made for tests, and options as the option file gives them."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from iart.data.pairs import found_pairs
from iart.data.sets import PairedSet, Recipe
from iart.data.stores.folder import FolderStore

SIDE = 8  # of low resolution


def ground_truth(
    clip: int, frame: int, height: int = 4 * SIDE, width: int = 4 * SIDE
) -> np.ndarray:
    """Every 4×4 block is flat and tells clip, frame and place, so that ×1/4 is exact."""
    y, x = np.mgrid[0:height, 0:width] // 4
    return np.stack([8 * y + clip, 8 * x, np.full_like(x, frame)], axis=-1).astype(np.uint8)


def make_pairs(
    root: Path,
    clips: Mapping[str, int] | None = None,
    *,
    size: tuple[int, int] = (4 * SIDE, 4 * SIDE),
    template: str = "{:08d}.png",
    first: int = 0,
) -> Path:
    """Folders GT and LQ with clips of so many frames; returns `root`."""
    for number, (name, count) in enumerate((clips or {"000": 5, "001": 4, "011": 6}).items()):
        for frame in range(count):
            image = ground_truth(number, frame, *size)
            for folder, picture in (("GT", image), ("LQ", image[::4, ::4])):
                path = root / folder / name / template.format(frame + first)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    return root


def make_set(root: Path, **recipe: Any) -> PairedSet:
    """The set of what `make_pairs` made."""
    pairs = found_pairs(FolderStore(root / "GT"), FolderStore(root / "LQ"))
    return PairedSet(pairs, Recipe(**{"num_frame": 3, "sides": (16,), **recipe}))


def train_options(kind: str, root: Path, **changes: Any) -> SimpleNamespace:
    """As `datasets.train` of an option file."""
    known: dict[str, Any] = {
        "type": kind,
        "degradation": None,
        "drawn_share": 0.0,
        "photo_share": 0.0,
        "dataroot_photos": None,
        "exclude_photos": (),
        "dataroot_gt": root / "GT",
        "dataroot_lq": root / "LQ",
        "meta_info_file": None,
        "val_partition": "REDS4",
        "test_mode": False,
        "io_backend_type": "disk",
        "num_frame": 3,
        "gt_size": 16,
        "interval_list": (1,),
        "random_reverse": False,
        "use_hflip": True,
        "use_rot": True,
        "flip_sequence": False,
    }
    return SimpleNamespace(**{**known, **changes})
