"""Video files to frames, in constant memory, with exact times, going on after damage."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from iart.video.chroma import Siting
from iart.video.color import is_supported, to_rgb
from iart.video.frame import Color, Frame, Loss, VideoInfo
from iart.video.orientation import Orientation, orientation_of
from iart.video.probe import color_tags, open_container, read_info
from iart.video.scenes import CutDetector
from iart.video.tags import resolve_color
from iart.video.timing import Clock, LossLog

_MAX_READ_ERRORS = 100
"""Consecutive failures to read a packet after which the rest of a file counts as lost."""

_EARLY_END_SECONDS = Fraction(1, 4)
"""A video this much (or two frames, if longer) shorter than its header says ended early."""

_CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video", "ljpeg", "amv")
_TIMED_BY_ORDER = ("avi",)  # containers whose presentation times are FFmpeg's guesses
_LENGTH_IN_HEADER = ("mov", "matroska", "avi", "flv", "asf", "mxf")


class VideoReader:
    """Iterates over the frames of a video file, every one once, in presentation order.

    Any number of iterations is valid; each starts at the first frame. Memory does not grow with the
    length of the file. Frames come upright and all of one size.

    Attributes:
        info: what the header and the first frames say.
        losses: damage met by the current or last iteration: parts that could not be decoded, an
            early end, times that had to be mended. Empty before the first frame.
    """

    info: VideoInfo
    losses: list[Loss]

    def __init__(self, path: str | Path, *, scenes: bool = True) -> None:
        """Open a file and look at its first frames.

        Args:
            path: any file that FFmpeg reads.
            scenes: mark the first frame of each new scene by `cut`.

        Raises:
            InputError: the file is missing or empty, is no media file, has no video stream or none
                that can be decoded, is encrypted, or has a colour matrix that is not supported.
        """
        self._path, self._scenes = Path(path), scenes
        self.info = read_info(self._path)
        self.losses = []
        self._open: list[InputContainer] = []

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all iterations and release the file."""
        while self._open:
            self._open.pop().close()

    def __iter__(self) -> Iterator[Frame]:
        container = open_container(self._path)
        self._open.append(container)
        try:
            yield from _Pass(self, container)
        finally:
            if container in self._open:
                self._open.remove(container)
                container.close()

    @property
    def _marks_scenes(self) -> bool:
        return self._scenes


