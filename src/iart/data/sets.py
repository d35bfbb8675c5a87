"""The sets that option files name: samples of pairs, and whole clips to score."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.augment import View, degradation_generator, sample_generator, step_generator
from iart.data.clips import Scene, load_scenes, load_stills, there_and_back, to_clip
from iart.data.degradation.chain import degrade, degrade_frames
from iart.data.degradation.draw import degradation_shares, draw
from iart.data.degradation.parameters import Degradation, Kind, padded
from iart.data.pairs import SCALE, Pair, check_pairs, found_pairs, read_clip_list
from iart.data.samples import Origin, Sample, TrainingSet
from iart.data.scenes import SceneSet
from iart.data.stores.folder import FolderStore, Frames, Store
from iart.data.stores.lmdb import LmdbStore
from iart.data.stores.video import video_pairs
from iart.errors import DataError
from iart.parallel.ordered import ordered
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize

# Clips of REDS that are held out.
_VALIDATION = {
    "REDS4": frozenset({"000", "011", "015", "020"}),
    "official": frozenset(f"{number:03d}" for number in range(240, 270)),
}


def open_training_set(options: Any) -> TrainingSet:
    """The set of `datasets.train`.

    Args:
        options: the section of an option file, see `iart.train.options.read`.

    Raises:
        DataError: files are missing, do not match or do not fit, as far as can be told soon.
        MissingExtraError: an LMDB is asked for, and lmdb is not installed.
    """
    if options.type == "SceneDataset":
        scenes = load_scenes(options.dataroot_gt, include=options.include, exclude=options.exclude)
        photos = []
        if options.dataroot_photos is not None and options.photo_share:
            photos = load_stills(options.dataroot_photos, exclude=options.exclude_photos)
        return SceneSet(
            scenes,
            num_frame=options.num_frame,
            gt_size=options.gt_size,
            reduce=options.reduce,
            still_share=options.still_share,
            drawn_share=options.drawn_share,
            photo_share=options.photo_share,
            photos=photos,
            degradation=degradation_shares(options.degradation),
        )
    pairs = _pairs(options)
    if options.type == "REDSRecurrentDataset":
        held_out = _VALIDATION[options.val_partition]
        pairs = [pair for pair in pairs if (pair.name in held_out) == options.test_mode]
    sides = getattr(options, "patch_sizes", None)
    recipe = Recipe(
        num_frame=options.num_frame,
        sides=tuple(sides or (options.gt_size,)),
        shares=tuple(options.patch_probs) if sides else (1.0,),
        whole_clips=options.type == "Vimeo90KRecurrentDataset",
        intervals=tuple(options.interval_list),
        random_reverse=options.random_reverse,
        flip_sequence=options.flip_sequence,
        use_hflip=options.use_hflip,
        use_rot=options.use_rot,
        degradation=degradation_shares(options.degradation),
    )
    return PairedSet(pairs, recipe)


def _pairs(options: Any) -> list[Pair]:
    """Of a section of `datasets`, to train or to validate with."""
    if options.type in ("VideoRecurrentDataset", "VideoDataset"):
        return video_pairs(options)
    opened = LmdbStore if getattr(options, "io_backend_type", "disk") == "lmdb" else FolderStore
    gt: Store = opened(options.dataroot_gt)
    lq: Store | None = None if options.dataroot_lq is None else opened(options.dataroot_lq)
    if options.meta_info_file is None:
        return found_pairs(gt, lq)
    return [
        Pair(None if lq is None else lq.clip(name, count), gt.clip(name, count))
        for name, count in read_clip_list(options.meta_info_file).items()
    ]


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
        degradation: shares of the kinds by which low resolution is made of the ground truth; None
            where pairs have it.
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
    degradation: Mapping[Kind, float] | None = None

    def shortest(self) -> int:
        """Frames that a clip must have."""
        return 1 if self.num_frame < 0 else (self.num_frame - 1) * min(self.intervals) + 1


class PairedSet:
    """Samples of pairs of clips, as BasicSR's recurrent sets draw them.

    Attributes:
        pairs: all of them.
    """

    pairs: Sequence[Pair]

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe) -> None:
        """Check what can be known before the first step.

        Raises:
            DataError: no pairs; a clip is too short or small, not 4 to 1, or cannot be read.
        """
        side = max(recipe.sides) // SCALE
        check_pairs(pairs, recipe.shortest(), side if recipe.degradation is None else padded(side))
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
        if pair.lq is None:
            rng = degradation_generator(seed, index, attempt)
            low, high, frames = self._degraded(pair.gt, frames, (top, left), side, rng)
            order = tuple(frames[i] for i in chosen)
        else:
            low = pair.lq.read(frames, top, left, side, side)
            high = pair.gt.read(frames, *(SCALE * n for n in (top, left, side, side)))
        origin = Origin(index, pair.name, order, top, left, (side, side), str(view))
        return Sample(view.of(low[chosen]), view.of(high[chosen]), origin)

    def _degraded(
        self,
        clip: Frames,
        frames: tuple[int, ...],
        place: tuple[int, int],
        side: int,
        rng: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "t s s 3"], UInt8[np.ndarray, "t s4 s4 3"], tuple[int, ...]]:
        """Low resolution made of a part around the crop, the ground truth, and its frames.

        At the picture's borders the grid of blocks begins where there is room.
        """
        assert self._recipe.degradation is not None
        how = draw(self._recipe.degradation, rng)
        wide, step = padded(side), frames[1] - frames[0] if len(frames) > 1 else 1
        top, left = (
            min(max(at - phase, 0), size // SCALE - wide)
            for at, phase, size in zip(place, (how.top, how.left), clip.size, strict=True)
        )
        if how.scan.kind != "progressive":
            top -= top % 2
        start = min(frames) - step * how.before
        places = there_and_back(
            range(start, start + step * how.moments(len(frames)), step), clip.count
        )
        distinct = sorted(set(places))
        read = clip.read(distinct, *(SCALE * n for n in (top, left, wide, wide)))
        moments = to_clip(read[np.searchsorted(distinct, places)])
        low, shown = degrade(moments, how, len(frames))
        y, x = place[0] - top, place[1] - left
        low = rearrange(low[..., y : y + side, x : x + side], "t c h w -> t h w c").numpy()
        chosen = tuple(places[moment] for moment in shown)
        y, x, side = SCALE * y, SCALE * x, SCALE * side
        high = read[np.searchsorted(distinct, chosen), y : y + side, x : x + side]
        return low, high, chosen

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


# ---- whole clips to score a network on while it is trained


# Frames of each scene that are scored where none are asked for, and the largest sides of their
# ground truth (pixels).
_SCENE_FRAMES, _SCENE_HEIGHT, _SCENE_WIDTH = 7, 224, 384


@dataclass(frozen=True)
class ValidationClip:
    """One clip, in 8 bits.

    Attributes:
        name: of the clip.
        lq: low resolution, all frames.
        gt: ground truth of the frames that are scored.
        scored: their indices among all frames.
    """

    name: str
    lq: UInt8[Tensor, "t 3 h w"]
    gt: UInt8[Tensor, "n 3 4*h 4*w"]
    scored: tuple[int, ...]


class ValidationSet:
    """Clips by number, from 0.

    Attributes:
        names: of the clips.
        pairs: of files that clips are read from; none if all is in memory.
    """

    names: tuple[str, ...]
    pairs: Sequence[Pair]

    def __init__(
        self,
        names: Iterable[str],
        read: Callable[[int], ValidationClip],
        *,
        pairs: Sequence[Pair] = (),
        cache: bool = False,
    ) -> None:
        """See `open_validation_set`.

        Args:
            names: of the clips.
            read: a clip by its number.
            pairs: see above.
            cache: keep clips in memory once they have been read.
        """
        self.names, self.pairs = tuple(names), pairs
        self._read = lru_cache(maxsize=None)(read) if cache else read

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.names)

    def __getitem__(self, number: int) -> ValidationClip:
        """Read a clip, or take it from memory.

        Raises:
            IndexError: there is no such clip.
            DataError: a file is missing or damaged; names it.
        """
        if not 0 <= number < len(self.names):
            raise IndexError(number)
        return self._read(number)


def open_validation_set(options: Any) -> ValidationSet:
    """The set of a section of `datasets` that starts with val or test.

    Scenes (ours, for the light model) are their first `num_frame` frames, or 7 where that is not
    given, reduced by the middle of the range `reduce`, at most 384×224, with a low resolution that
    is made of them.

    Args:
        options: the section of an option file, see `iart.train.options.read`.

    Raises:
        DataError: files are missing or do not match, as far as can be told soon.
    """
    if options.type == "SceneDataset":
        scenes = load_scenes(options.dataroot_gt, include=options.include, exclude=options.exclude)
        factor = sum(options.reduce) / 2
        frames = options.num_frame if "num_frame" in options.model_fields_set else _SCENE_FRAMES
        return ValidationSet(
            [scene.name for scene in scenes],
            lambda number: _of_scene(scenes[number], frames, factor, _degradation(options, number)),
        )
    pairs = _pairs(options)
    check_pairs(pairs, 1, 1)
    middle = options.type == "VideoTestVimeo90KDataset"

    def read(number: int) -> ValidationClip:
        return _of_pair(pairs[number], options.num_frame, middle=middle)

    return ValidationSet([pair.name for pair in pairs], read, pairs=pairs, cache=options.cache_data)


def _of_pair(pair: Pair, limit: int, *, middle: bool) -> ValidationClip:
    count = pair.count if limit < 0 else min(limit, pair.count)
    height, width = pair.size
    scored = (count // 2,) if middle else tuple(range(count))
    assert pair.lq is not None  # sets to validate with have both
    low = pair.lq.read(range(count), 0, 0, height, width)
    high = pair.gt.read(scored, 0, 0, SCALE * height, SCALE * width)
    lq, gt = (rearrange(torch.from_numpy(x), "t h w c -> t c h w") for x in (low, high))
    return ValidationClip(pair.name, lq, gt, scored)


def _degradation(options: Any, number: int) -> Degradation:
    """How a scene is degraded: the same every time."""
    shares = degradation_shares(options.degradation)
    if shares is None:
        return Degradation(kind="bicubic")
    return draw(shares, degradation_generator(0, number))


def _of_scene(scene: Scene, frames: int, factor: float, how: Degradation) -> ValidationClip:
    _, height, width, _ = scene.frames.shape
    height = min(int(height / factor) // 8 * 8, _SCENE_HEIGHT)
    width = min(int(width / factor) // 8 * 8, _SCENE_WIDTH)

    def read(places: Sequence[int]) -> Float[Tensor, "m 3 h w"]:
        reduced = imresize(to_clip(scene.frames[list(places)]), 1 / factor)
        return reduced[..., :height, :width].clamp(0, 1)

    scored = range(min(frames, len(scene.frames)))
    low = degrade_frames(read, scored, len(scene.frames), how)
    return ValidationClip(scene.name, low, to_uint8(read(scored)), tuple(scored))


# ---- their files


def inspect(
    opened: TrainingSet | ValidationSet, *, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Everything that is wrong with the files of a set, as far as headers tell; reads all of them.

    Args:
        opened: to train or to validate with.
        progress: called with (pairs done, pairs in all).

    Returns:
        A line a problem.
    """
    pairs, found = opened.pairs, []
    checked = ordered(lambda pair: list(pair.problems()), pairs, workers=os.cpu_count() or 1)
    for done, problems in enumerate(checked, 1):
        found += problems
        if progress:
            progress(done, len(pairs))
    return found
