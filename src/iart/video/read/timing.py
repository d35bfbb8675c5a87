"""Times made complete and increasing, of decoded frames and of joined files; the log of losses."""

from fractions import Fraction

from av.container import InputContainer
from av.packet import Packet

from iart.video.frame import Loss

NTSC = Fraction(1000, 1001)
"""Rates of NTSC over the round ones: 30 is 29.97."""

JUMP_SECONDS = 1
"""Times that go back by more than this start a new count; less is mended frame by frame."""

_REGULAR_FRAMES = 25
"""After so many evenly spaced frames a hole of whole frames means that frames are missing."""

_MAX_REASONS = 3
"""A loss of more kinds names the first ones."""

_BROADCASTS = (
    *("dhav", "hls", "live_flv", "m4v", "mpeg", "mpegts", "mpegtsraw", "mpegvideo"),
    *("ogg", "ty", "wtv"),
)


class LossLog:
    """Losses by time; those that overlap or touch become one."""

    def __init__(self, start: Fraction | None = None, end: Fraction | None = None) -> None:
        """Losses are recorded as far as they lie in [start, end) seconds; None is no limit."""
        self.losses: list[Loss] = []
        self._start, self._end = start, end

    def add(self, start: Fraction, end: Fraction, reason: str, *, certain: bool = True) -> None:
        """Record a loss over [start, end) seconds, see `Loss`."""
        end = max(start, end)
        if self._start is not None:
            if end <= self._start:
                return
            start = max(start, self._start)
        if self._end is not None:
            if start >= self._end:
                return
            end = min(end, self._end)
        apart: list[Loss] = []
        for other in self.losses:
            until = other.end_seconds
            if until is None or until < start or end < other.start_seconds:
                apart.append(other)
                continue
            reasons = dict.fromkeys([*other.reason.split("; "), *reason.split("; ")])
            reason = "; ".join(list(reasons)[:_MAX_REASONS])
            certain = certain or other.certain
            start, end = min(start, other.start_seconds), max(end, until)
        apart.append(Loss(start, end, reason, certain))
        self.losses[:] = sorted(apart, key=lambda loss: loss.start_seconds)


class Clock:
    """Gives every frame, in presentation order, a time later than that of the frame before.

    Missing times follow from the duration of the frame before, or from the rate. Times that go
    back, and holes between otherwise evenly spaced frames, are recorded in the log.
    """

    def __init__(
        self,
        time_base: Fraction,
        rate: Fraction,
        log: LossLog,
        *,
        start: int = 0,
        regular: bool = True,
        leaves_out: bool = False,
    ) -> None:
        """Times are in units of `time_base`.

        Args:
            time_base: in seconds.
            rate: nominal frames per second.
            log: takes what is found.
            start: time of the first frame if it has none.
            regular: False if the rate is known to vary; then holes mean nothing by themselves.
            leaves_out: whether the file may leave out pictures that repeat the one before; then no
                hole is certain to be damage.
        """
        self._time_base, self._log = time_base, log
        self._step = 1 / (rate * time_base)
        self._shift = 0
        self._last: int | None = None
        self._next = Fraction(start)
        self._regular, self._leaves_out = regular, leaves_out
        self._seen = 0
        self.damaged: str | None = None
        """Why frames may be missing since the last one; cleared by every frame."""

    @property
    def now_seconds(self) -> Fraction:
        """End of the last frame."""
        return self._next * self._time_base

    @property
    def step_seconds(self) -> Fraction:
        """Length of a frame at the nominal rate."""
        return self._step * self._time_base

    def place(self, time: int | None, duration: int | None) -> tuple[int, int]:
        """The time and the duration (0 if unknown) of the next frame, given what the file says."""
        if duration is not None and duration <= 1 < self._step / 4:
            duration = None  # one tick is what demuxers write when they do not know
        if time is None:
            exact = self._next if self._last is None else max(self._next, Fraction(self._last + 1))
            time = round(exact)
        else:
            time += self._shift
            if self._last is not None:
                time = self._mend(time, self._last)
                self._look_for_hole(time)
            exact = Fraction(time)
        self._last = time
        self._next = exact + (duration or self._step)
        self._seen += 1
        self.damaged = None
        return time, duration or 0

    def _mend(self, time: int, last: int) -> int:
        if time > last:
            return time
        back = (self._next - time) * self._time_base
        if (last - time) * self._time_base > JUMP_SECONDS:
            mended = max(last + 1, round(self._next))
            self._shift += mended - time
            reason = f"times jump back by {float(back):.3f} s; counted on from here"
        else:
            mended = last + 1
            reason = "times repeat or go back"
        start = mended * self._time_base
        self._log.add(start, start + self.step_seconds, reason)
        return mended

    def _look_for_hole(self, time: int) -> None:
        hole = time - self._next
        if abs(hole) <= max(1, self._step / 8):
            return
        frames = hole / self._step
        whole = round(frames) >= 1 and abs(frames - round(frames)) <= Fraction(1, 8)
        if self.damaged is not None and frames > Fraction(1, 2):
            self._log.add(self.now_seconds, time * self._time_base, self.damaged)
        elif self._regular and whole and self._seen >= _REGULAR_FRAMES:
            count = round(frames)
            repeat = "it repeats" if count == 1 else "they repeat"
            perhaps = f", or left out since {repeat} the one before" if self._leaves_out else ""
            self._log.add(
                self.now_seconds,
                time * self._time_base,
                f"{count} {'frame is' if count == 1 else 'frames are'} missing{perhaps}",
                certain=not self._leaves_out,
            )
        else:
            self._regular = False


