"""Preparing training and benchmark data: low-resolution folders and lists of clips."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from PIL import Image

from iart.data.pairs import SCALE, read_clip_list
from iart.data.stores.folder import FolderFrames
from iart.errors import DataError, OptionsError, OutputError
from iart.files.complete import Destination, complete_file, writing
from iart.files.images import clip_folders, image_names, opened, write_image
from iart.parallel.ordered import ordered
from iart.pictures.degrade import degrade_bd, degrade_bi

logger = logging.getLogger(__name__)

KINDS = {"bi": degrade_bi, "bd": degrade_bd}
# A PNG text of this name tells how a file was made; PNG ends with the last 8 of these bytes.
MADE = "iart-degradation"
_END = b"IEND\xaeB`\x82"
_ABANDONED_SECONDS = 3600


class _Task(NamedTuple):
    source: Path
    target: Path
    kind: str


def degrade_folder(
    source: Path,
    target: Path,
    kind: str,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the low-resolution PNG of every image below `source` to the same place below `target`.

    A ground truth whose sides are no multiples of 4 is taken without the up to 3 rows below and
    columns at the right that are left over, as the published data were prepared (MATLAB's
    `imresize` alone would round its sides up); training and benchmarks leave them out too.

    Every file appears in one piece. Files of this kind that are there, whole and not older than
    their source are skipped; those that are not are made again.

    Args:
        source: a folder of images, or of clips, at any depth.
        target: made if it is missing.
        kind: "bi", MATLAB's bicubic, or "bd", blur and decimation.
        overwrite: whether files of the same names may be replaced that were not made so.
        progress: called with (files done, files in all).

    Returns:
        How many files were written.

    Raises:
        OptionsError: another kind.
        DataError: no images; `target` lies in `source`; an image that cannot be read or is below
            4×4; two images would get one name; `target` has images of a clip that `source` lacks.
        OutputError: a file is in the way, or the operating system refuses.
    """
    if kind not in KINDS:
        raise OptionsError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    tasks = _tasks(source, target, kind)
    if not overwrite:
        for task in tasks:
            refuse_foreign(task.target, is_ours=is_made(task.target, kind))
    written = uneven = 0
    if progress:
        progress(0, len(tasks))
    workers = os.cpu_count() or 1
    for done, (wrote, left_over) in enumerate(ordered(_degrade, tasks, workers=workers), 1):
        written += wrote
        uneven += left_over
        if progress:
            progress(done, len(tasks))
    if uneven:
        logger.warning(
            "%d images have sides that are no multiples of %d: rows below and columns at the right"
            " were left out",
            uneven,
            SCALE,
        )
    return written


def _tasks(source: Path, target: Path, kind: str) -> list[_Task]:
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"cannot write to '{target}': it lies in '{source}', which is read")
    clips = clip_folders(source)
    if not clips:
        raise DataError(f"no images in '{source}': expected a folder of images, or of clips")
    tasks: list[_Task] = []
    for clip, folder in clips.items():
        place = target / clip
        names = {f"{Path(name).stem}.png": name for name in image_names(folder)}
        if len(names) < len(image_names(folder)):
            raise DataError(f"'{folder}' has two images of one name: their PNG would be the same")
        if place.is_dir():
            if foreign := set(image_names(place)) - set(names):
                raise DataError(
                    f"'{place}' has '{min(foreign)}', which '{folder}' lacks; remove it or pass"
                    " another folder"
                )
            _remove_abandoned(place)
        tasks += [_Task(folder / name, place / png, kind) for png, name in names.items()]
    return tasks


def _remove_abandoned(folder: Path) -> None:
    """Files that a run which was killed did not finish."""
    for part in folder.glob(".*.part"):
        if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
            part.unlink(missing_ok=True)


def _degrade(task: _Task) -> tuple[bool, bool]:
    """(whether it was written, whether rows or columns were left over)."""
    with opened(task.source, str(task.source)) as image:
        height, width = (side // SCALE * SCALE for side in image.size)
        left_over = (height, width) != image.size
        if not (width and height):
            raise DataError(f"image '{task.source}' is {image.size[1]}×{image.size[0]}: below 4×4")
        if _is_done(task, (width // SCALE, height // SCALE)):
            return False, left_over
        truth = image.read((0, 0, width, height))
    low = KINDS[task.kind](rearrange(torch.from_numpy(truth.copy()), "h w c -> c h w"))
    write_image(task.target, low, {MADE: task.kind})
    return True, left_over


def _is_done(task: _Task, size: tuple[int, int]) -> bool:
    try:
        if task.target.stat().st_mtime < task.source.stat().st_mtime:
            return False
        with task.target.open("rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            whole = file.read() == _END
        with Image.open(task.target) as image:
            return whole and image.size == size and image.info.get(MADE) == task.kind
    except (OSError, ValueError, SyntaxError):
        return False


def is_made(path: Path, made: str | None = None) -> bool:
    """Whether an image is there that was made here, and if `made` is given, so."""
    with suppress(DataError), opened(path, str(path)) as image:
        return MADE in image.texts if made is None else image.texts.get(MADE) == made
    return False


def refuse_foreign(target: Path, *, is_ours: bool) -> None:
    """Refuse to replace a file that was not made by the same command.

    Raises:
        OutputError: it is there, and not ours.
    """
    if target.exists() and not is_ours:
        raise OutputError(
            f"cannot write '{target}': a file is there that this command did not make; pass "
            "--overwrite to replace it, or choose another folder"
        )


def make_meta(
    folder: Path,
    target: Path,
    *,
    only: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the list of clips that training reads, `000 100 (720,1280,3)` a line.

    Args:
        folder: of the ground truth, clips at any depth.
        target: the list.
        only: a list of the clips to take, see `read_clip_list`, such as `sep_trainlist.txt` of
            Vimeo-90K; all clips if not given.
        overwrite: whether another file of that name may be replaced.
        progress: called with (clips done, clips in all).

    Returns:
        How many clips the list has.

    Raises:
        DataError: no clips, or one of `only` is missing; an image cannot be read.
        OutputError: something else has that name, or the operating system refuses.
    """
    if only is None:
        clips = clip_folders(folder)
    else:
        clips = {name: folder / name for name in read_clip_list(only)}
    if not clips:
        raise DataError(f"no clips in '{folder}': expected folders of images below it")
    lines: list[str] = []
    for done, (name, place) in enumerate(clips.items(), 1):
        frames = FolderFrames(place, name)
        lines.append(f"{name} {frames.count} ({frames.size[0]},{frames.size[1]},3)\n")
        if progress:
            progress(done, len(clips))
    content = "".join(lines).encode()
    with writing(target):
        if target.is_file() and target.read_bytes() == content:
            return len(lines)
    Destination(target, overwrite=overwrite)
    with complete_file(target) as file:
        file.write(content)
    return len(lines)
