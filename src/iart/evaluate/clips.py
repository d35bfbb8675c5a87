"""The frames of a protocol on disk: found, and checked before anything is computed.

The layout is BasicSR's: a folder of images per clip, below one folder of ground truth and one of
low-resolution frames. Images belong together by their order (natural: 2 before 10), not by name.
Sizes are read from the images' headers; nothing is decoded.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from iart.data.pairs import SCALE, read_clip_list
from iart.data.prepare import degrade_folder, is_made
from iart.errors import DataError, InputError, OptionsError
from iart.evaluate.protocol import Protocol
from iart.files.complete import locked, writing
from iart.files.images import image_size
from iart.video.read.image_series import find_images
from iart.weights.tensorfile import some


@dataclass(frozen=True)
class Clip:
    """One clip to measure.

    Attributes:
        name: in the protocol.
        size: (height, width) that is scored: of the ground truth without rows below and columns at
            the right that fill no 4×4 pixels.
        scored: which of the clip's frames are scored, counted from 0.
        gt: the ground truth of these.
        lq: the low-resolution frames that the network sees; may be empty if there are results.
        results: frames made elsewhere, one for each of `gt`; empty if the network makes them.
        lr_made: the low-resolution frames were made here.
    """

    name: str
    size: tuple[int, int]
    scored: tuple[int, ...]
    gt: tuple[Path, ...]
    lq: tuple[Path, ...]
    results: tuple[Path, ...] = ()
    lr_made: bool = False


def find_clips(
    protocol: Protocol,
    data: Path,
    *,
    results: Path | None = None,
    limit: int | None = None,
) -> tuple[Clip, ...]:
    """The protocol's clips, complete and of sizes that fit.

    Args:
        protocol: what to look for.
        data: the folder that the protocol's places are below.
        results: a folder of frames made elsewhere; the low-resolution ones are not needed then.
        limit: a quick look: only the first frames of each clip, or where the centre frame alone is
            scored, only the first clips.

    Raises:
        DataError: something is missing, is too much, or has the wrong size.
    """
    if limit is not None and limit < 1:
        raise OptionsError(f"limit must be at least 1, got {limit}")
    counts = _frame_counts(protocol, data)
    gt, lq = data / protocol.gt, low_resolution_folder(protocol, data)
    if not gt.is_dir():
        raise DataError(f"there is no folder '{gt}'. {_expected_layout(protocol, data)}")
    has_lr = lq.is_dir()
    if not has_lr and results is None:
        raise DataError(
            f"there is no folder '{lq}'. {_expected_layout(protocol, data)}; "
            "make_lr (--make-lr) makes it from the ground truth"
        )
    if results is not None and not results.is_dir():
        raise DataError(f"there is no folder '{results}' of frames to score")
    for folder in (gt, lq) if has_lr else (gt,):
        _require_clips(protocol, counts, folder)
    if limit is not None and protocol.score_frames == "centre":
        counts = dict(list(counts.items())[:limit])
    places = (gt, lq if has_lr else None, results)
    return tuple(
        _find_clip(protocol, name, count, *places, limit) for name, count in counts.items()
    )


def low_resolution_folder(protocol: Protocol, data: Path) -> Path:
    """The first of the protocol's places that exists, else the first."""
    places = [data / place for place in protocol.lq]
    return next((place for place in places if place.is_dir()), places[0])


def make_low_resolution(
    protocol: Protocol, data: Path, *, progress: Callable[[int, int], None] | None = None
) -> bool:
    """Make the low-resolution frames of the protocol's clips if their folder is missing.

    They are made in a folder beside, which gets its name when complete; a call that was interrupted
    is gone on with by the next.

    Returns:
        Whether anything had to be made.

    Raises:
        DataError: the ground truth is missing or incomplete.
        OutputError: the folder cannot be written.
    """
    target, gt = low_resolution_folder(protocol, data), data / protocol.gt
    if target.is_dir():
        return False
    assert protocol.degradation is not None  # of protocols whose clips are not made
    counts = _frame_counts(protocol, data)
    if not gt.is_dir():
        raise DataError(f"there is no folder '{gt}'. {_expected_layout(protocol, data)}")
    _require_clips(protocol, counts, gt)
    for name, count in counts.items():
        _find_images(gt / name, {count}, "frames")
    part = target.with_name(f"{target.name}.part")
    done, total = 0, sum(counts.values())
    with writing(target), ExitStack() as stack:
        part.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder goes when another process has made it
            stack.enter_context(locked(part / ".lock"))
        if target.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            return False
        for name, count in counts.items():
            (part / name).mkdir(parents=True, exist_ok=True)
            # The folder is this function's own, also one that an earlier version began.
            degrade_folder(gt / name, part / name, protocol.degradation, overwrite=True)
            done += count
            if progress is not None:
                progress(done, total)
        part.replace(target)
        (target / ".lock").unlink()
    return True


