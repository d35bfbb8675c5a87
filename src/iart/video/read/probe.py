"""Opening a media file, choosing its video stream, and what its header and first frames tell."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from iart.errors import InputError
from iart.pictures.color import is_supported
from iart.pictures.color_tags import MATRICES, ColorTags, resolve_color
from iart.pictures.orientation import orientation_of
from iart.video.dvd.disc import open_media, stated_duration
from iart.video.ffmpeg_log import captured_errors
from iart.video.frame import Chapter, Track, VideoInfo
from iart.video.read.marks import may_be_transparent, read_marks
from iart.video.read.timing import NTSC, clock_seconds, is_timed_by_order

_PROBE_FRAMES = 6
"""So many frames are decoded to learn what headers do not tell (captions, interlacing, times)."""

_PICTURES_BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails
_ADVICE = "Pass a file with a video stream or a folder of images"


def cannot_read(path: Path, why: str) -> InputError:
    """The error every reader raises: what came, and what to do."""
    return InputError(f"cannot read '{path.name}': {why}")


def open_container(path: Path) -> InputContainer:
    """Open a media file.

    Raises:
        InputError: it is missing, empty, not readable or not a media file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = path.absolute().parent
        raise cannot_read(path, f"no such file in '{folder}'. Check the path") from None
    except OSError as error:
        raise cannot_read(path, f"{error.strerror or error}. Check the path") from error
    if stat.S_ISDIR(mode):
        raise cannot_read(path, "it is a folder. Pass a file")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
        # sources are opened several times: to look, for pictures, for tracks
        raise cannot_read(path, "it can be read only once. Save what it gives to a file first")
    try:
        if stat.S_ISREG(mode) and path.stat().st_size == 0:
            raise cannot_read(path, f"the file is empty. {_ADVICE}")
        container = open_media(path, metadata_errors="replace")
    except FFmpegError as error:
        reason = _what_ffmpeg_says(path) or error.strerror or str(error)
        raise cannot_read(path, f"{reason}. {_ADVICE}") from error
    except OSError as error:
        raise cannot_read(path, f"{error.strerror or error}") from error
    if container.format.name == "tty":  # FFmpeg draws any text file as a terminal would
        container.close()
        raise cannot_read(path, f"it is text. {_ADVICE}")
    return container


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A media file for as long as the block lasts, see `open_container` and `close_container`."""
    container = open_container(path)
    try:
        yield container
    finally:
        close_container(container)


def close_container(container: InputContainer) -> None:
    """Bring decoders to rest, and close the container, which frees them.

    PyAV holds Python's lock while a decoder that is freed waits for its threads. Where errors are
    captured elsewhere in the process, a thread that logs one waits for that lock: neither ends.
    """
    for stream in container.streams:
        if stream.codec_context is not None:
            stream.codec_context.flush_buffers()
    container.close()


def _what_ffmpeg_says(path: Path) -> str | None:
    """FFmpeg's own words on why a file does not open; logs are off but for this repeated try."""
    try:
        with captured_errors():
            av.open(str(path.absolute()), mode="r").close()
    except FFmpegError as error:
        log: Any = error.log  # (level, part of FFmpeg, message), unlike its declared type
        text = error.strerror or str(error)
        return f"{text} ({log[2].strip()})" if log else text
    except OSError:
        pass
    return None


def choose_video(container: InputContainer, path: Path) -> VideoStream:
    """The stream to read: default before others, then the largest; never cover art.

    Raises:
        InputError: there is none, or FFmpeg has no decoder for it.
    """
    streams = [s for s in container.streams.video if not s.disposition & _PICTURES_BESIDE]
    if not streams:
        found = ", ".join(
            f"{'cover art' if kind == 'video' else kind} {codec}"
            for kind, codec in ((stream.type, codec_name(stream)) for stream in container.streams)
        )
        raise cannot_read(path, f"no video stream (found: {found or 'nothing'}). {_ADVICE}")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise cannot_read(
            path, f"FFmpeg has no decoder for its video codec ({codec_name(streams[0])})"
        )
    return max(
        decodable,
        key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index),
    )


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of the codec (not of one decoder of it), or the tag of an unknown one."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return "none" if stream.type == "attachment" else getattr(stream, "name", None) or "unknown"


def read_info(path: Path, container: InputContainer | None = None) -> VideoInfo:
    """What is known before all frames are read; decodes the first few, of a container if given.

    Raises:
        InputError: as `choose_video`; no frame decodes; it is encrypted; an unsupported matrix.
    """
    with nullcontext(container) if container else open_container(path) as opened:
        stream = choose_video(opened, path)
        packet, frames, start = _first_frames(opened, stream, path)
        return _describe_stream(path, opened, stream, packet, frames, start)


