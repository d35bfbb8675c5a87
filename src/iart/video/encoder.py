"""Frames to packets of the output's codec, each with its time in the output."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet
from av.video.stream import VideoStream

from iart.video.codecs import Encoding
from iart.video.color import from_rgb
from iart.video.dry_mux import Shape, add_video
from iart.video.frame import Color, Frame


@dataclass(frozen=True, slots=True)
class Slot:
    """[pts, pts + duration) of one frame, in the time base of the output's video."""

    pts: int
    duration: int


class Timeline:
    """Gives every frame of a film, in order, its slot in the output."""

    def __init__(self, shape: Shape, shift: Fraction) -> None:
        """The clock is that of the shape; `shift` seconds are added to all times."""
        self._clock, self._rate, self._shift = shape.time_base, shape.rate, shift
        self._last: int | None = None

    def place(self, frame: Frame) -> Slot:
        """The slot of the next frame, later than all before it: encoders stop at others."""
        pts = round((frame.time + self._shift) / self._clock)
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._last = pts
        length = frame.duration * frame.time_base or 1 / self._rate
        return Slot(pts, max(1, round(length / self._clock)))


@dataclass(frozen=True)
class Encode:
    """What an encoder must know; made once, used by every encoder of one film.

    Attributes:
        encoding: codec, pixel format, options.
        shape: of the pictures.
        source_color: of the source, where the shape's says something else for the codec's sake.
        shift: seconds added to the times of all frames.
    """

    encoding: Encoding
    shape: Shape
    source_color: Color
    shift: Fraction = Fraction(0)

    def timeline(self) -> Timeline:
        """A new one, for the first frame and all after it."""
        return Timeline(self.shape, self.shift)

    @contextmanager
    def fresh(self) -> Iterator["Encoder"]:
        """An encoder of its own, whose first packet depends on nothing before it.

        Raises:
            OutputError: the encoder refuses.
        """
        muxer = self.encoding.container.muxer
        # nothing is written there: the container only tells the encoder where headers go
        with av.open(io.BytesIO(), "w", format=muxer) as nowhere:
            yield Encoder(self, add_video(nowhere, self.encoding, self.shape))


class Encoder:
    """One run of an encoder, over a film or a part of it."""

    def __init__(self, encode: Encode, stream: VideoStream) -> None:
        """`stream` holds an open encoder, as `add_video` leaves it."""
        self._encode, self._stream = encode, stream
        self._durations: dict[int, int] = {}

    def encode(self, frame: Frame, slot: Slot) -> Iterator[Packet]:
        """Packets that are ready, in order of decoding.

        Raises:
            ValueError: the frame has another size than announced.
            FFmpegError: the encoder fails.
        """
        shape = self._encode.shape
        _, height, width = frame.data.shape
        if (width, height) != (shape.width, shape.height):
            raise ValueError(
                f"expected frames of {shape.width}x{shape.height}, got {width}x{height}"
            )
        picture = from_rgb(
            frame.data, self._encode.encoding.pixel_format, self._encode.source_color
        )
        picture.pts, picture.time_base = slot.pts, shape.time_base
        self._durations[slot.pts] = slot.duration
        return self._timed(self._stream.encode(picture))

    def flush(self) -> Iterator[Packet]:
        """Packets that were held back, at the end."""
        return self._timed(self._stream.encode(None))

    def _timed(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            yield packet