def stated_seconds(packet: Packet) -> Fraction | None:
    """When a packet is to be decoded, else shown; None if it says neither."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None or not packet.time_base else ticks * packet.time_base


def rewind(container: InputContainer) -> None:
    """Go to the first packet; a seek to its own time may miss it, as it does in MPEG-PS.

    Raises:
        FFmpegError: the file cannot be sought.
    """
    container.seek(-(2**62), any_frame=True)


def is_seekable(container: str) -> bool:
    """Whether containers of FFmpeg's name have an index of key frames and one clock."""
    return container.split(",")[0] in ("mov", "matroska")


def is_timed_by_order(container: str) -> bool:
    """Whether presentation times are FFmpeg's guesses in containers of its name."""
    return container.split(",")[0] == "avi"


def clock_seconds(text: str) -> Fraction | None:
    """Seconds of "00:01:02.500000000"; None if it is no such text."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None


def counts_from_anywhere(container: str) -> bool:
    """Whether times in containers of FFmpeg's name begin anywhere, as in broadcasts."""
    return container.split(",")[0] in _BROADCASTS


_MAX_WAITING = 1000
"""So many packets wait for the video; if it has ended, the track itself decides."""


class JoinedClock:
    """One clock for all tracks of a file whose clock starts again: recordings joined end to end.

    The times of the video decide: where they go back, the next piece begins at the end of the last
    one, and all tracks move by as much. The other tracks come to the next piece a little earlier or
    later, as they are interleaved; what comes earlier waits until the video is there.
    """

    def __init__(self, video_index: int, log: LossLog | None = None) -> None:
        """Joins are recorded in `log`."""
        self._video, self._log = video_index, log
        self._shifts = [Fraction(0)]  # of the pieces, in seconds
        self._pieces: dict[int, int] = {}  # in which each stream is
        self._ends: dict[int, Fraction] = {}  # of the last packet of each stream, as moved
        self._waiting: list[Packet] = []

    @property
    def joins(self) -> int:
        """How often the clock has started again so far."""
        return len(self._shifts) - 1

    def push(self, packet: Packet) -> list[Packet]:
        """Packets that are ready, their times moved; taken in the order of the file."""
        stream, time = packet.stream_index, stated_seconds(packet)
        if time is None:
            return [packet]
        piece = self._piece(stream, time)
        end = self._ends.get(stream)
        ready: list[Packet] = []
        if end is not None and time + self._shifts[piece] < end - JUMP_SECONDS:
            if stream != self._video:
                self._waiting.append(packet)
                return self.flush() if len(self._waiting) > _MAX_WAITING else []
            self._join(end, time)
            piece = len(self._shifts) - 1
            ready = self._released()
        return [*ready, self._moved(packet, time, piece)]

    def flush(self) -> list[Packet]:
        """All that still waits, at the end."""
        if self._waiting:
            first = self._waiting[0]
            start = stated_seconds(first)
            assert start is not None
            self._join(self._ends[first.stream_index], start)
        return self._released()

    def _piece(self, stream: int, time: Fraction) -> int:
        """The piece that a time belongs to: the one in which it is nearest to the video's."""
        if stream == self._video or self._video not in self._ends:
            return len(self._shifts) - 1
        now = self._ends[self._video]
        pieces = range(self._pieces.get(stream, 0), len(self._shifts))
        return min(pieces, key=lambda piece: abs(time + self._shifts[piece] - now))

    def _join(self, end: Fraction, start: Fraction) -> None:
        """A piece whose video starts at `start`, as stated, follows at `end`."""
        shift = end - start
        if self._log is not None:
            back = float(shift - self._shifts[-1])
            reason = f"times jump back by {back:.3f} s; counted on from here"
            self._log.add(end, end, reason, certain=False)
        self._shifts.append(shift)

    def _released(self) -> list[Packet]:
        waiting, self._waiting = self._waiting, []
        return [ready for packet in waiting for ready in self.push(packet)]

    def _moved(self, packet: Packet, time: Fraction, piece: int) -> Packet:
        stream, base, shift = packet.stream_index, packet.time_base, self._shifts[piece]
        self._pieces[stream] = piece
        self._ends[stream] = time + shift + (packet.duration or 0) * base
        ticks = round(shift / base)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet
