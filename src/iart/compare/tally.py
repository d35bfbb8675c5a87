"""Scores of every frame of a comparison, and the places where the pictures differ most.

Convention: pictures are uint8 RGB `3 h w`; scores are of RGB, see `iart.evaluate.metrics`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from jaxtyping import UInt8
from torch import Tensor

from iart.evaluate.crops import Places
from iart.evaluate.metrics import psnr, ssim

PLACES = 6
PLACE_PIXELS = 96


@dataclass(frozen=True)
class Scores:
    """Of a video, frame by frame.

    Attributes:
        label: which video.
        psnr: in dB; infinite where a frame is equal.
        ssim: at most 1.
    """

    label: str
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]

    @property
    def equal(self) -> int:
        """How many frames are equal."""
        return sum(map(math.isinf, self.psnr))

    @property
    def mean_psnr(self) -> float:
        """Over the frames that differ; infinite if none does."""
        finite = [value for value in self.psnr if math.isfinite(value)]
        return math.fsum(finite) / len(finite) if finite else math.inf

    @property
    def mean_ssim(self) -> float:
        """Over all frames."""
        return math.fsum(self.ssim) / len(self.ssim)

    @property
    def worst_frame(self) -> int:
        """The frame, from 0, with the lowest PSNR."""
        return min(range(len(self.psnr)), key=self.psnr.__getitem__)


class Tally:
    """Takes the pictures of one moment after the other and keeps numbers and details.

    Attributes:
        times: of the moments in seconds.
        places: where the pictures differ most; named by frame number and time.
    """

    def __init__(self, labels: Sequence[str], *, has_truth: bool) -> None:
        """Start empty.

        Args:
            labels: of the videos, all different.
            has_truth: the last of three is what the others are scored against; else the second of
                two is.
        """
        self.times: list[Fraction] = []
        self.places = Places(count=PLACES, size=PLACE_PIXELS)
        self._labels = labels
        self._scores: list[list[tuple[float, float]]] = [[] for _ in range(1 + has_truth)]

    def add(self, pictures: Sequence[UInt8[Tensor, "3 h w"]], time: Fraction) -> None:
        """Look at the pictures of the next moment, in the order of the labels."""
        for scores, picture in zip(self._scores, pictures, strict=False):
            scores.append((psnr(picture, pictures[-1]), ssim(picture, pictures[-1])))
        name = f"frame {len(self.times)} at {float(time):.3f} s"
        self.places.add(name, dict(zip(self._labels, pictures, strict=True)))
        self.times.append(time)

    def scores(self) -> tuple[Scores, ...]:
        """Of each video that is scored."""
        return tuple(
            Scores(label, *zip(*pairs, strict=True))
            for label, pairs in zip(self._labels, self._scores, strict=False)
        )
