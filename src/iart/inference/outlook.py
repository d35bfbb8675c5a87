"""What an upscale will do, told before it is done: sizes, tracks, memory, time."""

import tempfile
import time
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from iart.errors import DeviceError, InputError, OutputError
from iart.inference.coloring import check_hdr
from iart.inference.conform import plan_conform
from iart.inference.tiling import TileOption, Tiling, film_bytes, network_bytes, plan_tiling
from iart.inference.upscale import upscale
from iart.inference.windows import OVERLAP, WINDOW, check_windows
from iart.model.upsample import SCALE
from iart.video.borders import find_borders
from iart.video.codecs import CONTAINERS
from iart.video.describe import describe
from iart.video.frame import VideoInfo
from iart.video.images import open_video
from iart.video.tracks import open_source, plan_tracks
from iart.video.writer import open_writer

PROCESS_BYTES = 450_000_000
"""Of PyTorch and FFmpeg themselves."""
# Frames, height, width of pieces whose time is taken; the larger only if the smaller was quick.
PROBES = ((3, 32, 32), (3, 64, 96))
QUICK_SECONDS = 0.3

Lines = list[tuple[str, str]]


def foresee(
    source: str | Path,
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: TileOption = "auto",
    rate: Fraction = Fraction(25),
    precision: str = "float32",
) -> Lines:
    """Labelled lines: what the source is, what becomes of it, and roughly what that takes.

    The output is taken to have the source's kind of container if that can be written, else .mkv.

    Args:
        source: a file that FFmpeg reads, a folder of images, or a pattern.
        model: its speed is measured for a moment.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side of square tiles in pixels; "auto" as memory allows; None for none.
        rate: frames per second of a folder of images.
        precision: that the model computes in.

    Raises:
        InputError: the source cannot be read.
        OptionsError: the window keeps no frame.
    """
    check_windows(window, overlap)
    with open_video(source, rate=rate) as reader:
        info = reader.info
    fates, lines = _output(info)
    lines = [
        (label, f"{text} → {fates[label]}" if label in fates else text)
        for label, text in describe(info)
    ] + lines
    borders = find_borders(source)
    if borders is not None:
        lines.append(("borders", f"black around {borders}; --crop auto leaves them out"))
    try:
        tiling = plan_tiling(
            model,
            info.height,
            info.width,
            window=window,
            overlap=overlap,
            tile=tile,
            precision=precision,
            beside=film_bytes(info.height, info.width),
        )
    except DeviceError as error:
        return [*lines, ("problem", str(error))]
    lines.append(("memory", _memory(info, model, tiling, precision)))
    lines.append(("time", _time(info, model, tiling.window, tiling.overlap)))
    return lines


def _output(info: VideoInfo) -> tuple[dict[str, str], Lines]:
    """What becomes of each track, by its label; and lines about the output."""
    suffix = info.path.suffix.lower()
    suffix = suffix if suffix.removeprefix(".") in CONTAINERS else ".mkv"
    lines = [("output", f"{SCALE * info.width}x{SCALE * info.height}, {suffix}")]
    fates: dict[str, str] = {}
    conform = plan_conform(info)
    lines += [("note", note) for note in conform.notes]
    try:
        check_hdr(info, "refuse", "yuv420p")
        if info.tracks:
            with open_source(info.path) as container:
                kind = CONTAINERS[suffix.removeprefix(".")]
                plans = plan_tracks(container, info.stream_index, kind).carried
            fates = {f"track {track.index}": "left out" for track in info.tracks}
            fates |= {f"track {plan.index}": _fate(plan.target) for plan in plans}
        with tempfile.TemporaryDirectory() as folder:
            writer = open_writer(Path(folder) / f"out{suffix}", like=conform.output(info), scale=1)
            writer.abort()
            lines += [("note", note) for note in writer.notes]
    except (InputError, OutputError) as error:
        lines.append(("problem", str(error)))
    return fates, lines


def _fate(target: str) -> str:
    return "copied" if target in ("copy", "attach") else f"converted to {target}"


def _memory(info: VideoInfo, model: nn.Module, tiling: Tiling, precision: str) -> str:
    height, width = info.height, info.width
    network = network_bytes(model, tiling, height, width, precision)
    network += sum(p.nbytes for p in model.parameters())
    total = network + PROCESS_BYTES + film_bytes(height, width)
    return (
        f"about {total / 1e9:.1f} GB ({network / 1e9:.1f} GB of it for the network): "
        f"{tiling.describe(height, width)}"
    )


def _time(info: VideoInfo, model: nn.Module, window: int, overlap: int) -> str:
    """From pixels per second on a small piece; encoding, which goes on beside it, not counted."""
    device = next(model.parameters(), torch.empty(0)).device
    seconds_per_pixel = 0.0
    for t, h, w in PROBES:
        clip = torch.rand(t, 3, h, w)
        upscale(clip[:, :, :16, :16], model, window=t, overlap=0)  # what is done only once
        seconds = min(_seconds(clip, model) for _ in range(2))  # other programs only add to it
        seconds_per_pixel = seconds / (t * h * w)
        if seconds > QUICK_SECONDS:
            break
    repeated = window / (window - 2 * overlap)
    seconds_per_frame = seconds_per_pixel * info.height * info.width * repeated
    text = f"about {1 / seconds_per_frame:.1f} frames/s on {device}"
    if info.frame_count is None:
        return text
    return f"{text}, {timedelta(seconds=round(seconds_per_frame * info.frame_count))} in all"


def _seconds(clip: Tensor, model: nn.Module) -> float:
    began = time.monotonic()
    upscale(clip, model, window=len(clip), overlap=0)
    return time.monotonic() - began
