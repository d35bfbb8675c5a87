"""Frames to packets of the output's codec, each with its time in the output."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import av.logging
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.pictures.color import Color
from iart.runtime import kept_scheduling
from iart.video.ffmpeg_log import captured_errors
from iart.video.frame import Frame
from iart.video.write.codecs import CODECS, Encoding, is_nvenc

_ENCODERS = {codec.encoder for codec in CODECS.values()}

# Fixed, since what these two write depends on it: frames that are encoded at the same time see less
# of each other. The others write the same whatever their threads.
_THREADS = {"libx264": 8, "libx265": 4}


@dataclass(frozen=True)
class Shape:
    """What the container is told of the video besides its codec.

    Attributes:
        width: in pixels.
        height: in pixels.
        rate: frames per second, the average one if it varies.
        time_base: unit of presentation times, in seconds.
        color: written to codec and container.
        sample_aspect: width of a pixel over its height.
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    color: Color
    sample_aspect: Fraction = Fraction(1)


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

    def picture(self, frame: Frame) -> av.VideoFrame:
        """A frame as the encoder takes it.

        Raises:
            ValueError: the frame has another size than announced.
        """
        size = (self.shape.width, self.shape.height)
        return frame.picture(self.encoding.pixel_format, self.source_color, size)

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

    def encode(self, picture: av.VideoFrame, slot: Slot) -> Iterator[Packet]:
        """Packets that are ready, in order of decoding; pictures as `Encode.picture` makes them.

        Raises:
            FFmpegError: the encoder fails.
        """
        picture.pts, picture.time_base = slot.pts, self._encode.shape.time_base
        self._durations[slot.pts] = slot.duration
        return self._timed(self._stream.encode(picture))

    def flush(self) -> Iterator[Packet]:
        """Packets that were held back, at the end."""
        return self._timed(self._stream.encode(None))

    def _timed(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            yield packet


def add_video(output: OutputContainer, encoding: Encoding, shape: Shape) -> VideoStream:
    """Add the video stream and open its encoder.

    Raises:
        OutputError: the encoder refuses; says why.
    """
    shown = {k: v for k, v in encoding.options.items() if k in ("crf", "cq", "preset", "profile")}
    options = "".join(f", {key} {value}" for key, value in shown.items())
    wanted = f"{shape.width}x{shape.height} {encoding.pixel_format}{options}"
    refused = f"{encoding.encoder} refuses {wanted}"
    if is_nvenc(encoding.encoder):
        refused = f"NVIDIA's encoder cannot be used here: {refused}"
    with explained(refused, "; pass another --codec" if is_nvenc(encoding.encoder) else ""):
        stream = output.add_stream(
            encoding.encoder, rate=shape.rate, options=dict(encoding.options)
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = shape.width, shape.height
        context.pix_fmt = encoding.pixel_format
        context.time_base = shape.time_base
        stream.time_base = shape.time_base
        context.sample_aspect_ratio = shape.sample_aspect
        context.color_primaries = shape.color.primaries
        context.color_trc = shape.color.transfer
        context.colorspace = shape.color.matrix
        context.color_range = 2 if shape.color.full_range else 1
        # PyAV asks for slices; x264 then cuts each frame in slices, which costs quality
        context.thread_type = "AUTO"
        context.thread_count = _THREADS.get(encoding.encoder, 0)
        if encoding.encoder in ("libx265", "hevc_nvenc") and encoding.container.is_mov:
            context.codec_tag = "hvc1"  # Apple's players refuse hev1
        with kept_scheduling():
            context.open()
    unknown = {"crf", "cq", "preset", "profile"} & set(context.options)
    if unknown:
        raise OutputError(f"{encoding.encoder} has no option --{min(unknown)}; leave it out")
    return stream


@contextmanager
def explained(what: str, advice: str = "") -> Iterator[None]:
    """Turn FFmpeg's errors into an `OutputError` with FFmpeg's own words, which it only logs."""
    logs: list[tuple[int, str, str]] = []
    try:
        with captured_errors() as logs:
            yield
    except (av.error.FFmpegError, ValueError) as error:
        words = _told(logs) or getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{what}: {words}{advice}") from error


def _told(logs: list[tuple[int, str, str]]) -> str:
    """The first complaint of an encoder, else the last of anything (decoders complain early)."""
    errors = [(name, text.strip()) for level, name, text in logs if level <= av.logging.ERROR]
    encoders = [text for name, text in errors if name in _ENCODERS]
    words = encoders[:1] or [text for _, text in errors[-1:]]
    return words[0].rstrip(".") if words else ""
