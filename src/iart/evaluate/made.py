"""Frames of protocols whose clips are made on the spot: a source that moves, and its degradation.

All of it is data of the protocol: sources, seeds of motion, every parameter of the degradation. The
same numbers give the same frames, for one build of PyAV on one kind of processor.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from itertools import cycle
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.clips import Scene, there_and_back
from iart.data.degradation.chain import degrade
from iart.data.degrade_clips import degraded, reader
from iart.data.drawn import draw_leaves
from iart.data.motion import Speed, moving_pictures
from iart.data.stores.folder import FolderFrames
from iart.errors import DataError
from iart.evaluate.protocol import MadeClip, Protocol
from iart.files.complete import PendingOutput, make_folder
from iart.files.images import clip_folders, opened, write_image
from iart.pictures.degrade import to_uint8
from iart.video.open import open_video

SIDE = 320
"""Of the ground truth of stills that move, in pixels."""
_SHOWN = 384, 320  # width and height of the part of the demo clip
_ZOOM, _TURN = 0.006, 0.006
_DRAWN_SIDE = 900
_FROZEN = 20261127  # first word of seeds, which training does not use


def make_frames(
    protocol: Protocol,
    *,
    own: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Protocol, Path]:
    """Make the protocol's frames, unless they are there.

    Args:
        protocol: one with `made` clips.
        own: a folder of clips, degraded instead of the protocol's, by its degradations in turn.
        progress: called with (frames done, frames in all).

    Returns:
        The protocol whose clips these are, and the folder that its places are below.

    Raises:
        DataError: `own` holds no clips, or an image cannot be read.
        OutputError: the frames cannot be written.
    """
    if own is not None:
        protocol = _with_own_clips(protocol, own)
    content = f"{protocol.model_dump_json()} {own} {sorted(av.library_versions.items())}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    folder = Path("results", protocol.name, f"frames-{digest}")
    if folder.is_dir():
        return protocol, folder
    make_folder(folder.parent)
    pending = PendingOutput(folder, folder=True)
    try:
        _write(protocol, own, pending.part, progress)
        if folder.is_dir():  # another process was faster
            pending.discard()
        else:
            pending.commit()
    except BaseException:
        pending.discard()
        raise
    for older in folder.parent.glob("frames-*"):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return protocol, folder


def _with_own_clips(protocol: Protocol, own: Path) -> Protocol:
    folders = clip_folders(own) if own.is_dir() else {}
    if not folders:
        raise DataError(
            f"no clips in '{own}': {protocol.name} makes its own, and degrades those of --data "
            "instead if it is given: a folder of images for each"
        )
    clips = {name: FolderFrames(place, name).count for name, place in folders.items()}
    ways = zip(clips, cycle(protocol.made.values()), strict=False)  # ends with the clips
    made = {name: way.model_copy(update={"picture": name}) for name, way in ways}
    note = f"clips of '{own}', not those of the frozen protocol {protocol.name}"
    return protocol.model_copy(update={"clips": clips, "made": made, "note": note})


def _write(
    protocol: Protocol,
    own: Path | None,
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    done, total = 0, sum(protocol.clips.values())
    for name, clip in protocol.made.items():
        count = protocol.clips[name]
        pairs = _frames(clip, count) if own is None else _own_frames(own / name, name, clip)
        for number, (low, truth) in enumerate(pairs):
            file = f"{number:08d}.png"
            write_image(folder / protocol.lq[0] / name / file, low)
            write_image(folder / protocol.gt / name / file, truth)
            done += 1
            if progress is not None:
                progress(done, total)


def _frames(
    clip: MadeClip, count: int
) -> Iterator[tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "3 4*h 4*w"]]]:
    how = clip.degradation
    moments = _moments(clip, how.moments(count), how.moments_per_frame)
    low, shown = degrade(moments, how, count)
    yield from zip(low, to_uint8(moments[list(shown)]), strict=True)


def _moments(clip: MadeClip, count: int, per_frame: int) -> Float[Tensor, "m 3 h w"]:
    """Moments of a clip, `per_frame` of them in the time of a frame."""
    if clip.picture == "demo":
        return _demo(count)
    front, back = _still(clip.picture, clip.seed, 0), _still(clip.behind, clip.seed, 1)
    speed = Speed(clip.shift / per_frame, zoom=_ZOOM / per_frame, turn=_TURN / per_frame)
    rng = np.random.default_rng((_FROZEN, clip.seed))
    return moving_pictures(front, back, count, SIDE, speed, rng)


def _demo(count: int) -> Float[Tensor, "m 3 h w"]:
    """Frames of the demo clip; of pictures with two fields two of them are in each."""
    with resources.as_file(resources.files("iart") / "assets" / "demo.mp4") as path:
        frames = [frame.data for frame in open_video(path, scenes=False)]
    width, height = _SHOWN
    left, top = (frames[0].shape[2] - width) // 2, (frames[0].shape[1] - height) // 2
    chosen = there_and_back(range(count), len(frames))
    return torch.stack([frames[i][:, top : top + height, left : left + width] for i in chosen])


def _still(name: str, seed: int, layer: int) -> Scene:
    if name == "drawn":
        rng = np.random.default_rng((_FROZEN, seed, layer + 1))
        return Scene(name, draw_leaves(rng, _DRAWN_SIDE)[None])
    photo = resources.files("iart") / "assets" / "photos" / f"{name}.webp"
    with resources.as_file(photo) as path, opened(path, name) as image:
        return Scene(name, image.read()[None])


def _own_frames(
    folder: Path, name: str, clip: MadeClip
) -> Iterator[tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "3 4*h 4*w"]]]:
    frames = FolderFrames(folder, name)
    read = reader(frames)
    for number, low in enumerate(degraded(frames, clip.degradation)):
        yield low, to_uint8(read([number])[0])
