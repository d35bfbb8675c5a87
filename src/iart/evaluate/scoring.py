"""One clip of a benchmark: its frames from the network or from disk, scored one by one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import DeviceError
from iart.evaluate.crops import CropPicker
from iart.evaluate.extra import ExtraMetrics, extra_metrics
from iart.evaluate.layout import Clip
from iart.evaluate.metrics import psnr, ssim
from iart.evaluate.network import Enlarger
from iart.evaluate.pictures import read_picture, write_picture
from iart.evaluate.protocol import Protocol
from iart.evaluate.record import ClipRecord, FrameScore
from iart.evaluate.sharing import writing
from iart.inference.pipeline import read_ahead

READ_AHEAD = 4
"""Frames that are decoded while others are scored."""
NO_EXTRA = extra_metrics((), torch.device("cpu"))


@dataclass(frozen=True)
class _Frame:
    """What is read for one frame; `made` only if it was made elsewhere."""

    lr: UInt8[Tensor, "3 h w"] | None
    gt: UInt8[Tensor, "3 h2 w2"]
    made: UInt8[Tensor, "3 h2 w2"] | None


def score_clip(
    clip: Clip,
    protocol: Protocol,
    enlarger: Enlarger | None,
    *,
    images: Path | None = None,
    crops: int = 3,
    extra: ExtraMetrics = NO_EXTRA,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[ClipRecord, tuple[str, ...]]:
    """Score a clip, in windows if the whole of it does not fit in memory.

    Args:
        clip: its images are read as they are needed.
        protocol: says how they are compared.
        enlarger: makes the frames; None for those made elsewhere.
        images: a folder to keep the frames in, as PNG; None to keep none.
        crops: how many places to show.
        extra: scores to compute besides PSNR and SSIM.
        progress: called with the number of frames scored, where they come one by one.

    Returns:
        The scores, and what of the extra ones failed, one line each.

    Raises:
        DataError: an image cannot be read.
        DeviceError: not even a short window fits in memory.
        OutputError: an image cannot be written.
    """

    def score(
        windowed: str | None, frames: Iterator[Tensor] | None
    ) -> tuple[ClipRecord, tuple[str, ...]]:
        began = time.monotonic()
        luma, crop = protocol.colour == "y", protocol.border
        picker = CropPicker(len(clip.scored), count=crops)
        scores: list[dict[str, float]] = []
        with read_ahead(_read(clip), READ_AHEAD) as pictures, extra.clip() as others:
            for path, picture in zip(clip.gt, pictures, strict=True):
                result = picture.made if frames is None else next(frames)
                assert result is not None
                scores.append(
                    {
                        "psnr": psnr(result, picture.gt, crop=crop, luma=luma),
                        "ssim": ssim(result, picture.gt, crop=crop, luma=luma),
                    }
                )
                others.add(result, picture.gt)
                picker.add(path.name, picture.lr, result, picture.gt)
                if images is not None:
                    _keep(images / clip.name / f"{path.stem}.png", result)
                if frames is None or windowed is not None:  # else they come all at once
                    progress(len(scores))
            found = others.finish()
        frames_scored = tuple(
            FrameScore(path.name, values | more)
            for path, values, more in zip(clip.gt, scores, found.frames, strict=True)
        )
        record = ClipRecord(
            clip.name,
            frames_scored,
            found.temporal,
            time.monotonic() - began,
            windowed=windowed,
            crops=picker.crops(),
            lr_made=clip.lr_made,
        )
        return record, found.notes

    if enlarger is None:
        return score(None, None)
    window = enlarger.frames_at_once(clip)
    while True:
        context = enlarger.context(window)
        whole = window == len(clip.lq)
        how = None if whole else f"windows of {window} frames, {context} of context at either end"
        try:
            return score(how, enlarger.frames(clip, window))
        except DeviceError:  # the estimate was too low
            if enlarger.window is not None or window <= enlarger.shortest:
                raise
            window = max(window // 2, enlarger.shortest)


def _keep(target: Path, picture: UInt8[Tensor, "3 h w"]) -> None:
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_picture(target, picture)


def _read(clip: Clip) -> Iterator[_Frame]:
    height, width = clip.size
    for position, index in enumerate(clip.scored):
        yield _Frame(
            read_picture(clip.lq[index]) if clip.lq else None,
            read_picture(clip.gt[position])[:, :height, :width],
            read_picture(clip.results[position])[:, :height, :width] if clip.results else None,
        )
