"""Puts a video file together: encoded pictures, tracks, chapters, metadata."""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedIOBase
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.video.frame import Loss, Spherical
from iart.video.tracks.choose import open_source
from iart.video.tracks.convert import Converter, open_converter
from iart.video.tracks.copy import TrackCopier
from iart.video.tracks.plan import TrackPlans
from iart.video.write.encoder import Encode, add_video, explained
from iart.video.write.matroska import amend, display_size


@dataclass(frozen=True)
class FilmPlan:
    """Everything that is decided about an output file before its first frame.

    Attributes:
        path: its final name.
        encode: what the video's encoders must know.
        source: file that the tracks come from; None if there are none.
        video_index: of the stream in it that is enlarged.
        tracks: what becomes of them.
        metadata: of the whole file.
        chapters: as PyAV takes them.
        start_seconds: tracks are carried from this time of the source on; None from their start.
        end_seconds: and up to here; None to their end.
        delays: seconds by which tracks are late in Matroska's blocks, by source index; stated in
            the track's header, so that players take them back.
        spherical: how pictures lie around the viewer, for Matroska; None if they are flat.
        options: of the container.
        notes: conversions that will happen and what cannot be kept, one line each.
    """

    path: Path
    encode: Encode
    source: Path | None = None
    video_index: int = 0
    tracks: TrackPlans = field(default_factory=TrackPlans)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Any, ...] = ()
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None
    delays: dict[int, Fraction] = field(default_factory=dict)
    spherical: Spherical | None = None
    options: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_matroska(self) -> bool:
        """Whether `iart.video.write.matroska` applies."""
        return self.encode.encoding.container.muxer in ("matroska", "webm")

    @property
    def track_numbers(self) -> dict[int, int]:
        """Numbers of the output's tracks by source index, from 1, first the video.

        What goes into the header of Matroska (attachments) has none.
        """
        tracks = [plan for plan in self.tracks.carried if plan.target != "attach"]
        return {plan.index: number for number, plan in enumerate(tracks, 2)}


class Muxer:
    """A video file that is being put together.

    Attributes:
        video: the stream of the pictures, its encoder open.
        losses: damaged parts of the source's tracks, complete after `finish`.
    """

    def __init__(self, plan: FilmPlan, part: Path) -> None:
        """Write the header.

        Args:
            plan: of the file.
            part: where it is written.

        Raises:
            OutputError: an encoder or the container refuses.
        """
        self._plan, self._part = plan, part
        self.losses: list[Loss] = []
        self._copier: TrackCopier | None = None
        self._decode_times = DecodeTimes(plan.encode.shape.time_base)
        with ExitStack() as stack:
            source = None
            with explained(f"cannot write {plan.encode.encoding.container.name}"):
                if plan.source is not None and plan.tracks.carried:
                    source = stack.enter_context(open_source(plan.source))
                self._output, self.video, converters = open_output(plan, str(part), source)
            stack.callback(self._output.close)
            if source is not None:
                self._copier = TrackCopier(
                    source,
                    self._output,
                    converters,
                    plan.encode.shift,
                    video_index=plan.video_index,
                    start_seconds=plan.start_seconds,
                    end_seconds=plan.end_seconds,
                )
            self._open = stack.pop_all()

    def mux(self, packet: Packet) -> None:
        """Add the next packet of the video, and of all tracks what comes before it."""
        packet = self._decode_times.mended(packet)
        packet.stream = self.video
        time = packet.pts if packet.dts is None else packet.dts
        if self._copier is not None and time is not None:
            self._copier.advance(time * self._plan.encode.shape.time_base)
        self._output.mux(packet)

    def finish(self) -> None:
        """Add the rest of all tracks, and complete the file."""
        if self._copier is not None:
            self._copier.finish()
            self.losses += self._copier.losses
        self._open.close()
        with self._part.open("r+b") as file:
            if not amend_header(self._plan, file):
                raise OutputError(
                    f"cannot write '{self._plan.path}': its header has no room for the shape of"
                    " pixels"
                )

    def close(self) -> None:
        """Let go of the file, finished or not; never fails."""
        # if it is not finished, it is not wanted any more: there is nothing to complete
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._open.close()


def open_output(
    plan: FilmPlan, file: Any, source: InputContainer | None
) -> tuple[OutputContainer, VideoStream, list[Converter]]:
    """Open the output, add all streams, and write the header.

    Args:
        plan: of the file.
        file: name or file object.
        source: that the tracks come from, open.

    Raises:
        OutputError: the encoder of the video refuses.
        FFmpegError, ValueError: the container or another encoder refuses.
    """
    encode, container = plan.encode, plan.encode.encoding.container
    output = av.open(
        file,
        "w",
        format=container.muxer,
        # no version, no time of day, no random numbers: the same work gives the same bytes
        container_options={"fflags": "+bitexact"} | plan.options,
        metadata_errors="surrogateescape",
    )
    output.metadata.update(plan.metadata)
    video = add_video(output, encode.encoding, encode.shape)
    video.metadata.update(plan.tracks.video_metadata)
    video.disposition = Disposition.default
    video.id = 1
    converters = []
    if source is not None:
        streams = list(source.streams)
        converters = [
            open_converter(
                track,
                streams[track.index],
                output,
                encode.shift + plan.delays.get(track.index, 0),
            )
            for track in plan.tracks.carried
        ]
    for converter in converters:
        converter.stream.id = plan.track_numbers.get(converter.plan.index, 0)
    if plan.chapters:
        output.set_chapters(list(plan.chapters))
    output.start_encoding()
    return output, video, converters


def amend_header(plan: FilmPlan, file: BufferedIOBase) -> bool:
    """Tell a finished Matroska file what its muxer could not be told; False if it has no room."""
    if not plan.is_matroska:
        return True
    shape = plan.encode.shape
    size = None
    if shape.sample_aspect != 1:
        size = display_size(shape.width, shape.height, shape.sample_aspect)
    delays = {plan.track_numbers[index]: delay for index, delay in plan.delays.items()}
    spherical = plan.spherical
    if not (size or delays or spherical):
        return True
    return amend(file, display_size=size, delays=delays, spherical=spherical)


def muxer_options(
    encode: Encode, tracks: TrackPlans, chapters: Sequence[Any] = ()
) -> dict[str, str]:
    """Options of the container: exact clocks, and the index at the front of mp4 and mov.

    Further videos get the same clock; where sound starts is written in the clock of the file,
    in which chapters count too: it is coarser where the ticks of a long one go beyond 32 bits.
    """
    if not encode.encoding.container.is_mov:
        return {}
    clock = _common_clock(
        encode.shape.time_base.denominator, (plan.ticks for plan in tracks.carried)
    )
    of_file = _common_clock(clock, (plan.sample_rate for plan in tracks.carried))
    times = [0, *(part["start"] * (part["time_base"] or 1) for part in chapters[1:])]
    times += [part["end"] * (part["time_base"] or 1) for part in chapters[-1:]]
    longest = max((after - before for before, after in pairwise(times)), default=0)
    if of_file * longest >= 2**31:
        of_file = clock if clock * longest < 2**31 else 1000
    return {
        "movflags": "+faststart",
        "video_track_timescale": str(clock),
        # edit lists (start offsets, durations) count in this clock; FFmpeg's default is 1 ms
        "movie_timescale": str(of_file),
    }


def _common_clock(first: int, others: Iterable[int]) -> int:
    """Ticks per second that hold times of all exactly, as far as 32 bits go."""
    clock = first
    for other in filter(None, others):
        common = math.lcm(clock, other)
        if common < 2**31:
            clock = common
    return clock


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
