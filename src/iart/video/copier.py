"""Carries tracks of the source into the output while its video is written, in constant memory."""

import contextlib
from collections.abc import Iterator, Mapping
from fractions import Fraction

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard

from iart.video.frame import Loss
from iart.video.lanes import Lane, open_lane
from iart.video.plans import Plan

_SEEKABLE = ("mov", "matroska")
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
        plans: tuple[Plan, ...],
        shift: Fraction,
        delays: Mapping[int, Fraction] | None = None,
        *,
        start_seconds: Fraction | None = None,
        end_seconds: Fraction | None = None,
    ) -> None:
        """Add one stream per plan to the output, in their order.

        Args:
            source: opened for this copier, which closes it.
            output: its video stream is there already.
            plans: of the tracks.
            shift: seconds added to all times.
            delays: seconds added to the times of single tracks besides, by source index.
            start_seconds: of the source; packets before it are left out, but for subtitles that
                are still shown then.
            end_seconds: of the source; packets from there on are left out.
        """
        self.losses: list[Loss] = []
        self._source = source
        self._output = output
        self._shift = shift
        self._start, self._end = start_seconds, end_seconds
        streams = list(source.streams)
        delays = delays or {}
        self._lanes = {
            plan.index: open_lane(
                plan, streams[plan.index], output, shift + delays.get(plan.index, 0)
            )
            for plan in plans
        }
        for stream in streams:
            if stream.index not in self._lanes:
                stream.discard = Discard.all  # skipped without reading, where the format allows
        self._awaits_key = {plan.index for plan in plans if start_seconds and plan.kind == "video"}
        self._packets = self._read() if self._lanes else iter(())
        self._waiting: Packet | None = None
        self._now = Fraction(0)

    @property
    def lanes(self) -> list[Lane]:
        """In the order of the output's streams."""
        return list(self._lanes.values())

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
        for index, lane in self._lanes.items():
            for packet in lane.flush():
                self._output.mux(packet)
            if lane.lost_packets:
                self.losses.append(
                    Loss(
                        Fraction(0),
                        None,
                        f"{lane.plan.kind} {index}: {lane.lost_packets} damaged packets were"
                        " left out",
                    )
                )
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _mux(self, packet: Packet) -> None:
        for converted in self._lanes[packet.stream_index].convert(packet):
            self._output.mux(converted)

    def _time(self, packet: Packet) -> Fraction | None:
        given = packet.dts if packet.dts is not None else packet.pts
        if given is None or packet.time_base is None:
            return None
        self._now = given * packet.time_base + self._shift
        return self._now

    def _read(self) -> Iterator[Packet]:
        """Packets of the carried tracks; damage is noted and stepped over."""
        failures = 0
        self._seek()
        while failures < _DAMAGE_LIMIT:
            try:
                for packet in self._source.demux():
                    failures = 0
                    if self._is_past(packet):
                        return
                    if packet.stream_index in self._lanes and packet.size and self._is_in(packet):
                        yield packet
            except av.error.FFmpegError as error:
                failures += 1
                if failures == 1:
                    self.losses.append(Loss(self._now, None, f"tracks: {error.strerror}"))
            else:
                return

    def _seek(self) -> None:
        """Skip what cannot matter, in containers with an index and one clock."""
        if self._start is None or not self._source.format.name.startswith(_SEEKABLE):
            return
        offset = self._start - _MARGIN_SECONDS
        if offset > 0:
            with contextlib.suppress(av.error.FFmpegError):
                self._source.seek(int(offset * av.time_base))

    def _is_in(self, packet: Packet) -> bool:
        """Whether the packet belongs to [start, end)."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.time_base is None:
            return self._start is None
        first = last = time * packet.time_base
        lane = self._lanes[packet.stream_index]
        if lane.plan.kind == "subtitle" and packet.duration:
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