def _first_frames(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[Packet, list[av.VideoFrame], Fraction]:
    frames: list[av.VideoFrame] = []
    first_packet, encrypted, reason = None, False, ""
    try:
        for packet in container.demux(stream):
            if first_packet is None and packet.size:
                first_packet = packet
            encrypted = encrypted or packet.has_sidedata("encryption_info")
            try:
                frames += stream.decode(packet)
            except FFmpegError as error:
                reason = error.strerror or str(error)
            if len(frames) >= _PROBE_FRAMES:
                break
    except FFmpegError as error:
        reason = reason or error.strerror or str(error)
    name = codec_name(stream)
    if encrypted:  # even if something came out: by chance, encrypted bytes decode to noise
        raise cannot_read(path, f"its {name} video is encrypted. Pass a file without protection")
    if first_packet is None:
        raise cannot_read(path, f"its {name} video stream holds no frames")
    if not frames:
        why = f" ({reason})" if reason else ""
        raise cannot_read(path, f"no frame of its {name} video can be decoded{why}")
    first = frames[0].pts if not is_timed_by_order(container.format.name) else None
    start = first if first is not None else stream.start_time or 0
    return first_packet, frames, start * time_base_of(stream)


def _describe_stream(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    packet: Packet,
    frames: list[av.VideoFrame],
    start: Fraction,
) -> VideoInfo:
    frame = frames[0]
    rate, variable = rate_of(container, stream, frames)
    color = resolve_color(
        ColorTags.of(frame).over(ColorTags.of(stream.codec_context)),
        frame.format.name,
        (frame.width, frame.height),
        rate,
    )
    if not is_supported(color.matrix):
        name = MATRICES.get(color.matrix, str(color.matrix))
        raise cannot_read(path, f"its colour matrix ({name}) is not supported")
    orientation = orientation_of(frame)
    whole = orientation.size(frame.width, frame.height)
    marks = read_marks(stream, packet, frame.width, frame.height, orientation)
    shown = marks.aperture
    aspect = stream.sample_aspect_ratio or Fraction(1)
    stated = stated_duration(path) or _duration_seconds(container, stream, start)
    duration = 1 / rate if len(frames) == 1 else stated  # of a still headers tell anything
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=codec_name(stream),
        width=whole[0] if shown is None else shown.width,
        height=whole[1] if shown is None else shown.height,
        rate=rate,
        time_base=time_base_of(stream),
        frame_count=_frame_count(stream, duration, rate),
        duration_seconds=duration,
        start_seconds=start,
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=color,
        sample_aspect=1 / aspect if orientation.transpose else aspect,
        rotation=orientation.rotation,
        interlaced=any(frame.interlaced_frame for frame in frames),
        variable_rate=variable,
        closed_captions=any(_has_captions(frame) for frame in frames),
        tracks=tuple(_track(stream) for stream in container.streams),
        chapters=tuple(_chapters(container)),
        metadata=dict(container.metadata),
        stream_index=stream.index,
        marks=marks,
        stored_size=None if shown is None else whole,
        alpha=may_be_transparent(stream, frames),
        bits_per_pixel=bits_per_pixel(
            container, stream, duration, rate * frame.width * frame.height
        ),
    )


def _duration_seconds(
    container: InputContainer, stream: VideoStream, start: Fraction
) -> Fraction | None:
    if (stream.duration or 0) > 0 and "matroska" not in container.format.name:
        seconds = (stream.duration or 0) * time_base_of(stream)
        if container.format.name in ("wtv", "asf"):  # when the stream ends, or nothing that fits
            seconds = max(seconds - start, Fraction(0))
        return seconds or None
    tagged = clock_seconds(stream.metadata.get("DURATION", ""))
    seconds = tagged or Fraction(max(container.duration or 0, 0), av.time_base)
    counted = any(name.startswith("_STATISTICS") for name in stream.metadata)
    # In Matroska, FFmpeg tells when a track ends; only mkvmerge's statistics tell its length.
    if "matroska" in container.format.name and not (tagged and counted):
        seconds -= start
    return max(seconds, Fraction(0)) or None


def _frame_count(stream: VideoStream, duration: Fraction | None, rate: Fraction) -> int | None:
    if stream.frames > 0:
        return stream.frames
    counted = next((v for k, v in stream.metadata.items() if k.startswith("NUMBER_OF_FRAMES")), "")
    if counted.isdecimal() and int(counted) > 0:
        return int(counted)
    return round(duration * rate) if duration else None


def _has_captions(frame: av.VideoFrame) -> bool:
    try:
        items: Any = frame.side_data
        return any(item.type is SideDataType.A53_CC for item in items)
    except ValueError:  # side data of a kind that PyAV does not know
        return False


