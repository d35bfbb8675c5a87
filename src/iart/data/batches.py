"""Batches of samples: drawn in the loader's threads, and finished there or on a device.

Drawing takes little time. What is computed is the same, within rounding: on the CPU one sample
after the other (`Unfinished.finished`), on a GPU all of a batch at once (`finished`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from iart.data.clips import DrawnCrop, crop_batch
from iart.data.degradation.chain import degrade
from iart.data.degradation.parameters import Degradation
from iart.data.motion import Motion, moving_batch
from iart.data.pairs import SCALE
from iart.data.samples import Origin, Sample
from iart.device import send
from iart.errors import DataError
from iart.pictures.degrade import degrade_bi, nearest_uint8, to_uint8


@dataclass(frozen=True)
class Unfinished:
    """All that a sample of a scene is made of, drawn; nothing is computed yet.

    Attributes:
        source: of its ground truth.
        how: its low resolution is made of it, and which part is the sample.
        frames: of the sample.
        origin: as the sample has it.
    """

    source: DrawnCrop | Motion
    how: Degradation
    frames: int
    origin: Origin

    def finished(self) -> Sample:
        """The sample, computed on the CPU.

        Raises:
            DataError: FFmpeg refuses to code it.
        """
        clip = self.source.clip()
        low, moments = degrade(clip, self.how, self.frames)
        low, truth = self.cut(low, clip[list(moments)])
        return Sample(low.contiguous(), to_uint8(truth), self.origin)

    def cut(
        self, low: UInt8[Tensor, "t 3 h w"], truth: Shaped[Tensor, "t 3 4*h 4*w"]
    ) -> tuple[UInt8[Tensor, "t 3 _ _"], Shaped[Tensor, "t 3 _ _"]]:
        """The sample's part of both."""
        (height, width), top, left = self.origin.size, self.how.top, self.how.left
        low = low[..., top : top + height, left : left + width]
        top, left, height, width = (SCALE * n for n in (top, left, height, width))
        return low, truth[..., top : top + height, left : left + width]


def finished(
    samples: Sequence[Sample | Unfinished], device: torch.device
) -> tuple[Float[Tensor, "b t 3 h w"], Float[Tensor, "b t 3 4*h 4*w"]]:
    """Low resolution and ground truth of a batch on a device, which computes what is unfinished.

    Nothing waits for a GPU, and shapes do not depend on numbers that it computes.

    Raises:
        DataError: samples have different sizes.
    """
    pictures: dict[int, tuple[Tensor, Tensor]] = {}
    crops: dict[int, DrawnCrop] = {}
    motions: dict[int, Motion] = {}
    for i, sample in enumerate(samples):
        if isinstance(sample, Sample):
            pictures[i] = send(sample.lq, device), send(sample.gt, device)
        elif isinstance(sample.source, DrawnCrop):
            crops[i] = sample.source
        else:
            motions[i] = sample.source
    computed: list[tuple[Iterable[int], Tensor]] = []
    if crops:
        computed.append((crops, crop_batch(list(crops.values()), device)))
    if motions:
        computed.append((motions, moving_batch(list(motions.values()), device)))
    for numbers, clips in computed:
        truths = nearest_uint8(clips)
        for i, low, truth in zip(numbers, degrade_bi(truths), truths, strict=True):
            sample = samples[i]
            assert isinstance(sample, Unfinished)
            pictures[i] = sample.cut(low, truth)
    if len({pair[1].shape for pair in pictures.values()}) > 1:
        raise DataError(
            "clips of one batch have different lengths: set num_frame, or batch_size_per_gpu=1"
        )
    both = zip(*(pictures[i] for i in range(len(samples))), strict=True)
    lq, gt = (torch.stack(clips).float() / 255 for clips in both)
    return lq, gt
