"""What the loader draws: samples, and the sets that make them.

An item of a set is where a sample starts (a frame of a clip, or a clip); which of the possible
crops, views and directions in time the sample has is drawn when it is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from iart.data.pairs import Pair


@dataclass(frozen=True)
class Origin:
    """Where a sample comes from; with the seed it makes the same sample again.

    Attributes:
        index: of the sample in the run.
        clip: its name.
        frames: in the order in which they are shown, from 0; empty if the clip is synthetic.
        top: of the crop, in pixels of the low resolution, before `augmentation`.
        left: likewise.
        size: (height, width) likewise.
        augmentation: what was done to the crop.
    """

    index: int
    clip: str
    frames: tuple[int, ...]
    top: int
    left: int
    size: tuple[int, int]
    augmentation: str

    def place(self) -> str:
        """Clip, frames and corner, in words."""
        return f"clip '{self.clip}' frames {list(self.frames)} at ({self.left}, {self.top})"


@dataclass(frozen=True)
class Sample:
    """One clip for training, in 8 bits."""

    lq: UInt8[Tensor, "t 3 h w"]
    gt: UInt8[Tensor, "t 3 4*h 4*w"]
    origin: Origin


@runtime_checkable
class TrainingSet(Protocol):
    """What the loader draws samples from; may be used by many threads.

    Attributes:
        pairs: of clips that samples are read from; none if all is in memory.
    """

    pairs: Sequence[Pair]

    def __len__(self) -> int:
        """Number of items: samples of an epoch."""
        ...

    def sample(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample:
        """Make a sample; equal arguments make equal samples.

        Args:
            item: below the length.
            index: of the sample in the run.
            seed: of the run.
            first: index of the first sample of the same optimiser step; all samples of a step have
                one size. The sample itself if not given.
            attempt: counts replacements of a sample that failed.

        Raises:
            DataError: a file is missing or damaged; names it.
        """
        ...