class _Pass:
    """One iteration over the frames of an open container."""

    def __init__(self, reader: VideoReader, container: InputContainer) -> None:
        info = self._info = reader.info
        self._container = container
        self._stream: VideoStream = container.streams[info.stream_index]  # pyright: ignore[reportAttributeAccessIssue]
        self._stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
        self._log = LossLog()
        reader.losses = self._log.losses
        self._clock = Clock(
            info.time_base,
            info.rate,
            self._log,
            start=round(info.start_seconds / info.time_base),
            regular=not info.variable_rate,
        )
        self._detector = CutDetector() if reader._marks_scenes else None
        self._ordered = info.container.split(",")[0] in _TIMED_BY_ORDER
        self._first_order_time: int | None = None
        self._coded_size: tuple[int, int] | None = None
        self._orientation = Orientation()
        self._tainted = False  # pictures depend on a damaged one
        self._read_until = Fraction(0)  # end of the last packet of any stream
        centred = info.codec in _CENTRED_CHROMA_CODECS
        self._siting: Siting = "centre" if centred else "left"

    def __iter__(self) -> Iterator[Frame]:
        for packet in self._packets():
            for decoded in self._decode(packet):
                yield self._finish(decoded)
        for decoded in self._decode(None):
            yield self._finish(decoded)
        self._look_for_early_end()

    def _packets(self) -> Iterator[Packet]:
        """Packets of the video stream; failures to read are recorded and skipped."""
        errors = 0
        while errors <= _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux():
                    if packet.size == 0 and packet.dts is None:  # PyAV's mark of the end
                        continue
                    errors = 0
                    self._note_time(packet)
                    if packet.stream_index == self._stream.index:
                        yield packet
            except FFmpegError as error:
                errors += 1
                self._damage(error.strerror or str(error), None)
            else:
                return

    def _note_time(self, packet: Packet) -> None:
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None and packet.time_base:
            end = (time + (packet.duration or 0)) * packet.time_base
            self._read_until = max(self._read_until, end)

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Frames that a packet completes; None for those the decoder still holds."""
        try:
            if packet is not None and packet.is_corrupt:
                self._damage("the file is damaged here", packet)
            return self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            self._damage(error.strerror or str(error), packet)
            return []

    def _damage(self, reason: str, packet: Packet | None) -> None:
        """Remember a failure; what is missing shows when the next frame comes."""
        self._clock.damaged, self._tainted = reason, True
        if packet is not None and packet.pts is not None and not self._ordered:
            start = packet.pts * self._info.time_base
        else:
            start = self._clock.now_seconds
        self._log.add(start, start + self._clock.step_seconds, reason)

    def _finish(self, decoded: av.VideoFrame) -> Frame:
        """A frame of ours: placed in time, coloured, upright."""
        pts, duration = self._clock.place(self._stated_time(decoded), decoded.duration)
        start = pts * self._info.time_base
        self._note_damage(decoded, start)
        decoded = self._first_size(decoded, start)
        cut = self._detector is not None and self._detector.is_cut(decoded)
        image = self._orientation.upright(
            to_rgb(decoded, self._color(decoded), siting=self._siting)
        )
        return Frame(image, pts, self._info.time_base, duration, cut)

    def _note_damage(self, decoded: av.VideoFrame, start: Fraction) -> None:
        """Pictures are damaged until the next whole key frame: they are predicted from others."""
        if decoded.is_corrupt:
            self._tainted = True
        elif decoded.key_frame:
            self._tainted = False
        if self._tainted:
            self._log.add(start, self._clock.now_seconds, "the picture is damaged")

    def _stated_time(self, decoded: av.VideoFrame) -> int | None:
        if not self._ordered:
            return decoded.pts
        if decoded.dts is None:
            return None
        if self._first_order_time is None:
            self._first_order_time = decoded.dts
        first = round(self._info.start_seconds / self._info.time_base)
        return decoded.dts - self._first_order_time + first

    def _color(self, decoded: av.VideoFrame) -> Color:
        """The frame's own description; streams that are spliced change it on the way."""
        tags = color_tags(decoded).over(color_tags(self._stream.codec_context))
        size = self._coded_size or (decoded.width, decoded.height)
        color = resolve_color(tags, decoded.format.name, size, self._info.rate)
        return color if is_supported(color.matrix) else self._info.color

    def _first_size(self, decoded: av.VideoFrame, start: Fraction) -> av.VideoFrame:
        """The frame, scaled to the size of the first one if it has another."""
        size = (decoded.width, decoded.height)
        if self._coded_size is None:
            self._coded_size, self._orientation = size, orientation_of(decoded)
        if size == self._coded_size:
            return decoded
        width, height = self._coded_size
        self._log.add(
            start,
            self._clock.now_seconds,
            f"the picture changes from {width}x{height} to {size[0]}x{size[1]}; scaled back",
        )
        return decoded.reformat(width=width, height=height, interpolation=Interpolation.BICUBIC)

    def _look_for_early_end(self) -> None:
        info, clock = self._info, self._clock
        if not info.container.startswith(_LENGTH_IN_HEADER):
            return
        tolerance = max(2 * clock.step_seconds, _EARLY_END_SECONDS)
        end, expected = clock.now_seconds, info.start_seconds
        if info.duration_seconds is None:
            return
        expected += info.duration_seconds
        if self._stream.duration is None and "DURATION" not in self._stream.metadata:
            # the header tells the length of the longest stream only
            end = max(end, self._read_until)
        if end + tolerance < expected:
            self._log.add(
                clock.now_seconds,
                expected,
                f"the file ends early: {float(end):.2f} of {float(expected):.2f} s are there",
            )
