"""Samples of pairs of clips: BasicSR's recurrent data sets, and their video forms."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from iart.data.augment import View, sample_generator, step_generator
from iart.data.pairs import SCALE, Pair, check_pairs
from iart.data.samples import Origin, Sample
from iart.errors import DataError


@dataclass(frozen=True)
class Recipe:
    """How samples of pairs are made.

    Attributes:
        num_frame: frames of a sample; −1 for all of a clip.
        sides: of the possible crops of ground truth, in pixels.
        shares: probability of each; one entry a side.
        whole_clips: an item is a clip, and its sample the frames in the middle; otherwise an item
            is the frame of a clip at which its sample starts, drawn anew if that is too late.
        intervals: distances between successive frames, one of which is drawn.
        random_reverse: let time run backwards in half of the samples.
        flip_sequence: let the sample run forwards and then backwards, twice as long.
        use_hflip: mirror left and right in half of the samples.
        use_rot: mirror top and bottom, and swap the axes, each in half of the samples.
    """

    num_frame: int
    sides: tuple[int, ...]
    shares: tuple[float, ...] = (1.0,)
    whole_clips: bool = False
    intervals: tuple[int, ...] = (1,)
    random_reverse: bool = False
    flip_sequence: bool = False
    use_hflip: bool = False
    use_rot: bool = False

    def shortest(self) -> int:
        """Frames that a clip must have."""
        return 1 if self.num_frame < 0 else (self.num_frame - 1) * min(self.intervals) + 1


class PairedSet:
    """Samples of pairs of clips.

    Attributes:
        pairs: all of them.
    """

    pairs: Sequence[Pair]

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe) -> None:
        """Check what can be known before the first step.

        Raises:
            DataError: no pairs; a clip is too short or small, not 4 to 1, or cannot be read.
        """
        check_pairs(pairs, recipe.shortest(), max(recipe.sides) // SCALE)
        self.pairs, self._recipe = pairs, recipe
        self._by_clip = recipe.whole_clips or recipe.num_frame < 0
        lengths = [1 if self._by_clip else pair.count for pair in pairs]
        self._ends = list(accumulate(lengths))

    def __len__(self) -> int:
        """Items: clips, or frames of all clips."""
        return self._ends[-1]

    def sample(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample:
        """See `TrainingSet`."""
        rng = sample_generator(seed, index, attempt)
        number = bisect_right(self._ends, item)
        pair = self.pairs[number]
        height, width = pair.size
        frames = self._frames(pair.count, item - (self._ends[number - 1] if number else 0), rng)
        side = self._side(step_generator(seed, index if first is None else first))
        if side > min(height, width):
            raise DataError(f"clip '{pair.name}' is {width}×{height}: too small for {side}×{side}")
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        view = View.draw(rng, hflip=self._recipe.use_hflip, rotate=self._recipe.use_rot)
        order = frames
        if self._recipe.random_reverse and rng.random() < 0.5:
            order = order[::-1]
        if self._recipe.flip_sequence:
            order = order + order[::-1]
        chosen = np.searchsorted(frames, order)
        low = pair.lq.read(frames, top, left, side, side)
        high = pair.gt.read(frames, *(SCALE * n for n in (top, left, side, side)))
        origin = Origin(index, pair.name, order, top, left, (side, side), str(view))
        return Sample(view.of(low[chosen]), view.of(high[chosen]), origin)

    def _frames(self, count: int, start: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Indices in ascending order; `start` is where the item begins."""
        length = count if self._recipe.num_frame < 0 else self._recipe.num_frame
        steps = self._recipe.intervals if self._recipe.num_frame > 0 else (1,)
        fitting = [step for step in steps if (length - 1) * step < count]
        interval = fitting[rng.integers(len(fitting))]
        last = count - 1 - (length - 1) * interval
        if self._by_clip:
            start = last // 2
        elif start > last:
            start = int(rng.integers(last + 1))
        return tuple(range(start, start + (length - 1) * interval + 1, interval))

    def _side(self, rng: np.random.Generator) -> int:
        """Of the crop of low resolution."""
        shares = np.array(self._recipe.shares)
        return self._recipe.sides[rng.choice(len(shares), p=shares / shares.sum())] // SCALE
