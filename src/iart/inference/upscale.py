"""Frames → frames four times larger: a clip in memory, a stream of frames, or a whole video.

A model is any module that takes `b t 3 h w` and gives `b t 3 4h 4w`, RGB in [0, 1]; where its
parameters lie is where it runs. What is done here besides calling it: windows in time
(`iart.inference.windows`), tiles in space (`iart.inference.tiles`), values clamped to [0, 1].
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import DamagedInputError, DeviceError, InputError, OptionsError
from iart.inference.pipeline import read_ahead, write_behind
from iart.inference.report import Progress, UpscaleResult
from iart.inference.tiles import enlarge_in_tiles
from iart.inference.windows import OVERLAP, WINDOW, Window, check_windows, plan_windows
from iart.model import IART
from iart.video.describe import describe_loss
from iart.video.frame import Frame
from iart.video.images import open_video
from iart.video.writer import open_writer

_log = logging.getLogger(__name__)

# Frames between the threads: enough to bridge a burst (a window comes out of the network at once).
READ_AHEAD = 8
WRITE_BEHIND = 4


def upscale(
    clip: Float[Tensor, "t 3 h w"],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: int | None = None,
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """Enlarge a clip that is one scene.

    Args:
        clip: RGB in [0, 1], floating point, on any device; the result is alike.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side in pixels of square tiles, for pictures too large for the memory; None for none.

    Raises:
        OptionsError: the window keeps no frame, the tile is too small, or the clip holds integers.
    """
    if not clip.is_floating_point():
        raise OptionsError(f"upscale takes RGB in [0, 1] in floating point, got {clip.dtype}")
    t, _, h, w = clip.shape
    large = clip.new_empty(t, 3, 4 * h, 4 * w)
    for part in plan_windows(repeat(False, t), window, overlap):
        frames = clip[part.start : part.stop]
        large[part.keep_start : part.keep_stop] = _enlarge(frames, model, part.kept, tile)
    return large


def upscale_frames(
    frames: Iterable[Frame],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: int | None = None,
) -> Iterator[Frame]:
    """Enlarge frames as they come, holding at most `window` + 1 of them.

    Gives as many frames as it takes, with the same times. Windows end where a frame is marked as
    the first of a new scene.

    Args:
        frames: of one size; a `VideoReader`, for instance.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side in pixels of square tiles, for pictures too large for the memory; None for none.

    Raises:
        OptionsError: the window keeps no frame, or the tile is too small.
    """
    check_windows(window, overlap)
    newest: deque[Frame] = deque(maxlen=window + 1)
    count = 0

    def cuts() -> Iterator[bool]:
        nonlocal count
        for frame in frames:
            newest.append(frame)
            count += 1
            yield frame.cut

    for part in plan_windows(cuts(), window, overlap):
        first = count - len(newest)
        members = list(newest)[part.start - first : part.stop - first]
        yield from _enlarge_frames(members, model, part, tile)


def upscale_video(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: int | None = None,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pixel_format: str | None = None,
    drop: Collection[str] = (),
    overwrite: bool = False,
    rate: Fraction = Fraction(25),
    progress: Callable[[Progress], None] | None = None,
) -> UpscaleResult:
    """Enlarge a video file, or a series of images, in constant memory.

    Sound, subtitles, attachments, chapters and metadata go along. Reading, the network and writing
    overlap. The output gets its name when it is complete; after an error nothing is left of it.
    What has to be converted is logged (INFO, "iart.inference.upscale") before the work starts.

    Args:
        source: a file that FFmpeg reads, a folder of images, a pattern such as "shot/*.png",
            or a list of images.
        output: a file (.mp4, .mkv, .mov, .webm) or a folder for images.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side in pixels of square tiles, for pictures too large for the memory; None for none.
        codec: FFmpeg's name of the video encoder; None for the container's default.
        crf: quality, lower is better; None for the codec's default here.
        preset: speed of the encoder, in its own words.
        pixel_format: FFmpeg's name, such as "yuv420p10le"; None to follow the source.
        drop: tracks to leave out: "audio", "subtitle", "attachment", "data" or a stream's index.
        overwrite: replace an output that exists.
        rate: frames per second of a folder of images.
        progress: called after every frame.

    Raises:
        InputError: the source cannot be read or holds no frame.
        OutputError: the output exists, cannot be written, or cannot hold a track or the codec.
        OptionsError: the window keeps no frame, the tile is too small, or an encoder refuses a
            setting.
        DeviceError: the device's memory does not suffice for a window.
        DamagedInputError: parts of the source were lost. The output is complete otherwise, and in
            place; the error lists what is missing.
    """
    check_windows(window, overlap)
    began, count = time.monotonic(), 0
    name = source if isinstance(source, str | Path) else "the images"
    with (
        open_video(source, rate=rate) as reader,
        open_writer(
            output,
            like=reader.info,
            codec=codec,
            crf=crf,
            preset=preset,
            pixel_format=pixel_format,
            drop=drop,
            overwrite=overwrite,
        ) as writer,
        read_ahead(reader, READ_AHEAD) as frames,
        write_behind(writer.write, WRITE_BEHIND) as write,
    ):
        for note in writer.notes:
            _log.info("%s", note)
        for frame in upscale_frames(frames, model, window=window, overlap=overlap, tile=tile):
            write(frame)
            count += 1
            if progress is not None:
                progress(Progress(count, reader.info.frame_count, time.monotonic() - began))
        if count == 0:
            raise InputError(f"cannot read '{name}': it holds no frame that can be decoded")
    losses = (*reader.losses, *writer.losses)
    if losses:
        listed = "; ".join(describe_loss(loss) for loss in losses)
        raise DamagedInputError(f"'{output}' is written, but '{name}' is damaged: {listed}", losses)
    return UpscaleResult(Path(output), count, time.monotonic() - began, writer.notes)


def _enlarge_frames(
    frames: Sequence[Frame], model: nn.Module, part: Window, tile: int | None
) -> Iterator[Frame]:
    """The kept frames of one window."""
    large = _enlarge(torch.stack([frame.data for frame in frames]), model, part.kept, tile)
    for frame, data in zip(frames[part.kept], large, strict=True):
        # A copy, so that a frame that waits for the writer does not keep its whole window.
        yield replace(frame, data=data.clone())


def _enlarge(
    clip: Float[Tensor, "t 3 h w"], model: nn.Module, kept: slice, tile: int | None
) -> Float[Tensor, "kept 3 4*h 4*w"]:
    """Show the model one window, in tiles if asked for; the kept frames come back as `clip` is."""
    like = next(model.parameters(), clip)

    def enlarge(piece: Tensor) -> Tensor:
        try:
            return model(piece[None].to(like))[0, kept].clamp(0, 1).to(clip)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            t, _, h, w = piece.shape
            raise DeviceError(
                f"{like.device} has too little memory for {t} frames of {w}x{h} at once. "
                "Pass a smaller --window or --tile"
            ) from error

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            if tile is None:
                return enlarge(clip)
            return enlarge_in_tiles(clip, enlarge, tile, multiple=_tile_multiple(model))
    finally:
        if training:
            model.train()


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class of its own for GPUs of CUDA only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "backend out of memory"))


def _tile_multiple(model: nn.Module) -> int:
    """Of what tiles should start on a multiple: twice the attention window."""
    return 2 * max(model.config.window[1:]) if isinstance(model, IART) else 1
