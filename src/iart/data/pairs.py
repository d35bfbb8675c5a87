"""Pairs of clips, low resolution and ground truth, from two stores and a list of clips.

A list in BasicSR's form has a line a clip, `000 100 (720,1280,3)`: name, and what the
files tell as well: frames, size of the ground truth.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from iart.data.stores.folder import Frames, Store
from iart.errors import DataError
from iart.files.images import IMAGE_ENDINGS
from iart.files.text import read_text

SCALE = 4
# So many pairs are opened before the first step, spread over the set; `--check` opens all.
_OPENED_AT_START = 500
_SIZE = r"\(\d+, *\d+(, *\d+)?\)"
_LINE = re.compile(rf"(?P<name>\S.*?)(\s+(?P<count>\d+))?(\s+{_SIZE}(\s+\d+)?)?")
# What looks like a size and is none that is known; names may have spaces.
_COLUMN = re.compile(r"\s[(\[]\d+\s*[,;]")


class Pair:
    """One clip twice: what the network sees, and what it should make of it.

    The ground truth may have up to 3 rows below and columns at the right more than 4 times the low
    resolution; they are not used.

    Attributes:
        lq: the low resolution; None if it is made on the way.
        gt: the ground truth.
    """

    def __init__(self, lq: Frames | None, gt: Frames) -> None:
        """Take two clips that go together; see `check`."""
        self.lq, self.gt = lq, gt

    @property
    def name(self) -> str:
        """Of the clip."""
        return self.gt.name

    @property
    def count(self) -> int:
        """Frames of either."""
        return self.gt.count

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the low resolution; both clips have been compared.

        Raises:
            DataError: one cannot be read, or they differ in frames, in their names, or not by 4.
        """
        low, high = self.lq, self.gt
        if low is None:
            return high.size[0] // SCALE, high.size[1] // SCALE
        if low.count != high.count:
            raise DataError(
                f"clip '{self.name}' has {high.count} frames of ground truth, but {low.count} of"
                " low resolution"
            )
        if low.labels is not None and high.labels is not None and low.labels != high.labels:
            odd = min(set(low.labels) ^ set(high.labels))
            raise DataError(f"clip '{self.name}' has frame '{odd}' on one side only")
        if tuple(side // SCALE for side in high.size) != low.size:
            raise DataError(
                f"clip '{self.name}' is {high.size[1]}×{high.size[0]} in ground truth and"
                f" {low.size[1]}×{low.size[0]} in low resolution: expected 4 to 1"
            )
        return low.size

    def problems(self) -> Iterator[str]:
        """What is wrong with any file of the pair, as far as headers tell."""
        try:
            _ = self.size
            if self.lq is not None:
                yield from self.lq.problems()
            yield from self.gt.problems()
        except DataError as error:
            yield str(error)


def read_clip_list(path: Path) -> dict[str, int | None]:
    """Frames by clip, of a list of clips; None where a line does not state them.

    A line starts with the name of a clip. What follows may be BasicSR's `100 (720,1280,3)`, with
    the first frame's number behind it (KAIR), the size alone (mmagic), or nothing.

    Raises:
        DataError: it cannot be read, holds no line, names a clip twice, or has a line of another
            form.
    """
    lines = read_text(path, f"the list of clips '{path}'", DataError).split("\n")
    clips: dict[str, int | None] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (found := _LINE.fullmatch(line.strip())):
            continue
        name = found["name"]
        try:
            check_clip_name(name)
        except ValueError as error:
            raise DataError(f"the list of clips '{path}', line {number}: {error}") from error
        if name in clips:
            raise DataError(
                f"the list of clips '{path}' names a clip twice: '{name}' in lines {numbers[name]}"
                f" and {number}"
            )
        clips[name], numbers[name] = int(found["count"]) if found["count"] else None, number
    if not clips:
        raise DataError(f"the list of clips '{path}' is empty")
    return clips


def check_clip_name(name: str) -> str:
    """Refuse names that are no place below a folder: they become paths.

    Raises:
        ValueError: the name is empty, absolute, leads upwards, or is that of an image.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in IMAGE_ENDINGS:
        raise ValueError(f"'{name}' is an image: expected a folder of images (such as 00001/0266)")
    if not path.parts or name.startswith("/") or ".." in path.parts or "\\" in name:
        raise ValueError(f"'{name}' is no name of a clip (expected e.g. calendar or 00001/0266)")
    if _COLUMN.search(name):
        raise ValueError(f"'{name}' is no name of a clip, or has columns of an unknown form")
    return name


def found_pairs(gt: Store, lq: Store | None) -> list[Pair]:
    """All clips; without `lq` their low resolution is made on the way.

    Raises:
        DataError: a clip is in one store only, or there are none.
    """
    if lq is None:
        return [Pair(None, gt.clip(name)) for name in gt.names()]
    names, low_names = gt.names(), set(lq.names())
    for missing, where in (
        (set(names) - low_names, "low resolution"),
        (low_names - set(names), "ground truth"),
    ):
        if missing:
            raise DataError(
                f"clip '{min(missing)}' has no {where} of that name"
                + (f"; so have {len(missing) - 1} others" if len(missing) > 1 else "")
            )
    return [Pair(lq.clip(name), gt.clip(name)) for name in names]


def check_pairs(pairs: Sequence[Pair], frames: int, side: int) -> None:
    """Say before the first step what would fail at some later one.

    Lengths of all clips are looked at, and files of as many as do not take long.

    Args:
        pairs: of a training set.
        frames: the shortest clip that will do.
        side: height and width of the largest crop of low resolution.

    Raises:
        DataError: there are no pairs, or something does not fit.
    """
    if not pairs:
        raise DataError("the training set has no clips: those of the validation part are left out")
    if short := [pair for pair in pairs if pair.count < frames]:
        raise DataError(
            f"clip '{short[0].name}' has {short[0].count} frames, too short for samples of {frames}"
            f" (so are {len(short) - 1} others); lower num_frame or leave it out of the list"
        )
    for pair in pairs[:: -(-len(pairs) // _OPENED_AT_START)]:
        height, width = pair.size
        if min(height, width) < side:
            raise DataError(
                f"clip '{pair.name}' is {width}×{height} in low resolution, too small for crops of"
                f" {side}×{side}; lower gt_size to {min(height, width) * SCALE} or less"
            )
