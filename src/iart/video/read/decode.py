"""Packets to decoded pictures, each with its exact time, going on after damage."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from iart.pictures.orientation import Orientation, orientation_of
from iart.video.frame import Loss, VideoInfo
from iart.video.read.marks import alpha_decoder
from iart.video.read.timing import (
    Clock,
    JoinedClock,
    LossLog,
    is_seekable,
    is_timed_by_order,
    rewind,
    stated_seconds,
)

_MAX_READ_ERRORS = 100
"""Consecutive failures to read a packet after which the rest of a file counts as lost."""

_EARLY_END_SECONDS = Fraction(1, 4)
"""A video this much (or two frames, if longer) shorter than its header says ended early."""

_LENGTH_IN_HEADER = ("mov", "matroska", "avi", "flv", "asf", "mxf")
_WITHOUT_HOLES = ("mpeg", "mpegts")
"""Containers that state every picture; others may leave out those that repeat the one before."""

_SEEK_MARGINS_SECONDS = (0, 2, 10, 60)
_HELD_PACKETS = 3
_PICTURES_BEFORE = 3  # given before the first one asked for, where pictures are far apart


@dataclass(slots=True, eq=False)
class Picture:
    """A decoded picture, [pts, pts + duration) in units of the source's time base (0: unknown)."""

    image: av.VideoFrame
    pts: int
    duration: int


