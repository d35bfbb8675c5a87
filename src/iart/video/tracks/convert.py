"""One converter per track: packets of the source go in, packets for the output come out.

A converter copies (payload untouched, time rewritten in the output's clock) or encodes anew. Times
shift by one amount for all tracks and the video alike, so that nothing moves against anything else.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from iart.video.read.timing import stated_seconds
from iart.video.tracks.plan import TrackPlan

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Underline, Alignment
Style: Default,Arial,16,&Hffffff,0,0,0,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""For text whose decoder states no style."""

_SLACK = Fraction(1, 25)
"""Seconds by which times of decoded sound may stray, as those of DVDs do, and be no gap."""

# decoders that state no frame size, though the format fixes it
_FRAME_SAMPLES = {"ac3": 1536, "mp1": 384}


class Converter:
    """Base: the output's stream with its metadata, and the clock."""

    def __init__(self, plan: TrackPlan, stream: Any, shift: Fraction) -> None:
        """Set what PyAV's templates drop.

        Args:
            plan: of the track.
            stream: of the output.
            shift: seconds added to every time.
        """
        self.plan = plan
        self.stream = stream
        self.shift = shift
        self.lost_packets = 0
        self._last_dts: int | None = None
        self._expected: Fraction | None = None
        stream.metadata.update(plan.metadata)
        stream.disposition = plan.disposition

    def convert(self, packet: Packet) -> list[Packet]:
        """Packets for the output, in its clock; the given packet may be changed and returned."""
        return []

    def flush(self) -> list[Packet]:
        """Packets that were held back, at the end."""
        return []

    def _position(self, packet: Packet, samples: int, tolerance: Fraction | None) -> Fraction:
        """Start of the packet in seconds, in the output.

        A clock too coarse for samples makes sound jitter: within `tolerance` seconds of where
        the packet before ended, it continues there.
        """
        given, expected = stated_seconds(packet), self._expected
        rate = self.plan.sample_rate
        if given is None:
            position = Fraction(0) if expected is None else expected
        else:
            position = given + self.shift
            if tolerance and expected is not None and abs(position - expected) < tolerance:
                position = expected
        if rate and samples:
            self._expected = position + Fraction(samples, rate)
        else:
            self._expected = position + (packet.duration or 0) * (packet.time_base or 0)
        return position

    def _stamp(self, packet: Packet, position: Fraction, delay: Fraction, length: Fraction) -> None:
        """Write times in the output's clock: decoded at `position`, shown `delay` later."""
        clock = self.stream.time_base
        dts = round(position / clock)
        if self._last_dts is not None and dts <= self._last_dts:
            # muxers stop at times that do not grow, which damaged files have; text may share them
            dts = self._last_dts + (0 if self.plan.kind in ("subtitle", "data") else 1)
        self._last_dts = dts
        packet.time_base = clock
        packet.dts = dts
        packet.pts = dts + max(0, round(delay / clock))
        packet.duration = max(0, round(length / clock))
        packet.stream = self.stream


class PacketConverter(Converter):
    """Payloads bit by bit."""

    def __init__(
        self, plan: TrackPlan, source: Stream, output: OutputContainer, shift: Fraction
    ) -> None:
        """Add a stream with the source's parameters."""
        super().__init__(plan, output.add_stream_from_template(source, opaque=True), shift)
        context = source.codec_context if isinstance(source, AudioStream) else None
        size = context.frame_size if context is not None else 0
        if isinstance(source, SubtitleStream) and source.codec_context.extradata:
            # the template knows that of the file, not the colours that a DVD's IFO adds
            self.stream.codec_context.extradata = source.codec_context.extradata
        self._samples = size or _FRAME_SAMPLES.get(plan.codec, 0)
        self._before: Fraction | None = None

    def convert(self, packet: Packet) -> list[Packet]:
        """The packet itself with new times."""
        base = packet.time_base or self.stream.time_base
        rate = self.plan.sample_rate
        length = (packet.duration or 0) * base
        samples = self._samples or round(length * rate)
        # only a finer clock than the source's needs the sample count; else times stay as given
        finer = bool(rate) and self.stream.time_base < base
        delay = Fraction(0)
        if packet.pts is not None and packet.dts is not None:
            delay = (packet.pts - packet.dts) * base
        position = self._position(packet, samples, base if finer else None)
        if self.plan.kind == "subtitle" and position < 0:
            length, position = max(Fraction(0), length + position), Fraction(0)
        if finer and samples:
            length = Fraction(samples, rate)
        if not length and self.plan.kind == "audio" and self._before is not None:
            length = position - self._before  # MP4 leaves out a last packet without length
        self._before = position
        self._stamp(packet, position, delay, length)
        return [packet]


