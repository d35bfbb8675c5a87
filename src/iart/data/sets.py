"""The sets that option files name, opened."""

import os
from collections.abc import Callable
from typing import Any

from iart.data.clips import load_scenes
from iart.data.frames import FolderStore, Store
from iart.data.lmdb_frames import LmdbStore
from iart.data.paired_set import PairedSet, Recipe
from iart.data.pairs import Pair, found_pairs, listed_pairs, read_clip_list
from iart.data.samples import Origin, Sample, TrainingSet
from iart.data.scene_set import SceneSet
from iart.data.threads import ordered
from iart.data.validation import ValidationSet
from iart.data.video_store import VideoStore, read_video_list

__all__ = ["Origin", "Sample", "TrainingSet", "inspect", "open_training_set"]

# Clips of REDS that are held out.
_VALIDATION = {
    "REDS4": frozenset({"000", "011", "015", "020"}),
    "official": frozenset(f"{number:03d}" for number in range(240, 270)),
}


def open_training_set(options: Any) -> TrainingSet:
    """The set of `datasets.train`.

    Args:
        options: the section of an option file, see `iart.train.options`.

    Raises:
        DataError: files are missing, do not match or do not fit, as far as can be told soon.
        MissingExtraError: an LMDB is asked for, and lmdb is not installed.
    """
    if options.type == "SceneDataset":
        scenes = load_scenes(options.dataroot_gt, include=options.include, exclude=options.exclude)
        return SceneSet(
            scenes,
            num_frame=options.num_frame,
            gt_size=options.gt_size,
            reduce=options.reduce,
            still_share=options.still_share,
        )
    pairs = _video_pairs(options) if options.type in _VIDEO_TYPES else _pairs(options)
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
    )
    return PairedSet(pairs, recipe)


_VIDEO_TYPES = ("VideoRecurrentDataset", "VideoDataset")


def _pairs(options: Any) -> list[Pair]:
    opened = LmdbStore if options.io_backend_type == "lmdb" else FolderStore
    gt: Store = opened(options.dataroot_gt)
    lq: Store = opened(options.dataroot_lq)
    if options.meta_info_file is None:
        return found_pairs(gt, lq)
    return listed_pairs(gt, lq, read_clip_list(options.meta_info_file))


def _video_pairs(options: Any) -> list[Pair]:
    if options.meta_info_file is None:
        return found_pairs(VideoStore(options.dataroot_gt), VideoStore(options.dataroot_lq))
    return read_video_list(options.meta_info_file, options.dataroot_gt, options.dataroot_lq)


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
