"""Whole clips to score a network on while it is trained."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.augment import degradation_generator
from iart.data.clips import Scene, load_scenes, to_clip
from iart.data.degradation.chain import degrade_frames
from iart.data.degradation.draw import degradation_shares, draw
from iart.data.degradation.parameters import Degradation
from iart.data.pairs import SCALE, Pair, check_pairs, found_pairs, listed_pairs, read_clip_list
from iart.data.stores.folder import FolderStore
from iart.data.stores.video import video_pairs
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize

# Frames of each scene that are scored, and the largest sides of their ground truth (pixels).
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

    Scenes (ours, for the light model) are their first 7 frames, reduced by the middle of the range
    `reduce`, at most 384×224, with a low resolution that is made of them.

    Args:
        options: the section of an option file, see `iart.train.options.read`.

    Raises:
        DataError: files are missing or do not match, as far as can be told soon.
    """
    if options.type == "SceneDataset":
        scenes = load_scenes(options.dataroot_gt, include=options.include, exclude=options.exclude)
        factor = sum(options.reduce) / 2
        return ValidationSet(
            [scene.name for scene in scenes],
            lambda number: _of_scene(scenes[number], factor, _degradation(options, number)),
        )
    if options.type == "VideoRecurrentDataset":
        pairs = video_pairs(options)
    else:
        gt, lq = FolderStore(options.dataroot_gt), FolderStore(options.dataroot_lq)
        if options.meta_info_file is None:
            pairs = found_pairs(gt, lq)
        else:
            pairs = listed_pairs(gt, lq, read_clip_list(options.meta_info_file))
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


def _of_scene(scene: Scene, factor: float, how: Degradation) -> ValidationClip:
    _, height, width, _ = scene.frames.shape
    height = min(int(height / factor) // 8 * 8, _SCENE_HEIGHT)
    width = min(int(width / factor) // 8 * 8, _SCENE_WIDTH)

    def read(places: Sequence[int]) -> Float[Tensor, "m 3 h w"]:
        reduced = imresize(to_clip(scene.frames[list(places)]), 1 / factor)
        return reduced[..., :height, :width].clamp(0, 1)

    scored = range(min(_SCENE_FRAMES, len(scene.frames)))
    low = degrade_frames(read, scored, len(scene.frames), how)
    return ValidationClip(scene.name, low, to_uint8(read(scored)), tuple(scored))
