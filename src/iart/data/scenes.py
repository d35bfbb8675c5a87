"""Samples of scenes that have a ground truth alone: their low resolution is made on the way.

Sources are lossy, or small: a crop is reduced by a random factor before it is ground truth, so that
their compression is not learnt; a share of the clips are stills under synthetic camera motion:
frames of the scenes, photographs, and drawn ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from iart.data.augment import degradation_generator, sample_generator
from iart.data.batches import Unfinished
from iart.data.clips import DrawnCrop, Scene, draw_crop
from iart.data.degradation.draw import draw
from iart.data.degradation.parameters import Degradation, Kind, padded
from iart.data.drawn import drawn_still
from iart.data.motion import Motion, Speed, draw_motion
from iart.data.pairs import SCALE, Pair
from iart.data.samples import Origin, Sample
from iart.errors import DataError

# Fastest shift of a still, in pixels of ground truth per frame, and its zoom and turn.
_SHIFT, _ZOOM, _TURN = 8.0, 0.01, 0.01
# Side of the part of a photograph, or of a drawn still, under which a clip of side 1 moves.
_STILL_SIDE = 2.6
_TRIED = 3  # parts of a still, of which one is taken
# A few drawn stills serve so many samples, since drawing takes as long as making a sample.
_STILLS, _SAMPLES = 4, 64


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
        drawn_share: float = 0.0,
        photo_share: float = 0.0,
        photos: Sequence[Scene] = (),
        degradation: Mapping[Kind, float] | None = None,
    ) -> None:
        """Take scenes.

        Args:
            scenes: of any sizes and lengths.
            num_frame: frames of a sample.
            gt_size: side of the ground truth, a multiple of 4.
            reduce: range of the factor ≥ 1 by which scenes are reduced.
            still_share: share of samples that are made of stills from the scenes.
            drawn_share: share of samples that are made of drawn stills.
            photo_share: share of samples that are made of `photos`.
            photos: of one frame each; needed if there is a share of them.
            degradation: kinds and how often each is drawn; MATLAB's bicubic if not given.

        Raises:
            DataError: a scene is smaller than the crop, or none has `num_frame` frames.
        """
        side = gt_size if degradation is None else SCALE * padded(gt_size // SCALE)
        if small := [scene.name for scene in scenes if min(scene.frames.shape[1:3]) < side]:
            raise DataError(
                f"scene '{small[0]}' is too small for crops of {side} pixels; so are "
                f"{len(small) - 1} others. Exclude them or lower gt_size"
            )
        self.scenes = list(scenes)
        long_enough = [scene for scene in scenes if len(scene.frames) >= num_frame]
        if still_share + drawn_share + photo_share < 1 and not long_enough:
            raise DataError(
                f"no scene has {num_frame} frames. Lower num_frame, or learn from stills alone "
                "with still_share: 1"
            )
        if photo_share and not photos:
            raise DataError("photo_share is above 0: name a folder of photographs")
        self._moving = long_enough or self.scenes
        self._photos = list(photos)
        self._num_frame, self._gt_size, self._side = num_frame, gt_size, side
        self._reduce, self._degradation = reduce, degradation
        self._stills = np.cumsum((still_share, drawn_share, photo_share)).tolist()

    def __len__(self) -> int:
        """Scenes that are long enough."""
        return len(self._moving)

    def sample(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample:
        """See `TrainingSet`; nothing is read.

        Raises:
            DataError: FFmpeg refuses to code the sample.
        """
        return self._drawn(item, index, seed, attempt).finished()

    def begin(
        self, item: int, index: int, seed: int, *, first: int | None = None, attempt: int = 0
    ) -> Sample | Unfinished:
        """What `iart.data.batches.finished` makes the sample of; all of it where a codec has part.

        See `sample`.
        """
        drawn = self._drawn(item, index, seed, attempt)
        return drawn if drawn.how.kind == "bicubic" else drawn.finished()

    def _drawn(self, item: int, index: int, seed: int, attempt: int) -> Unfinished:
        rng = sample_generator(seed, index, attempt)
        how = Degradation(kind="bicubic")
        if self._degradation is not None:
            how = draw(self._degradation, degradation_generator(seed, index, attempt))
        source, name, done = self._source(item, index, seed, how, rng)
        side = self._gt_size // SCALE
        origin = Origin(index, name, (), 0, 0, (side, side), f"{done}; {how.kind}")
        return Unfinished(source, how, self._num_frame, origin)

    def _source(
        self, item: int, index: int, seed: int, how: Degradation, rng: np.random.Generator
    ) -> tuple[DrawnCrop | Motion, str, str]:
        """Moments to degrade, the name of their source, and what is done to it."""
        moments, side = how.moments(self._num_frame), self._side
        kind = int(np.searchsorted(self._stills, rng.random(), side="right"))
        if kind == len(self._stills):
            scene = self._moving[item]
            crop = draw_crop(scene, moments, side, self._reduce, rng)
            return crop, scene.name, "reduced, mirrored, transposed and reversed at random"
        # fields come twice as often as frames
        step = how.moments_per_frame
        speed = Speed(_SHIFT * rng.random() / step, zoom=_ZOOM / step, turn=_TURN / step)
        front, back = (self._still(kind, index, seed, rng) for _ in range(2))
        motion = draw_motion(front, back, moments, side, speed, rng)
        return motion, front.name, f"a still moves over one of '{back.name}'"

    def _still(self, kind: int, index: int, seed: int, rng: np.random.Generator) -> Scene:
        side = round(_STILL_SIDE * self._side)
        if kind == 0:
            return self.scenes[int(rng.integers(len(self.scenes)))]
        if kind == 1:
            number = index // _SAMPLES * _STILLS + int(rng.integers(_STILLS))
            scene = drawn_still(seed, number, side)
        else:
            scene = self._photos[int(rng.integers(len(self._photos)))]
        return _part(scene, side, rng)


def _part(scene: Scene, side: int, rng: np.random.Generator) -> Scene:
    """A square of a still, mirrored and transposed at random; of several the one with most detail.

    Photographs are sky for a good part, which teaches little.
    """
    _, height, width, _ = scene.frames.shape
    parts = []
    for _ in range(_TRIED):
        y, x = (int(rng.integers(max(size - side, 0) + 1)) for size in (height, width))
        parts.append(scene.frames[:, y : y + side, x : x + side])
    picture = max(parts, key=lambda part: float(np.ptp(part[0, ::4, ::4, 1], axis=0).mean()))
    flip_y, flip_x, transpose = (rng.random(3) < 0.5).tolist()
    picture = picture[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return Scene(scene.name, picture.swapaxes(1, 2) if transpose else picture)
