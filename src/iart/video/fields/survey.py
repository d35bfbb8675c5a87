"""A survey of a whole file for what its pictures are made of: fields, film, or whole frames.

Pictures are decoded at places spread over the file, so that a trailer of another kind at its start
does not decide. It takes a few seconds at most, whatever the file's length.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.video.stream import VideoStream

from iart.errors import InputError
from iart.video.fields.classify import (
    CHUNK,
    Content,
    FieldMeter,
    FieldReport,
    Labels,
    believed,
    conclude,
    judge,
)
from iart.video.frame import VideoInfo
from iart.video.read.probe import opened
from iart.video.read.timing import NTSC, rewind

_MAX_HEIGHT = 1152
"""There is no interlaced video of more rows."""

_PLACES = 20
_CHUNKS_PER_PLACE = 2
_MAX_PIXELS = 300_000_000
"""At most so many are looked at: of large pictures fewer."""

_MOST_KNOWN = 64
_known: dict[tuple[Path, int, int], FieldReport] = {}

_MIN_SHARE = 0.3  # of steps of either length in soft telecine
_FILM = Fraction(24)


def survey_fields(info: VideoInfo, container: InputContainer) -> FieldReport | None:
    """What the pictures of a file are made of; None where no video is interlaced.

    Files that do not change are looked at once in a process.

    Args:
        info: what the probe found.
        container: that the probe has opened.

    Raises:
        InputError: the file cannot be opened any more.
    """
    height = info.width if info.rotation in (90, 270) else info.height
    if height > _MAX_HEIGHT or height < 2:
        return None
    try:
        status = info.path.stat()
    except OSError as error:
        raise InputError(f"cannot read '{info.path.name}': {error.strerror or error}") from error
    key = (info.path.absolute(), status.st_size, status.st_mtime_ns)
    if key not in _known:
        while len(_known) >= _MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[key] = _survey(info, container)
    return _known[key]


def _survey(info: VideoInfo, container: InputContainer) -> FieldReport:
    rate = info.rate
    found: list[tuple[int, Content, bool | None]] = []
    place = -1
    film_seconds: list[Fraction] = []
    most = max(CHUNK + 1, _MAX_PIXELS // (info.width * info.height))
    for place, (times, labels) in enumerate(_places(info, container, most)):
        for first in range(0, len(labels), CHUNK):
            chunk = labels[first : first + CHUNK]
            steps = [b - a for a, b in pairwise(times[first : first + CHUNK + 1])]
            verdict = judge(chunk)
            if _is_soft_telecine(steps) and (verdict is None or verdict[0] == "progressive"):
                verdict = "soft telecine", None
                film_seconds += steps
            if verdict is not None:
                found.append((place, verdict[0], verdict[1]))
    chunks = believed(found, place + 1)
    return conclude(chunks, rate, _film_rate(film_seconds, rate))


def _is_soft_telecine(steps: list[Fraction]) -> bool:
    """Whether pictures are shown for two fields and for three, about equally often."""
    if len(steps) < CHUNK // 2 or min(steps) <= 0:
        return False
    short = sorted(steps)[len(steps) // 4]
    shares = [
        sum(abs(step / short - length) < Fraction(1, 10) for step in steps) / len(steps)
        for length in (Fraction(1), Fraction(3, 2))
    ]
    mean = sum(steps) / len(steps)
    return min(shares) >= _MIN_SHARE and sum(shares) > 0.9 and abs(mean * _FILM - 1) < 0.05


def _film_rate(steps: list[Fraction], rate: Fraction) -> Fraction | None:
    """Of soft telecine with these steps, in a file that says `rate`; None without steps."""
    if not steps:
        return None
    measured = len(steps) / sum(steps)
    # times of whole milliseconds do not tell 24 from 23.976 for sure
    whole = rate.denominator == 1 and measured > _FILM * (1 + NTSC) / 2
    return _FILM if whole else _FILM * NTSC


def _places(
    info: VideoInfo, container: InputContainer, most: int
) -> Iterator[tuple[list[Fraction], list[Labels]]]:
    """Times of successive pictures at each place, and the labels of all but the first."""
    length = _CHUNKS_PER_PLACE * CHUNK + 1
    if most < 4 * length:
        length = CHUNK + 1
    count = max(1, min(_PLACES, most // length))
    stream: VideoStream = container.streams[info.stream_index]  # pyright: ignore[reportAssignmentType]
    base, duration = stream.time_base or Fraction(1, 1000), info.duration_seconds
    if duration is None or container.format.flags & Flags.no_timestamps.value:  # where to seek to?
        with opened(info.path) as again:
            stream = again.streams[info.stream_index]  # pyright: ignore[reportAssignmentType]
            stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
            yield _look(_decode(again, stream), count * length)
        return
    if duration * info.rate <= 3 * count * length // 2:  # short: no places
        count, length = 1, count * length
    for place in range(count):
        time = info.start_seconds + duration * place / count
        try:
            if place == 0:
                rewind(container)
            else:
                container.seek(int(time / base), stream=stream)
        except FFmpegError:
            continue
        yield _look(_decode(container, stream), length)


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Pictures from here on, from the first that needs none before it, as far as they decode."""
    whole = False
    try:
        for packet in container.demux(stream):
            try:
                images = stream.decode(packet)
            except FFmpegError:
                continue
            for image in images:
                whole = whole or image.key_frame
                if whole:
                    yield image
    except FFmpegError:
        return


def _look(images: Iterator[av.VideoFrame], count: int) -> tuple[list[Fraction], list[Labels]]:
    meter = FieldMeter()
    times: list[Fraction] = []
    labels: list[Labels] = []
    for image in islice(images, count):
        labels.append(meter.label(image))
        time = image.pts * image.time_base if image.pts is not None and image.time_base else None
        times.append(Fraction(0) if time is None else time)
    return times, labels[1:]
