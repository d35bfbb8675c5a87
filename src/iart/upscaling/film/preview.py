"""A preview: short pieces spread over the film, enlarged, and a sheet of before and after.

As many frames as the machine is quick: what one takes is measured first.
"""

import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from iart.errors import InputError
from iart.files.complete import complete_file
from iart.files.names import frames_of
from iart.model import IART
from iart.model.upsample import SCALE
from iart.pictures.resize import imresize
from iart.upscaling.budget import Tiling
from iart.upscaling.clip import upscale, upscale_frames
from iart.upscaling.film.plan import encoding_of, open_source, plan_upscale
from iart.upscaling.film.request import Progress, UpscaleRequest
from iart.video.frame import Frame, VideoInfo
from iart.video.write.writer import VideoWriter, is_folder

SECONDS = 25.0
"""What the network may take for a preview: with all that is done beside it, a minute at most."""
FEWEST_FRAMES, MOST_FRAMES = 3, 96
PIECES, SHORTEST_PIECE = 4, 6
"""Most pieces, and frames that each has at least if there are several."""
SHEET_PIXELS = (480, 640)
"""Height and width of what the sheet shows of a picture at most: its middle."""


@dataclass(frozen=True)
class Preview:
    """What a preview has written.

    Attributes:
        video: the pieces, one after the other, without sound.
        sheet: PNG; a row per piece: enlarged by interpolation, and by the model.
        frames: of the video.
    """

    video: Path
    sheet: Path
    frames: int


def preview_frames(seconds_per_frame: float) -> int:
    """How many frames a preview has, by the time that one takes the network."""
    return min(max(int(SECONDS / seconds_per_frame), FEWEST_FRAMES), MOST_FRAMES)


def preview_video(
    request: UpscaleRequest,
    model: nn.Module,
    *,
    frames: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Preview:
    """Enlarge pieces of a film: "out.mkv" becomes "out.preview.mkv" and "out.preview.png".

    Earlier previews are replaced. The pieces look as they will in the film, but for the first and
    last frames of each, which lack their context.

    Args:
        request: for the film; its tracks are left out.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        frames: of all pieces together; None for `preview_frames` of the speed here.
        progress: called after every frame.

    Raises:
        IARTError: as for the film.
    """
    began = clock.monotonic()
    output, _ = frames_of(request.output)
    name, suffix = (output.stem, output.suffix)
    if is_folder(request.output):
        name, suffix = output.name or output.absolute().name, ".mkv"  # "." has no name
    video = output.parent / f"{name}.preview{suffix}"
    sheet = video.with_suffix(".png")
    with plan_upscale(request) as plan:
        request, info, conform = plan.request, plan.info, plan.conform
        if frames is None:
            tiling = plan.tiling(model)
            frames = preview_frames(seconds_per_frame(model, tiling, info.height, info.width))
    # pictures without tracks, as a series of images has them
    like = replace(conform.output(info), container="images", start_seconds=Fraction(0))
    pieces = _pieces(request, info, frames)
    length = frames // len(pieces)
    rows: list[UInt8[np.ndarray, "h w 3"]] = []
    count, end = 0, Fraction(0)
    with VideoWriter(video, like=like, scale=1, overwrite=True, **encoding_of(request)) as writer:
        for piece in pieces:
            middle = _Middle(length // 2)
            begin = end
            with open_source(piece) as reader:
                small = middle.before(conform.before(islice(reader, length)))
                for frame in middle.after(
                    upscale_frames(
                        small,
                        model,
                        window=request.window,
                        overlap=request.overlap,
                        tile=request.tile,
                    )
                ):
                    time = begin + frame.time - middle.first
                    end = time + (frame.duration * frame.time_base or 1 / info.rate)
                    writer.write(replace(conform.after(frame), pts=round(time / frame.time_base)))
                    count += 1
                    if progress is not None:
                        progress(Progress(count, length * len(pieces), clock.monotonic() - began))
            rows += middle.row()
        if not rows:
            raise InputError(f"cannot preview '{request.name}': it holds no frame")
    with complete_file(sheet) as file:
        Image.fromarray(np.concatenate(rows)).save(file, "png")
    return Preview(video, sheet, count)


def _pieces(request: UpscaleRequest, info: VideoInfo, frames: int) -> list[UpscaleRequest]:
    """Parts of what is read, in the clock of the file, evenly spread."""
    if info.duration_seconds is None:
        return [replace(request, start_seconds=info.start_seconds)]
    count = min(max(frames // SHORTEST_PIECE, 1), PIECES)
    length = min(frames // count / info.rate, info.duration_seconds / count)
    middles = ((number + Fraction(1, 2)) / count for number in range(count))
    starts = [info.start_seconds + m * info.duration_seconds - length / 2 for m in middles]
    return [replace(request, start_seconds=start, end_seconds=start + length) for start in starts]


class _Middle:
    """Keeps one frame of a piece, as it comes and as it becomes.

    Attributes:
        first: time of the first frame in seconds.
    """

    def __init__(self, index: int) -> None:
        self.first, self._index = Fraction(0), index
        self._before: Frame | None = None
        self._after: Frame | None = None

    def before(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Note that frame, or the last of fewer."""
        for index, frame in enumerate(frames):
            if index == 0:
                self.first = frame.time
            if index <= self._index:
                self._before = frame
            yield frame

    def after(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Note what became of it."""
        for index, frame in enumerate(frames):
            if index <= self._index:
                self._after = frame
            yield frame

    def row(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The middle of the picture, interpolated and enlarged; nothing if there was no frame."""
        if self._before is None or self._after is None:
            return []
        interpolated = imresize(self._before.data[None], SCALE)[0]
        return [np.concatenate([_cropped(interpolated), _cropped(self._after.data)], axis=1)]


def _cropped(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "y x 3"]:
    _, height, width = image.shape
    y, x = (min(side, most) for side, most in zip((height, width), SHEET_PIXELS, strict=True))
    top, left = (height - y) // 2, (width - x) // 2
    cut = image[:, top : top + y, left : left + x].clamp(0, 1)
    return (cut * 255).round().byte().permute(1, 2, 0).cpu().numpy()


# Frames, height, width of pieces whose time is taken; the larger only if the smaller was quick.
PROBES = ((3, 32, 32), (3, 64, 96))
QUICK_SECONDS = 0.3


def seconds_per_frame(model: nn.Module, tiling: Tiling, height: int, width: int) -> float:
    """How fast a network is here, measured on a small piece; encoding goes on beside it.

    Args:
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        tiling: of the film, whose windows repeat frames.
        height: of its pictures.
        width: of them.
    """
    seconds_per_pixel = 0.0
    for t, h, w in PROBES:
        clip = torch.rand(t, 3, h, w)
        upscale(clip[:, :, :16, :16], model, window=t, overlap=0)  # what is done only once
        seconds = min(_seconds(clip, model) for _ in range(2))  # other programs only add to it
        seconds_per_pixel = seconds / (t * h * w)
        if seconds > QUICK_SECONDS:
            break
    contexts = 1 if isinstance(model, IART) else 2  # its state is carried from window to window
    repeated = tiling.window / (tiling.window - contexts * tiling.overlap)
    return seconds_per_pixel * height * width * repeated


def _seconds(clip: Tensor, model: nn.Module) -> float:
    began = clock.monotonic()
    upscale(clip, model, window=len(clip), overlap=0)
    return clock.monotonic() - began