def _frame_counts(protocol: Protocol, data: Path) -> dict[str, int]:
    """Clip → its number of frames."""
    if not data.is_dir():
        raise DataError(
            f"there is no data folder '{data}'. {_expected_layout(protocol, data)}; "
            "pass another folder with data (--data)"
        )
    if protocol.clips:
        return dict(protocol.clips)
    places = [data / place for place in protocol.clip_list]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(
            f"there is no list of clips '{places[0]}'"
            + (f" (nor {some(str(p) for p in places[1:])})" if places[1:] else "")
            + ": expected a text file with a clip at the start of each line, such as '00001/0266'"
        )
    names = list(read_clip_list(file))
    if protocol.clip_count not in (None, len(names)):
        raise DataError(
            f"the list '{file}' names {len(names)} clips, but {protocol.name} has "
            f"{protocol.clip_count}. Get the list of the test set"
        )
    assert protocol.frames is not None
    return dict.fromkeys(names, protocol.frames)


def _expected_layout(protocol: Protocol, data: Path) -> str:
    clips = f"({some(protocol.clips, 4)})" if protocol.clips else "of the list"
    return (
        f"{protocol.name} expects a folder of images for each clip {clips} "
        f"in '{data / protocol.gt}' and '{data / protocol.lq[0]}'"
    )


def _require_clips(protocol: Protocol, counts: dict[str, int], folder: Path) -> None:
    """Refuse a folder that lacks clips, or holds others than the protocol names itself."""
    missing = [name for name in counts if not (folder / name).is_dir()]
    extra: list[str] = []
    if protocol.clips:
        wanted = {Path(name).parts[0] for name in counts}
        present = (entry.name for entry in folder.iterdir() if entry.is_dir())
        extra = sorted(n for n in present if n not in wanted and not n.startswith("."))
    problems = [f"missing {some(missing)}"] if missing else []
    problems += [f"too many: {some(extra)}"] if extra else []
    if problems:
        raise DataError(
            f"'{folder}' does not hold exactly the {len(counts)} clips of {protocol.name}: "
            f"{'; '.join(problems)}. A score of other clips cannot be compared"
        )


def _find_clip(
    protocol: Protocol,
    name: str,
    count: int,
    gt: Path,
    lq: Path | None,
    results: Path | None,
    limit: int | None,
) -> Clip:
    if protocol.score_frames == "centre":
        scored = (count // 2,)
    else:
        scored = tuple(range(count if limit is None else min(limit, count)))
    sharp = _pick(_find_images(gt / name, {count, len(scored)}, "ground-truth frames"), scored)
    small: list[Path] = []
    if lq is not None:
        small = _find_images(lq / name, {count}, "low-resolution frames")
        if protocol.score_frames == "all":
            small = small[: len(scored)]
    made: list[Path] = []
    if results is not None:
        folder = results / name
        flat = _flat_result(results, name) if protocol.score_frames == "centre" else None
        found = [flat] if flat else _find_images(folder, {count, len(scored)}, "frames to score")
        made = _pick(found, scored)
    whole = _common_size(sharp)
    size = (whole[0] // SCALE * SCALE, whole[1] // SCALE * SCALE)
    if small:
        small_size = _common_size(small)
        if size != (SCALE * small_size[0], SCALE * small_size[1]):
            raise DataError(
                f"clip '{name}': frames of {_text(whole)} in '{gt}' and of {_text(small_size)} in "
                f"'{lq}'; expected ground truth {SCALE} times as large"
            )
    if made and (made_size := _common_size(made)) not in (whole, size):
        raise DataError(
            f"clip '{name}': '{made[0]}' is {_text(made_size)}, "
            f"but its ground truth '{sharp[0]}' is {_text(whole)}"
        )
    lr_made = bool(small) and is_made(small[0])
    return Clip(name, size, scored, tuple(sharp), tuple(small), tuple(made), lr_made)


def _find_images(folder: Path, counts: set[int], what: str) -> list[Path]:
    """The images of a folder, as many as expected."""
    try:
        if not folder.is_dir():
            raise DataError(f"there is no folder '{folder}' of {what}")
        images = find_images(folder)
    except InputError as error:
        raise DataError(f"no {what} in '{folder}': {error}") from error
    if len(images) not in counts:
        expected = " or ".join(str(count) for count in sorted(counts, reverse=True))
        raise DataError(f"'{folder}' holds {len(images)} {what}, expected {expected}")
    return images


def _pick(images: list[Path], scored: Sequence[int]) -> list[Path]:
    """The scored ones of all images of a clip, or all if they are just these."""
    return images if len(images) == len(scored) else [images[index] for index in scored]


def _flat_result(results: Path, name: str) -> Path | None:
    """`00001_0266.png`, as the published script for Vimeo-90K-T saves centre frames."""
    stem = name.replace("/", "_")
    places = (results / f"{stem}{ending}" for ending in (".png", ".jpg", ".webp"))
    return next((place for place in places if place.is_file()), None)


def _common_size(images: Sequence[Path]) -> tuple[int, int]:
    size = image_size(images[0])
    for image in images[1:]:
        if (other := image_size(image)) != size:
            raise DataError(
                f"'{image}' is {_text(other)}, but '{images[0].name}' beside it is {_text(size)}"
            )
    return size


def _text(size: tuple[int, int]) -> str:
    """Width × height, as people say it."""
    return f"{size[1]}×{size[0]}"
