"""Carries tracks of the source into the output while its video is written, in constant memory."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard

from iart.video.frame import Loss
from iart.video.read.timing import JoinedClock, is_seekable, is_timed_by_order, stated_seconds
from iart.video.tracks.convert import Converter

_MARGIN_SECONDS = 10
"""Packets this far out of order, or subtitles this long, are still found."""

_INSTANT = Fraction(1, 10**6)

_DAMAGE_LIMIT = 100
"""Errors in a row after which the rest of the source counts as unreadable."""


class TrackCopier:
    """Reads the source a second time and muxes its packets as far as the video has come.

    Attributes:
        losses: parts of the tracks that could not be read, filled while copying.
    """

    def __init__(
        self,
        source: InputContainer,
        output: OutputContainer,
        converters: list[Converter],
        shift: Fraction,
        *,
        video_index: int,
        start_seconds: Fraction | None = None,
        end_seconds: Fraction | None = None,
    ) -> None:
        """Skip all streams of the source that no converter wants.

        Args:
            source: opened for this copier.
            output: its header is written.
            converters: one per track.
            shift: seconds added to all times.
            video_index: of the stream that is enlarged, whose times decide where a clock that
                starts again goes on.
            start_seconds: of the source; packets before it are left out, but for subtitles that
                are still shown then.
            end_seconds: of the source; packets from there on are left out.
        """
        self.losses: list[Loss] = []
        self._source = source
        self._output = output
        self._shift = shift
        self._start, self._end = start_seconds, end_seconds
        self._converters = {converter.plan.index: converter for converter in converters}
        one_clock = is_seekable(source.format.name) or is_timed_by_order(source.format.name)
        self._clock = None if one_clock else JoinedClock(video_index)
        for stream in source.streams:
            is_needed = self._clock is not None and stream.index == video_index
            if stream.index not in self._converters and not is_needed:
                stream.discard = Discard.all  # skipped without reading, where the format allows
        plans = [converter.plan for converter in converters]
        self._awaits_key = {plan.index for plan in plans if start_seconds and plan.kind == "video"}
        self._packets = self._read() if converters else iter(())
        self._waiting: Packet | None = None
        self._now = Fraction(0)

    def advance(self, until: Fraction) -> None:
        """Mux every packet that starts before `until` seconds of the output."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            time = self._time(packet)
            if time is not None and time >= until:
                self._waiting = packet
                return
            self._mux(packet)

    def finish(self) -> None:
        """Mux all that is left, and what converters held back."""
        if self._waiting is not None:
            self._mux(self._waiting)
            self._waiting = None
        for packet in self._packets:
            self._mux(packet)
        for index, converter in self._converters.items():
            for packet in converter.flush():
                self._output.mux(packet)
            if converter.lost_packets:
                damage = f"{converter.lost_packets} damaged packets were left out"
                reason = f"{converter.plan.kind} {index}: {damage}"
                self.losses.append(Loss(Fraction(0), None, reason))

    def _mux(self, packet: Packet) -> None:
        for converted in self._converters[packet.stream_index].convert(packet):
            self._output.mux(converted)

    def _time(self, packet: Packet) -> Fraction | None:
        time = stated_seconds(packet)
        if time is None:
            return None
        self._now = time + self._shift
        return self._now

    def _read(self) -> Iterator[Packet]:
        """Packets of the carried tracks; damage is noted and stepped over."""
        failures = 0
        self._seek()
        while failures < _DAMAGE_LIMIT:
            try:
                for given in self._source.demux():
                    failures = 0
                    for packet in self._mended(given):
                        if self._is_past(packet):
                            return
                        wanted = packet.size and packet.stream_index in self._converters
                        if wanted and self._is_in(packet):
                            yield packet
            except av.error.FFmpegError as error:
                failures += 1
                if failures == 1:
                    self.losses.append(Loss(self._now, None, f"tracks: {error.strerror}"))
            else:
                return

    def _mended(self, packet: Packet) -> list[Packet]:
        """Packets that are ready, in the clock of the whole file; an empty one is the end."""
        if self._clock is None:
            return [packet]
        return self._clock.push(packet) if packet.size else self._clock.flush()

    def _seek(self) -> None:
        """Skip what cannot matter, in containers with an index and one clock."""
        if self._start is None or not is_seekable(self._source.format.name):
            return
        offset = self._start - _MARGIN_SECONDS
        if offset > 0:
            with suppress(av.error.FFmpegError):
                self._source.seek(int(offset * av.time_base))

    def _is_in(self, packet: Packet) -> bool:
        """Whether the packet belongs to [start, end)."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.time_base is None:
            return self._start is None
        first = last = time * packet.time_base
        converter = self._converters[packet.stream_index]
        if converter.plan.kind == "subtitle" and packet.duration:
            last += packet.duration * packet.time_base - _INSTANT
        if self._end is not None and first >= self._end:
            return False
        if self._start is not None and last < self._start:
            return False
        if packet.stream_index in self._awaits_key:
            if not packet.is_keyframe:
                return False
            self._awaits_key.remove(packet.stream_index)
        return True

    def _is_past(self, packet: Packet) -> bool:
        """Whether nothing of the range can follow: tracks are interleaved."""
        if self._end is None or packet.dts is None or packet.time_base is None:
            return False
        return packet.dts * packet.time_base >= self._end + _MARGIN_SECONDS
