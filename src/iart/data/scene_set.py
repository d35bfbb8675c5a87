"""Samples of scenes that have a ground truth alone: their low resolution is made on the way.

Sources are lossy, or small: a crop is reduced by a random factor before it is ground truth, so that
their compression is not learnt; a share of the clips are stills under synthetic camera motion.
"""

from collections.abc import Sequence

import numpy as np

from iart.data.augment import sample_generator
from iart.data.clips import Scene, random_clip
from iart.data.degrade import degrade_bi, to_uint8
from iart.data.motion import Speed, moving_clip
from iart.data.pairs import SCALE, Pair
from iart.data.samples import Origin, Sample
from iart.errors import DataError

# Fastest shift of a still, in pixels of ground truth per frame, and its zoom and turn.
_SHIFT, _ZOOM, _TURN = 8.0, 0.01, 0.01


class SceneSet:
    """An item is a scene; every epoch shows each once.

    Attributes:
        scenes: all of them, in memory.
        pairs: none.
    """

    scenes: list[Scene]
    pairs: Sequence[Pair] = ()

    def __init__(
        self,
        scenes: Sequence[Scene],
        *,
        num_frame: int,
        gt_size: int,
        reduce: tuple[float, float],
        still_share: float,
    ) -> None:
        """Take scenes.

        Args:
            scenes: of any sizes and lengths.
            num_frame: frames of a sample.
            gt_size: side of the ground truth, a multiple of 4.
            reduce: range of the factor ≥ 1 by which scenes are reduced.
            still_share: share of samples that are made of stills.

        Raises:
            DataError: a scene is smaller than `gt_size`, or none has `num_frame` frames.
        """
        if small := [scene.name for scene in scenes if min(scene.frames.shape[1:3]) < gt_size]:
            raise DataError(
                f"scene '{small[0]}' is too small for crops of {gt_size} pixels; so are "
                f"{len(small) - 1} others. Exclude them or lower gt_size"
            )
        self.scenes = list(scenes)
        long_enough = [scene for scene in scenes if len(scene.frames) >= num_frame]
        if still_share < 1 and not long_enough:
            raise DataError(
                f"no scene has {num_frame} frames. Lower num_frame, or learn from stills alone "
                "with still_share: 1"
            )
        self._moving = long_enough or self.scenes
        self._num_frame, self._gt_size = num_frame, gt_size
        self._reduce, self._still_share = reduce, still_share

    def __len__(self) -> int:
        """Scenes that are long enough."""
        return len(self._moving)

    def sample(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample:
        """See `TrainingSet`; nothing is read, so that nothing fails."""
        rng = sample_generator(seed, index, attempt)
        frames, size = self._num_frame, self._gt_size
        if rng.random() < self._still_share:
            speed = Speed(_SHIFT * rng.random(), zoom=_ZOOM, turn=_TURN)
            front, back = self._any(rng), self._any(rng)
            clip, _ = moving_clip(front, back, frames, size, speed, rng)
            name, how = front.name, f"a still moves over one of '{back.name}'"
        else:
            scene = self._moving[item]
            clip = random_clip(scene, frames, size, self._reduce, rng)
            name, how = scene.name, "reduced, mirrored, transposed and reversed at random"
        truth = to_uint8(clip)
        side = size // SCALE
        return Sample(degrade_bi(truth), truth, Origin(index, name, (), 0, 0, (side, side), how))

    def _any(self, rng: np.random.Generator) -> Scene:
        return self.scenes[int(rng.integers(len(self.scenes)))]
