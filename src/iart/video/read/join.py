"""One clock for all tracks of a file whose clock starts again: recordings joined end to end.

The times of the video decide: where they go back, the next piece begins at the end of the last one,
and all tracks move by as much. The other tracks come to the next piece a little earlier or later,
as they are interleaved; what comes earlier waits until the video is there.
"""

from fractions import Fraction

from av.packet import Packet

from iart.video.read.timing import JUMP_SECONDS, LossLog

_MAX_WAITING = 1000
"""So many packets wait for the video; if it has ended, the track itself decides."""


class JoinedClock:
    """Moves the times of packets, in the order of the file."""

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
        """Packets that are ready, their times moved."""
        stated = packet.dts if packet.dts is not None else packet.pts
        if stated is None or not packet.time_base:
            return [packet]
        stream, time = packet.stream_index, stated * packet.time_base
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
            stated = first.dts if first.dts is not None else first.pts
            assert stated is not None
            self._join(self._ends[first.stream_index], stated * first.time_base)
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
