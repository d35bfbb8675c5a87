"""Whole clips as DVDs, tapes or the web would have them, written to folders or as FFV1.

Every clip has its own parameters, drawn from the seed and its number. Each frame of low resolution
has the moment of the frame of ground truth of the same number.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import OutputContainer
from av.error import FFmpegError
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from iart.data.augment import degradation_generator
from iart.data.clips import to_clip
from iart.data.degradation.chain import degrade_frames
from iart.data.degradation.draw import draw_kind
from iart.data.degradation.parameters import KINDS, Degradation, Kind
from iart.data.pairs import SCALE
from iart.data.prepare import MADE, is_made, refuse_foreign
from iart.data.stores.folder import FolderFrames, Frames
from iart.data.stores.video import VideoFrames
from iart.errors import DataError, OutputError
from iart.files.complete import PendingOutput, make_folder, output_error
from iart.files.images import clip_folders, video_files, write_image
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.reports.details import sheet

CHAINS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "bicubic")
"""Kinds that `degrade_clips` knows."""
_CHUNK = 24  # frames that are coded at once: memory grows with them
_RATE = Fraction(25)
_SHOWN = 96  # side of the details of a sheet, in pixels of the low resolution
_DRAWS = 3


def degrade_clips(
    source: Path,
    target: Path,
    kind: Kind,
    *,
    seed: int = 0,
    ffv1: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the low resolution of every clip below `source` to the same place below `target`.

    Up to 3 rows below and columns at the right that fill no 4×4 pixels are left out. Clips that an
    earlier call with the same kind and seed has written are skipped.

    Args:
        source: folders of images, and videos, at any depth.
        target: made if it is missing.
        kind: of `CHAINS`.
        seed: of all parameters.
        ffv1: write a lossless video (Matroska) of each clip instead of a folder of PNG.
        overwrite: whether what is there may be replaced if it was not made so.
        progress: called with (frames done, frames in all).

    Returns:
        How many frames were written.

    Raises:
        DataError: no clips; `target` lies in `source`; a file that cannot be read.
        OutputError: a file is in the way, or the operating system refuses.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"cannot write to '{target}': it lies in '{source}', which is read")
    clips = _clips(source)
    made = f"{kind} seed {seed}"
    done = written = 0
    total = sum(clip.count for clip in clips.values())
    left: list[tuple[int, Frames, list[Path]]] = []
    for number, clip in enumerate(clips.values()):
        files = _files(clip, target, ffv1=ffv1)
        there = [_is_made(file, made, ffv1=ffv1) for file in files]
        if not overwrite:
            for file, is_ours in zip(files, there, strict=True):
                refuse_foreign(file, is_ours=is_ours)
        if all(there):
            done += clip.count
        else:
            left.append((number, clip, files))
    for number, clip, files in left:
        how = draw_kind(kind, degradation_generator(seed, number))
        frames = _shown(degraded(clip, how), done, total, progress)
        if ffv1:
            size = clip.size[0] // SCALE, clip.size[1] // SCALE
            write_ffv1(files[0], frames, size, f"{MADE}: {made}", overwrite=overwrite)
        else:
            for file, frame in zip(files, frames, strict=True):
                write_image(file, frame, {MADE: made})
        done, written = done + clip.count, written + clip.count
    return written


def degradation_sheet(source: Path, seed: int = 0) -> Image.Image:
    """Every kind beside the clean reduction: details of the first clip, a row per draw.

    Raises:
        DataError: no clips, or a file that cannot be read.
    """
    clip = next(iter(_clips(source).values()))
    chosen = range(clip.count // 2, clip.count // 2 + 1)
    rows = []
    for draw in range(_DRAWS):
        details = [degrade_bi(to_uint8(reader(clip)(chosen)))[0]]
        for kind in CHAINS:
            how = draw_kind(kind, degradation_generator(seed + draw, 0))
            details.append(degrade_frames(reader(clip), chosen, clip.count, how)[0])
        rows.append((f"seed {seed + draw}", [_middle(detail) for detail in details]))
    return sheet(("bicubic", *CHAINS), rows, zoom=4)


def _middle(picture: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 _ _"]:
    height, width = picture.shape[-2:]
    top, left = max(height - _SHOWN, 0) // 2, max(width - _SHOWN, 0) // 2
    return picture[:, top : top + _SHOWN, left : left + _SHOWN]


def _clips(source: Path) -> dict[str, Frames]:
    clips: dict[str, Frames] = {
        n: FolderFrames(place, n) for n, place in clip_folders(source).items()
    }
    for path in video_files(source):
        name = path.relative_to(source).with_suffix("").as_posix()
        if name in clips:
            raise DataError(f"'{source}' has two clips of the name '{name}'")
        clips[name] = VideoFrames(path, name)
    if not clips:
        raise DataError(f"no clips in '{source}': expected folders of images, or videos")
    for name, clip in clips.items():
        if min(clip.size) < SCALE:
            raise DataError(f"clip '{name}' is {clip.size[1]}×{clip.size[0]}: below 4×4")
    return clips


def _files(clip: Frames, target: Path, *, ffv1: bool) -> list[Path]:
    if ffv1:
        return [target / ("clip.mkv" if clip.name == "." else f"{clip.name}.mkv")]
    labels = clip.labels or [f"{number:08d}" for number in range(clip.count)]
    return [target / clip.name / f"{label}.png" for label in labels]


def reader(clip: Frames) -> Callable[[Sequence[int]], Float[Tensor, "m 3 h w"]]:
    """What gives frames of a clip by their numbers; sides are cut to multiples of 4."""
    height, width = (side // SCALE * SCALE for side in clip.size)

    def read(places: Sequence[int]) -> Float[Tensor, "m 3 h w"]:
        # videos are read forwards, each frame once
        distinct = sorted(set(places))
        frames = clip.read(distinct, 0, 0, height, width)
        return to_clip(frames[[distinct.index(place) for place in places]])

    return read


def degraded(clip: Frames, how: Degradation) -> Iterator[UInt8[Tensor, "3 h w"]]:
    """The frames of a whole clip as degraded, each of the moment of its ground truth.

    Raises:
        DataError: the clip cannot be read, or FFmpeg refuses to code its pictures.
    """
    for first in range(0, clip.count, _CHUNK):
        chosen = range(first, min(first + _CHUNK, clip.count))
        yield from degrade_frames(reader(clip), chosen, clip.count, how)


def _shown(
    frames: Iterator[UInt8[Tensor, "3 h w"]],
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[UInt8[Tensor, "3 h w"]]:
    for number, frame in enumerate(frames, done + 1):
        yield frame
        if progress is not None:
            progress(number, total)


def _is_made(file: Path, made: str, *, ffv1: bool) -> bool:
    """Whether a file is there that the same command has made."""
    if not ffv1:
        return is_made(file, made)
    try:
        with av.open(str(file)) as container:
            return container.metadata.get("COMMENT") == f"{MADE}: {made}"
    except (FFmpegError, OSError):
        return False


def write_ffv1(
    file: Path,
    frames: Iterator[UInt8[Tensor, "3 h w"]],
    size: tuple[int, int],
    comment: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write RGB without loss, as one complete Matroska file or none.

    Args:
        file: to write; missing folders are made.
        frames: all of them.
        size: (height, width) of each.
        comment: that the file carries.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputError: a file is in the way, or the operating system refuses.
    """
    make_folder(file.parent)
    pending = PendingOutput(file, suffix=".mkv", overwrite=overwrite)
    try:
        container = cast(OutputContainer, av.open(str(pending.part), "w", format="matroska"))
        with container:
            container.metadata["comment"] = comment
            stream = container.add_stream("ffv1", rate=_RATE)
            stream.pix_fmt = "bgr0"
            stream.height, stream.width = size
            for frame in frames:
                picture = frame.permute(1, 2, 0).contiguous().numpy()
                image = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
        pending.commit()
    except FFmpegError as error:
        raise OutputError(f"cannot write '{file}': {error}") from error
    except OSError as error:
        raise output_error(file, error) from error
    finally:
        pending.discard()
