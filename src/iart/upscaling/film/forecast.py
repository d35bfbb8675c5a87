"""What an upscale will do, told before it is done."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Unpack

from torch import nn

from iart.errors import DeviceError, InputError, OutputError
from iart.upscaling.budget import device_of, film_bytes, network_bytes
from iart.upscaling.film.job import begun_segments, known_tiling
from iart.upscaling.film.plan import UpscalePlan, open_source, plan_upscale, resolved
from iart.upscaling.film.preview import preview_frames, seconds_per_frame
from iart.upscaling.film.request import Source, UpscaleOptions, UpscaleRequest
from iart.video.frame import VideoInfo
from iart.video.read.borders import find_borders
from iart.video.read.describe import describe
from iart.video.write.codecs import CONTAINERS
from iart.video.write.image_series import PicturePlan
from iart.video.write.muxer import FilmPlan

PROCESS_BYTES = 450_000_000
"""Memory of PyTorch and FFmpeg themselves."""

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Forecast:
    """What an upscale would be.

    Attributes:
        lines: labelled: what the source is, what becomes of it, and roughly what that takes.
        preview_seconds: length of a piece that takes a minute at most; None if the work is refused.
    """

    lines: Lines
    preview_seconds: float | None = None


def dry_run(request: UpscaleRequest, model: nn.Module, *, processes: int = 1) -> Lines:
    """Check everything that is checked before the work, and write nothing.

    Args:
        request: what would be done.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        processes: that would share the work.

    Returns:
        Labelled lines: the source, the output, what becomes of tracks, and where the work begins.

    Raises:
        IARTError: the work would be refused.
    """
    with plan_upscale(request) as plan:
        info, target = plan.info, plan.target
        place = plan.place()
        # lengths in headers are estimates: only a look tells that a range lies behind the end
        if info.frame_count == 0 and next(iter(plan.reader), None) is None:
            raise InputError(
                f"cannot read '{request.name}': it holds no frame in the range that can be decoded"
            )
        begun = begun_segments(place, plan.identity(model), overwrite=request.overwrite)
        kept = plan.store(begun).count() if begun else 0
        expected = "" if info.frame_count is None else f" of {info.frame_count}"
        lines = [(label, text) for label, text in describe(info) if not label.startswith("track")]
        size = f"{target.path}, {plan.conform.geometry}"
        if isinstance(target, PicturePlan):
            lines.append(("output", f"{size}, PNG"))
        else:
            encoding = target.encode.encoding
            options = (f"{k}={v}" for k, v in encoding.options.items() if k != "x265-params")
            words = ", ".join((encoding.encoder, encoding.pixel_format, " ".join(options)))
            lines += [("output", size), ("codec", words)]
            lines += [
                (track.name, _outcome(track.target).removeprefix("converted "))
                for track in target.tracks.carried
            ]
        lines += [("note", note) for note in plan.notes]
        tiling = None if begun is None else known_tiling(begun.parent)
        tiling = tiling or plan.tiling(model, processes=processes)
        lines.append(("network", tiling.describe(info.height, info.width)))
        lines.append(("begins", f"at frame {kept}{expected}"))
    return lines


def forecast(
    source: Source,
    model: nn.Module,
    *,
    container: str | None = None,
    **options: Unpack[UpscaleOptions],
) -> Forecast:
    """What the source is, what becomes of it, and roughly what that takes.

    The output is taken to have the source's kind of container if that can be written, else .mkv.

    Args:
        source: a file that FFmpeg reads, a folder of images, a pattern, or a list of images.
        model: its speed is measured for a moment.
        container: of the output, "mp4".
        options: see `UpscaleRequest`.

    Raises:
        InputError: the source cannot be read.
        OptionsError: the window keeps no frame.
    """
    suffix = f".{container}" if container else ""
    if not suffix and isinstance(source, str | Path):
        suffix = Path(source).suffix.lower()
    suffix = suffix if suffix.removeprefix(".") in CONTAINERS else ".mkv"
    request = UpscaleRequest(source, f"output{suffix}", **options)
    try:
        with plan_upscale(request) as plan:
            info = plan.info
            outcomes = {f"track {track.index}": "left out" for track in info.tracks}
            if isinstance(plan.target, FilmPlan):
                outcomes |= {
                    f"track {track.index}": _outcome(track.target)
                    for track in plan.target.tracks.carried
                }
            lines = [
                (label, f"{text} → {outcomes[label]}" if label in outcomes else text)
                for label, text in describe(info)
            ]
            lines.append(("output", f"{plan.conform.geometry}, {suffix}"))
            lines += [("note", note) for note in plan.notes]
            return _with_needs(lines, plan, model)
    except (InputError, OutputError) as error:
        with open_source(resolved(request)) as reader:  # which may be what is wrong
            return Forecast([*describe(reader.info), ("problem", str(error))])


def _outcome(target: str) -> str:
    return "copied" if target in ("copy", "attach") else f"converted to {target}"


def _with_needs(lines: Lines, plan: UpscalePlan, model: nn.Module) -> Forecast:
    """Borders that could be left out, memory, time, and how long a preview is, after `lines`."""
    borders = None if plan.request.crop else find_borders(plan.request.source)
    if borders is not None:
        lines.append(("borders", f"black around {borders}; --crop auto leaves them out"))
    try:
        tiling = plan.tiling(model)
    except DeviceError as error:
        return Forecast([*lines, ("problem", str(error))])
    height, width = plan.info.height, plan.info.width
    network = network_bytes(model, tiling, height, width)
    network += sum(p.nbytes for p in model.parameters())
    total = network + PROCESS_BYTES + film_bytes(height, width)
    memory = (
        f"about {total / 1e9:.1f} GB ({network / 1e9:.1f} GB of it for the network): "
        f"{tiling.describe(height, width)}"
    )
    seconds = seconds_per_frame(model, tiling, height, width)
    frames = preview_frames(seconds)
    frames = min(frames, plan.info.frame_count or frames)
    # not longer: one more frame would be in it
    preview_seconds = int(100 * frames / plan.info.rate) / 100
    took = timedelta(seconds=round(frames * seconds))
    lines += [
        ("memory", memory),
        ("time", _time(plan.info, seconds, device_of(model))),
        ("preview", f"{frames} frames ({preview_seconds} s), about {took}"),
    ]
    return Forecast(lines, preview_seconds)


def _time(info: VideoInfo, seconds_per_frame: float, device: object) -> str:
    speed = 1 / seconds_per_frame
    told = f"{speed:.1f} frames/s" if speed >= 1 else f"{seconds_per_frame:.1f} s a frame"
    text = f"about {told} on {device}"
    if info.frame_count is None:
        return text
    return f"{text}, {timedelta(seconds=round(seconds_per_frame * info.frame_count))} in all"