class SoundConverter(Converter):
    """Decoded and encoded again by a lossless codec."""

    def __init__(
        self, plan: TrackPlan, source: AudioStream, output: OutputContainer, shift: Fraction
    ) -> None:
        """Add a stream of the plan's target codec."""
        stream: Any = output.add_stream(plan.target, rate=source.rate)
        wide = source.format.packed.name == "s32"
        stream.codec_context.format = "s32" if wide else "s16"
        stream.codec_context.layout = source.layout
        stream.codec_context.time_base = Fraction(1, source.rate)
        stream.time_base = Fraction(1, source.rate)
        super().__init__(plan, stream, shift)
        source.codec_context.flush_buffers()  # of the trial before this one
        self._source = source

    def convert(self, packet: Packet) -> list[Packet]:
        """Encoded sound of the packet and of those before it; damaged packets are skipped."""
        try:
            frames: list[Any] = list(self._source.decode(packet))
        except av.error.FFmpegError:
            self.lost_packets += 1
            return []
        if not frames:
            return []
        before = self._expected
        position = self._position(packet, sum(frame.samples for frame in frames), _SLACK)
        if before is not None and position < before:
            # never back: what is decoded already is written already
            self._expected = before + (self._expected or before) - position
            position = before
        packets = []
        for frame in frames:
            packets += self._encode(frame, position)
            position += Fraction(frame.samples, self.plan.sample_rate)
        return packets

    def flush(self) -> list[Packet]:
        """The encoder's last packets."""
        return self._ours(self.stream.codec_context.encode(None))

    def _encode(self, frame: AudioFrame, position: Fraction) -> list[Packet]:
        frame.pts = round(position * self.plan.sample_rate)
        frame.time_base = Fraction(1, self.plan.sample_rate)
        return self._ours(self.stream.codec_context.encode(frame))

    def _ours(self, packets: Iterable[Packet]) -> list[Packet]:
        packets = list(packets)
        for packet in packets:
            packet.stream = self.stream
        return packets


class TextConverter(Converter):
    """Text subtitles from one format to another, with the styles that both know."""

    def __init__(
        self, plan: TrackPlan, source: SubtitleStream, output: OutputContainer, shift: Fraction
    ) -> None:
        """Add a stream of the plan's target codec."""
        stream: Any = output.add_stream(plan.target)
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self._encoder = stream.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header or _ASS_HEADER
        self._encoder.time_base = Fraction(1, 1000)
        stream.time_base = Fraction(1, 1000)
        super().__init__(plan, stream, shift)

    def convert(self, packet: Packet) -> list[Packet]:
        """The line in the other format; an empty list if the packet says nothing."""
        try:
            line = self._decoder.decode2(packet)
            if line is None or not len(line):
                return []
            text = bytes(self._encoder.encode_subtitle(line))
        except av.error.FFmpegError:
            self.lost_packets += 1
            return []
        if not text:
            return []
        length = (packet.duration or 0) * (packet.time_base or 0)
        length = length or Fraction(line.end_display_time - line.start_display_time, 1000)
        position = self._position(packet, 0, None) + Fraction(line.start_display_time, 1000)
        if position < 0:
            length, position = max(Fraction(0), length + position), Fraction(0)
        converted = Packet(text)
        converted.is_keyframe = True
        self._stamp(converted, position, Fraction(0), Fraction(length))
        return [converted]


class AttachmentConverter(Converter):
    """A file in the header: a font, a cover. Its packets become nothing."""

    def __init__(self, plan: TrackPlan, output: OutputContainer) -> None:
        """Attach the plan's payload."""
        metadata = plan.metadata
        stream = output.add_attachment(metadata["filename"], metadata["mimetype"], plan.attached)
        super().__init__(plan, stream, Fraction(0))


def open_converter(
    plan: TrackPlan, source: Stream, output: OutputContainer, shift: Fraction = Fraction(0)
) -> Converter:
    """Add the output's stream for a plan, and return the way there.

    Raises:
        FFmpegError, ValueError: the container or an encoder refuses.
    """
    if plan.target == "attach":
        return AttachmentConverter(plan, output)
    if plan.target == "copy":
        return PacketConverter(plan, source, output, shift)
    if isinstance(source, AudioStream):
        return SoundConverter(plan, source, output, shift)
    assert isinstance(source, SubtitleStream)
    return TextConverter(plan, source, output, shift)


def convert_start(converter: Converter, packets: Iterable[Packet]) -> list[Packet]:
    """What the first packets of a track become, and the end after them; for trials.

    Args:
        converter: just opened.
        packets: of the source; they stay as they are.
    """
    converted = [new for packet in packets for new in converter.convert(_copied(packet))]
    return converted + converter.flush()


def _copied(packet: Packet) -> Packet:
    """An independent packet with the same payload, times and side data."""
    copy = Packet(bytes(packet))
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    copy.stream = packet.stream
    return copy
