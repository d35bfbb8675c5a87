"""The trial that shows whether a container holds a codec, and how a video stream is added.

Two frames are encoded, muxed in memory and read back before any real work starts, so that a job
of hours cannot fail at its first or last packet for a reason that was known before.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import av.logging
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.video.codecs import CODECS, Container, Encoding
from iart.video.frame import Color

_SPEAKERS = {codec.encoder for codec in CODECS.values()}

# Fixed, since what these two write depends on it: frames that are encoded at the same time see less
# of each other. The others write the same whatever their threads.
_THREADS = {"libx264": 8, "libx265": 4}


@dataclass(frozen=True)
class Shape:
    """What the container is told of the video besides its codec.

    Attributes:
        width: in pixels.
        height: in pixels.
        rate: frames per second, the average one if it varies.
        time_base: unit of presentation times, in seconds.
        color: written to codec and container.
        sample_aspect: width of a pixel over its height.
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    color: Color
    sample_aspect: Fraction = Fraction(1)


def add_video(output: OutputContainer, encoding: Encoding, shape: Shape) -> VideoStream:
    """Add the video stream and open its encoder.

    Raises:
        OutputError: the encoder refuses; says why.
    """
    if encoding.encoder == "libsvtav1":
        # its only switch; read when the encoder opens, 1 lets errors through
        os.environ.setdefault("SVT_LOG", "1")
    with explained(f"{encoding.encoder} refuses {_wanted(encoding, shape)}"):
        stream = output.add_stream(
            encoding.encoder, rate=shape.rate, options=dict(encoding.options)
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = shape.width, shape.height
        context.pix_fmt = encoding.pixel_format
        context.time_base = shape.time_base
        stream.time_base = shape.time_base
        context.sample_aspect_ratio = shape.sample_aspect
        context.color_primaries = shape.color.primaries
        context.color_trc = shape.color.transfer
        context.colorspace = shape.color.matrix
        context.color_range = 2 if shape.color.full_range else 1
        # PyAV asks for slices; x264 then cuts each frame in slices, which costs quality
        context.thread_type = "AUTO"
        context.thread_count = _THREADS.get(encoding.encoder, 0)
        if encoding.encoder == "libx265" and encoding.container.is_mov:
            context.codec_tag = "hvc1"  # Apple's players refuse hev1
        context.open()
    unknown = {"crf", "preset", "profile"} & set(context.options)
    if unknown:
        raise OutputError(f"{encoding.encoder} has no option --{min(unknown)}; leave it out")
    return stream


def muxer_options(
    encoding: Encoding, shape: Shape, videos: Iterable[int] = (), sounds: Iterable[int] = ()
) -> dict[str, str]:
    """Options of the container: exact clocks, and the index at the front of mp4 and mov.

    Args:
        encoding: gives the container.
        shape: gives the clock of the video.
        videos: ticks per second of further videos, which get the same clock.
        sounds: sample rates; where sound starts is written in the clock of the whole file.
    """
    if not encoding.container.is_mov:
        return {}
    tracks = _common_clock(shape.time_base.denominator, videos)
    return {
        "movflags": "+faststart",
        "video_track_timescale": str(tracks),
        # edit lists (start offsets, durations) count in this clock; FFmpeg's default is 1 ms
        "movie_timescale": str(_common_clock(tracks, sounds)),
    }


def _common_clock(first: int, others: Iterable[int]) -> int:
    """Ticks per second that hold times of all exactly, as far as 32 bits go."""
    clock = first
    for other in filter(None, others):
        common = math.lcm(clock, other)
        if common < 2**31:
            clock = common
    return clock


def dry_mux(encoding: Encoding, shape: Shape) -> None:
    """Encode two small frames, mux them in memory and read them back.

    The frames have the pixel format and the parity of the real ones.

    Raises:
        OutputError: the codec does not fit into the container, or the encoder refuses the options;
            names the codecs that fit.
    """
    small = Shape(
        128 + shape.width % 2,
        96 + shape.height % 2,
        shape.rate,
        shape.time_base,
        shape.color,
        shape.sample_aspect,
    )
    if not _holds(encoding.container, encoding.encoder):
        fitting = ", ".join(fitting_codecs(encoding.container))
        raise OutputError(
            f"{encoding.container.name} cannot hold {encoding.encoder}; it holds {fitting}"
        )
    try:
        _dry_mux(encoding, small)
    except OutputError as error:
        raise OutputError(f"{error}{_hint(encoding, shape)}") from error


def _dry_mux(encoding: Encoding, shape: Shape) -> None:
    container = encoding.container
    with explained(f"{container.name} cannot hold {encoding.encoder} ({encoding.pixel_format})"):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container.muxer) as output:
            stream = add_video(output, encoding, shape)
            for packet in blank_packets(stream, encoding.pixel_format, shape):
                output.mux(packet)
        buffer.seek(0)
        with av.open(buffer, "r") as back:
            frames = sum(1 for _ in back.decode(video=0))
        if frames != 2:
            raise OutputError(f"{frames} of 2 frames came back")


