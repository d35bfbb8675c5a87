"""Made data of benchmarks: a few tiny clips in the published layout."""

from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from jaxtyping import UInt8
from torch import Tensor

from iart.files.images import write_image
from iart.pictures.degrade import degrade_bi

CLIPS = {"a": 3, "b": 2}


def picture(seed: int, height: int = 48, width: int = 64) -> UInt8[Tensor, "3 h w"]:
    """Smooth noise, different for each seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth[0] * 255).to(torch.uint8)


def make_data(
    folder: Path, clips: Mapping[str, int] = CLIPS, *, height: int = 48, width: int = 64
) -> Path:
    """GT and BIx4 of a set called `set` below `folder`."""
    for number, (name, count) in enumerate(clips.items()):
        for kind in ("GT", "BIx4"):
            (folder / "set" / kind / name).mkdir(parents=True)
        for index in range(count):
            sharp = picture(100 * number + index, height, width)
            write_image(folder / "set" / "GT" / name / f"{index:03d}.png", sharp)
            write_image(folder / "set" / "BIx4" / name / f"{index:03d}.png", degrade_bi(sharp))
    return folder


def make_protocol(path: Path, **changes: object) -> Path:
    """A protocol for `make_data`; a value of None leaves a key out."""
    keys: dict[str, object] = {
        "description": "made clips",
        "gt": "set/GT",
        "lq": "set/BIx4",
        "degradation": "bi",
        "clips": CLIPS,
        "colour": "y",
    }
    tree = {key: value for key, value in (keys | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(tree))
    return path