def _track(stream: Stream) -> Track:
    metadata = dict(stream.metadata)
    details = ""
    context = stream.codec_context
    if isinstance(stream, VideoStream) and context is not None:
        details = f"{stream.width}x{stream.height}"
    elif isinstance(context, AudioCodecContext):
        details = f"{context.sample_rate} Hz, {context.layout.name}"
    elif isinstance(stream, AttachmentStream):
        details = ", ".join(filter(None, (metadata.get("filename"), stream.mimetype)))
    return Track(
        index=stream.index,
        kind=stream.type,
        codec=codec_name(stream),
        language=metadata.get("language"),
        title=metadata.get("title") or metadata.get("name"),
        metadata=metadata,
        disposition=tuple(
            flag.name for flag in Disposition if stream.disposition & flag and flag.name
        ),
        details=details,
    )


def _chapters(container: InputContainer) -> list[Chapter]:
    found = []
    for chapter in container.chapters():
        unit = chapter["time_base"] or Fraction(1, av.time_base)
        metadata = dict(chapter["metadata"])
        found.append(
            Chapter(chapter["start"] * unit, chapter["end"] * unit, metadata.get("title"), metadata)
        )
    return found


_DEFAULT_RATE = Fraction(25)

_WITHOUT_TIMES = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS: bare video streams

_MAX_RATE_EXCESS = Fraction(3, 2)
"""A header's rate this many times that of the first frames is not believed."""

_MEASURED_PACKETS = 240
_COMMON_RATES = tuple(
    Fraction(rate) * slower
    for rate in (8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 100, 120)
    for slower in (Fraction(1), NTSC)
)


def time_base_of(stream: Stream) -> Fraction:
    """Unit of a stream's times in seconds."""
    return stream.time_base or Fraction(1, 1000)


def rate_of(
    container: InputContainer, stream: VideoStream, frames: list[av.VideoFrame]
) -> tuple[Fraction, bool | None]:
    """Frames per second, and whether it varies (None: cannot be told cheaply)."""
    average, base, coded = stream.average_rate, stream.base_rate, stream.codec_context.framerate
    if coded and (len(frames) == 1 or container.format.flags & _WITHOUT_TIMES):
        # the container's rate is FFmpeg's guess then; the video's own headers tell
        average = base = coded
    rate = average or stream.guessed_rate or base or _DEFAULT_RATE
    if base and abs(rate - base) <= rate / 1000:
        rate = base
    times = [frame.pts for frame in frames if frame.pts is not None]
    seconds = (times[-1] - times[0]) * time_base_of(stream) if times else 0
    if seconds > 0 and rate * seconds > _MAX_RATE_EXCESS * (len(times) - 1):
        rate = average = _measured_rate(container, stream, frames[0]) or rate
    step = 1 / (rate * time_base_of(stream))
    uneven = not is_timed_by_order(container.format.name) and any(
        abs((b - a) - step) > max(1, step / 8) and b > a for a, b in pairwise(times)
    )
    # soft telecine alternates by design and counts as varying, which it does
    if uneven:
        return rate, True
    if base and average and "mp4" in container.format.name:  # its header times every frame
        field_rate = abs(base - 2 * average) <= average / 1000
        return rate, not (base == rate or field_rate)
    return rate, None


def _measured_rate(
    container: InputContainer, stream: VideoStream, first: av.VideoFrame
) -> Fraction | None:
    """The rate at which the next packets are to be shown, for headers whose rate is nonsense."""
    times = [packet.pts for packet in islice(container.demux(stream), _MEASURED_PACKETS)]
    later = sorted(time for time in times if time is not None and time > (first.pts or 0))
    steps = [after - before for before, after in pairwise(later) if after > before]
    if not steps:
        return None
    # without the holes that packets already decoded have left
    usual = [step for step in steps if step < 1.5 * median(steps)]
    measured = len(usual) / (sum(usual) * time_base_of(stream))
    nearest = min(_COMMON_RATES, key=lambda common: abs(common - measured))
    return nearest if abs(nearest - measured) < measured / 200 else measured.limit_denominator(1001)


def bits_per_pixel(
    container: InputContainer,
    stream: VideoStream,
    seconds: Fraction | None,
    pixels_per_second: Fraction,
) -> float | None:
    """What the video spends on average; None if nothing tells.

    Where no table of the container does, it is what the file holds beside sound.
    """
    if "mp4" in container.format.name and stream.codec_context.bit_rate:  # its tables tell
        return float(stream.codec_context.bit_rate / pixels_per_second)
    if not seconds or container.size <= 0:
        return None
    sounds = [sound.codec_context for sound in container.streams.audio]
    beside = sum(context.bit_rate or 0 for context in sounds if context is not None)
    bits_per_second = 8 * container.size / seconds - beside
    return float(bits_per_second / pixels_per_second) if bits_per_second > 0 else None