def blank_packets(stream: VideoStream, pixel_format: str, shape: Shape) -> list[Packet]:
    """Two encoded frames of nothing in particular, for trials."""
    times = DecodeTimes(shape.time_base)
    step = max(1, round(1 / shape.rate / shape.time_base))
    packets = []
    for index in range(2):
        frame = av.VideoFrame(shape.width, shape.height, pixel_format)
        for plane in frame.planes:
            plane.update(bytes([16 + index]) * plane.buffer_size)
        frame.pts, frame.time_base = index * step, shape.time_base
        packets += stream.encode(frame)
    return [times.mended(packet) for packet in packets + stream.encode(None)]


class DecodeTimes:
    """Keeps decode times in order: x265 gives random ones to videos of two or three frames."""

    def __init__(self, time_base: Fraction) -> None:
        """`time_base` is that of the packets."""
        self._day = round(86400 / time_base)
        self._last: int | None = None

    def mended(self, packet: Packet) -> Packet:
        """The packet, decoded no later than shown, and after the one before."""
        pts, dts = packet.pts, packet.dts
        if pts is None:
            return packet
        if dts is None or dts > pts or dts < pts - self._day:
            dts = pts if self._last is None else min(pts, self._last + 1)
        if self._last is not None and dts <= self._last:
            dts = self._last + 1
        packet.dts = self._last = dts
        return packet


def fitting_codecs(container: Container) -> list[str]:
    """Names of those codecs of `CODECS` that the container holds."""
    return [name for name, codec in CODECS.items() if _holds(container, codec.encoder)]


def _holds(container: Container, encoder: str) -> bool:
    if container.name == "mov" and encoder in ("libsvtav1", "libvpx-vp9"):
        return False  # the muxer says yes, and refuses later
    with av.open(io.BytesIO(), "w", format=container.muxer) as output:
        return encoder in output.supported_codecs


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn FFmpeg's errors into an `OutputError` with FFmpeg's own words, which it only logs."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else the words of an earlier error come first
    logs: list[tuple[int, str, str]] = []
    try:
        with av.logging.Capture() as logs:
            yield
    except (av.error.FFmpegError, ValueError) as error:
        reason = _told(logs) or _reason(error)
        raise OutputError(f"{what}: {reason}") from error
    finally:
        av.logging.set_skip_repeated(skip)
        av.logging.set_level(level)


def _told(logs: list[tuple[int, str, str]]) -> str:
    """The first complaint of an encoder, else the last of anything (decoders complain early)."""
    errors = [(name, text.strip()) for level, name, text in logs if level <= av.logging.ERROR]
    encoders = [text for name, text in errors if name in _SPEAKERS]
    words = encoders[:1] or [text for _, text in errors[-1:]]
    return words[0].rstrip(".") if words else ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _wanted(encoding: Encoding, shape: Shape) -> str:
    shown = {k: v for k, v in encoding.options.items() if k in ("crf", "preset", "profile")}
    options = "".join(f", {key} {value}" for key, value in shown.items())
    return f"{shape.width}x{shape.height} {encoding.pixel_format}{options}"


def _hint(encoding: Encoding, shape: Shape) -> str:
    parts = av.VideoFormat(encoding.pixel_format, 64, 64).components
    subsampled = any(part.width < 64 or part.height < 64 for part in parts)
    if subsampled and (shape.width % 2 or shape.height % 2):
        return (
            f"; {shape.width}x{shape.height} is odd, and {encoding.pixel_format} stores colour"
            " for pairs of pixels: pass --pixel-format yuv444p"
        )
    return ""
