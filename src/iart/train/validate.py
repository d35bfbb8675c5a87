"""Validation: whole held-out clips enlarged and scored, spread over the processes of a run."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.sets import ValidationClip, ValidationSet, open_validation_set
from iart.device import autocast
from iart.evaluate.metrics.perceptual import LPIPS
from iart.files.images import write_image
from iart.model import IART
from iart.model.upsample import SCALE
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize
from iart.pictures.scores import psnr, ssim
from iart.train.options.data import SceneOptions
from iart.train.options.run import MetricOptions, TrainingOptions, ValOptions
from iart.upscaling.clip import upscale

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# What scenes are scored by: PSNR of Y in dB of the clip, of its frames alone, and of bicubic.
SCENE_SCORES = ("psnr", "psnr_frame_by_frame", "psnr_bicubic")
LUMA = MetricOptions(type="calculate_psnr", test_y_channel=True)


@dataclass(frozen=True)
class Watched:
    """A clip that is scored.

    Attributes:
        group: the set that it belongs to.
        clips: that set.
        number: of the clip in it.
        scores: the names of its scores.
    """

    group: str
    clips: ValidationSet
    number: int
    scores: tuple[str, ...]


def open_watched(options: TrainingOptions) -> list[Watched]:
    """The clips of all sets to validate with.

    Raises:
        DataError: files are missing or do not match, as far as can be told soon.
    """
    watched: list[Watched] = []
    if not options.val.val_freq:
        return watched
    for key, section in options.datasets.validation.items():
        scenes = isinstance(section, SceneOptions)
        if scores := SCENE_SCORES if scenes else tuple(options.val.metrics):
            clips = open_validation_set(section)
            group = (None if scenes else section.name) or key
            watched += [Watched(group, clips, i, scores) for i in range(len(clips))]
    return watched


def validate(
    model: IART,
    watched: list[Watched],
    options: ValOptions,
    precision: torch.dtype,
    fabric: "Fabric",
    pictures: Path,
) -> dict[str, float]:
    """Mean over clips of every score, by `set/score`; the same on all processes.

    Middle frames are saved as `pictures/<set>/<clip>.png`: bicubic, result, ground truth.

    Args:
        model: on the device of this process.
        watched: all clips; this process takes its share.
        options: section `val`.
        precision: that features are computed in.
        fabric: connects the processes.
        pictures: a folder.

    Raises:
        DataError: a clip cannot be read.
        DeviceError: the memory does not suffice.
        OutputError: a picture cannot be written.
    """
    width = max(len(clip.scores) for clip in watched)
    lpips = {
        name: LPIPS(metric.net_type, *metric.files(f"val.metrics.{name}")).to(fabric.device)
        for name, metric in options.metrics.items()
        if metric.type == "calculate_lpips"
    }
    table = torch.zeros(len(watched), width, device=fabric.device)
    for i in range(fabric.global_rank, len(watched), fabric.world_size):
        group, scores = watched[i].group, watched[i].scores
        clip = watched[i].clips[watched[i].number]
        lq, scored = clip.lq.float() / 255, list(clip.scored)
        large = enlarge(model, lq, precision)[scored]
        if scores == SCENE_SCORES:
            single = torch.cat([enlarge(model, frame[None], precision) for frame in lq])
            results = (large, single[scored], imresize(lq, float(SCALE))[scored])
            values = [_mean_score(result, clip.gt, LUMA, fabric.device) for result in results]
        else:
            values = [
                _mean_score(large, clip.gt, options.metrics[name], fabric.device, lpips.get(name))
                for name in scores
            ]
        table[i, : len(values)] = torch.tensor(values)
        save_validated(pictures / group, clip, to_uint8(large), every=options.save_img)
    fabric.all_reduce(table, reduce_op="sum")
    by_name: dict[str, list[float]] = defaultdict(list)
    for clip, row in zip(watched, table.tolist(), strict=True):
        for name, value in zip(clip.scores, row, strict=False):
            by_name[f"{clip.group}/{name}"].append(value)
    return {name: float(np.mean(values)) for name, values in by_name.items()}


def enlarged_low(frame: Float[Tensor, "3 h w"]) -> UInt8[Tensor, "3 _ _"]:
    """A frame of low resolution, enlarged by bicubic."""
    return to_uint8(imresize(frame, float(SCALE)))


def save_validated(
    folder: Path, clip: ValidationClip, large: UInt8[Tensor, "n 3 h w"], *, every: bool
) -> None:
    """Save the scored frame in the middle as bicubic | result | ground truth.

    Args:
        folder: the file is `<clip>.png` in it.
        clip: that was scored.
        large: results for its scored frames.
        every: save all results as well, as `<clip>/<frame>.png`.

    Raises:
        OutputError: the operating system refuses.
    """
    name, middle = clip.name.replace("/", "_"), len(large) // 2
    low = enlarged_low(clip.lq[clip.scored[middle]].float() / 255)
    pictures = {f"{name}.png": torch.cat((low, large[middle], clip.gt[middle]), dim=-1)}
    if every:
        frames = zip(clip.scored, large, strict=True)
        pictures |= {f"{name}/{i:08d}.png": frame for i, frame in frames}
    for part, picture in pictures.items():
        write_image(folder / part, picture)


def main_score(scores: dict[str, float]) -> float:
    """What tells the best weights: the mean over sets of the first score, PSNR as a rule."""
    first = next(iter(scores)).rpartition("/")[2]
    return float(np.mean([s for name, s in scores.items() if name.rpartition("/")[2] == first]))


def enlarge(
    model: IART, clip: Float[Tensor, "t 3 h w"], precision: torch.dtype
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """The whole clip at once, or in windows that fit in memory."""
    with autocast(model.flow.mean.device, precision):
        return upscale(clip, model, window=len(clip), tile="whole")


def _mean_score(
    result: Float[Tensor, "t 3 h w"],
    truth: UInt8[Tensor, "t 3 h w"],
    metric: MetricOptions,
    device: torch.device,
    lpips: LPIPS | None = None,
) -> float:
    if lpips is not None:
        pairs = zip(to_uint8(result), truth, strict=True)
        with torch.no_grad():
            distances = [
                lpips(*(frame[None].to(device) / 255 for frame in pair)).item() for pair in pairs
            ]
        return float(np.mean(distances))
    measure = psnr if metric.type == "calculate_psnr" else ssim
    place = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    values = [
        measure(a.to(place), b.to(place), crop=metric.crop_border, luma=metric.test_y_channel)
        for a, b in zip(to_uint8(result), truth, strict=True)
    ]
    return float(np.mean(values))
