"""Frames per second and bits per pixel of a video stream, from headers that may be wrong."""

from fractions import Fraction
from itertools import islice, pairwise
from statistics import median

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from iart.video.read.timing import NTSC, is_timed_by_order

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