class Decoder:
    """One iteration over the pictures of an open container, in presentation order, of one size.

    Attributes:
        losses: damage met so far.
        orientation: how pictures become upright; known with the first one.
    """

    def __init__(
        self,
        container: InputContainer,
        info: VideoInfo,
        *,
        start_seconds: Fraction | None = None,
        logged: tuple[Fraction | None, Fraction | None] = (None, None),
    ) -> None:
        """Decode from the start of the file, or from a key frame somewhere before a given time.

        Args:
            container: just opened; closed by others.
            info: what the probe found in it.
            start_seconds: pictures before this time are left out, but for a few.
            logged: [start, end) in seconds of what is asked for; other losses are not recorded.
        """
        self._container, self._info = container, info
        self._stream: VideoStream = container.streams[info.stream_index]  # pyright: ignore[reportAttributeAccessIssue]
        self._stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
        self._codec = alpha_decoder(self._stream) or self._stream.codec_context
        self._start_seconds, self._end_seconds = start_seconds, logged[1]
        self._log = LossLog(*logged)
        self.losses: list[Loss] = self._log.losses
        self.orientation = Orientation()
        self._ordered = is_timed_by_order(info.container)
        self._clock = Clock(
            info.time_base,
            info.rate,
            self._log,
            start=round(info.start_seconds / info.time_base),
            # AVI has empty chunks for pictures that repeat the one before
            regular=not (info.variable_rate or self._ordered),
            leaves_out=not info.container.startswith(_WITHOUT_HOLES),
        )
        self._first_order_time: int | None = None
        self._coded_size: tuple[int, int] | None = None
        self._clean_from: int | None = None  # what is shown before the key frame sought lacks parts
        self._tainted = False  # pictures depend on a damaged one
        self._read_until = Fraction(0)  # end of the last packet of any stream

    def __iter__(self) -> Iterator[Picture]:
        start = self._start_seconds
        if start is None:
            yield from self._pictures()
            return
        self._clean_from = self._seek(start)
        before: deque[Picture] = deque(maxlen=_PICTURES_BEFORE)
        for picture in self._pictures():
            if picture.pts * self._info.time_base < start:
                before.append(picture)
                continue
            yield from before
            before.clear()
            yield picture

    def _pictures(self) -> Iterator[Picture]:
        for packet in self._packets():
            for image in self._decode(packet):
                yield self._place(image)
        for image in self._decode(None):
            yield self._place(image)
        self._look_for_early_end()

    def _seek(self, seconds: Fraction) -> int | None:
        """Go to a key frame at or before a time; its own time, or None at the start of the file."""
        info = self._info
        if is_seekable(info.container) and seconds > info.start_seconds:
            for margin in _SEEK_MARGINS_SECONDS:
                ticks = min(int((seconds - margin) // info.time_base), 2**62)
                try:
                    self._container.seek(ticks, stream=self._stream)
                    first = next(self._container.demux(self._stream))
                    self._container.seek(ticks, stream=self._stream)
                except (FFmpegError, StopIteration):
                    break
                if first.pts is not None and first.is_keyframe and first.pts <= ticks:
                    return first.pts
            rewind(self._container)
        return None

    def _packets(self) -> Iterator[Packet]:
        """Packets of the video stream; failures to read are recorded and skipped.

        A few wait: where another recording begins, FFmpeg takes those before for damaged.
        """
        errors, joins = 0, 0
        held: deque[Packet] = deque()
        clock = JoinedClock(self._stream.index, self._log)
        one_clock = is_seekable(self._info.container) or self._ordered
        while errors <= _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux():
                    if packet.size == 0 and packet.dts is None:  # PyAV's mark of the end
                        continue
                    errors = 0
                    for ready in [packet] if one_clock else clock.push(packet):
                        self._note_time(ready)
                        if ready.stream_index != self._stream.index:
                            continue
                        for before in held if clock.joins > joins else ():
                            before.is_corrupt = False
                        joins = clock.joins
                        held.append(ready)
                        if len(held) > _HELD_PACKETS:
                            yield held.popleft()
            except FFmpegError as error:
                yield from held
                held.clear()
                errors += 1
                self._damage(error.strerror or str(error), None)
            else:
                break
        yield from held

    def _note_time(self, packet: Packet) -> None:
        start = stated_seconds(packet)
        if start is not None:
            end = start + (packet.duration or 0) * packet.time_base
            self._read_until = max(self._read_until, end)

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Pictures that a packet completes; None for those the decoder still holds."""
        try:
            if packet is not None and packet.is_corrupt:
                self._damage("the file is damaged here", packet)
            images = self._codec.decode(packet)
        except FFmpegError as error:
            self._damage(error.strerror or str(error), packet)
            return []
        clean = self._clean_from
        return [i for i in images if clean is None or i.pts is None or i.pts >= clean]

    def _damage(self, reason: str, packet: Packet | None) -> None:
        """Remember a failure; what is missing shows when the next picture comes."""
        self._clock.damaged, self._tainted = reason, True
        if packet is not None and packet.pts is not None and not self._ordered:
            start = packet.pts * self._info.time_base
        else:
            start = self._clock.now_seconds
        self._log.add(start, start + self._clock.step_seconds, reason)

    def _place(self, image: av.VideoFrame) -> Picture:
        pts, duration = self._clock.place(self._stated_time(image), image.duration)
        start = pts * self._info.time_base
        self._note_damage(image, start)
        return Picture(self._first_size(image, start), pts, duration)

    def _note_damage(self, image: av.VideoFrame, start: Fraction) -> None:
        """Pictures are damaged until the next whole key frame: they are predicted from others."""
        if image.is_corrupt:
            self._tainted = True
        elif image.key_frame:
            self._tainted = False
        if self._tainted:
            self._log.add(start, self._clock.now_seconds, "the picture is damaged")

    def _stated_time(self, image: av.VideoFrame) -> int | None:
        if not self._ordered:
            return image.pts
        if image.dts is None:
            return None
        if self._first_order_time is None:
            self._first_order_time = image.dts
        first = round(self._info.start_seconds / self._info.time_base)
        return image.dts - self._first_order_time + first

    def _first_size(self, image: av.VideoFrame, start: Fraction) -> av.VideoFrame:
        """The picture, scaled to the size of the file's first one if it has another."""
        size = (image.width, image.height)
        if self._coded_size is None:
            self.orientation = orientation_of(image)
            whole = self._info.stored_size or (self._info.width, self._info.height)
            self._coded_size = self.orientation.size(*whole)
        if size == self._coded_size:
            return image
        width, height = self._coded_size
        self._log.add(
            start,
            self._clock.now_seconds,
            f"the picture changes from {width}x{height} to {size[0]}x{size[1]}; scaled back",
        )
        return image.reformat(width=width, height=height, interpolation=Interpolation.BICUBIC)

    def _look_for_early_end(self) -> None:
        info, clock = self._info, self._clock
        if not info.container.startswith(_LENGTH_IN_HEADER) or info.duration_seconds is None:
            return
        tolerance = max(2 * clock.step_seconds, _EARLY_END_SECONDS)
        end, expected = clock.now_seconds, info.start_seconds + info.duration_seconds
        unknown = self._stream.duration is None and "DURATION" not in self._stream.metadata
        if unknown or info.container == "asf":
            # the header tells the length of the longest stream only
            end = max(end, self._read_until)
        if end + tolerance < expected:
            self._log.add(
                clock.now_seconds,
                expected,
                f"the file ends early: {float(end):.2f} of {float(expected):.2f} s are there",
            )
