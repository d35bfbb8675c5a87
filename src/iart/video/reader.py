"""Video files to frames, in constant memory, with exact times, going on after damage."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from torch import Tensor

from iart.errors import OptionsError
from iart.video.chroma import Siting
from iart.video.color import is_supported, to_rgb
from iart.video.decode import Decoder
from iart.video.deinterlace import MODES, plan_fields, treated
from iart.video.frame import Color, Crop, Frame, Loss, VideoInfo
from iart.video.probe import color_tags, open_container, read_info
from iart.video.scenes import CutDetector
from iart.video.survey import survey_fields
from iart.video.tags import resolve_color

CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video", "ljpeg", "amv")
"""Codecs whose 4:2:0 has chroma in the middle of four pixels."""

_CONTEXT_SECONDS = 2
"""Pictures this long before the first one asked for decide whether it is a cut, or a repetition."""


class VideoReader:
    """Iterates over the frames of a video file, every one once, in presentation order.

    Any number of iterations is valid; each starts at the first frame. Memory does not grow with the
    length of the file. Frames come upright and all of one size.

    Attributes:
        info: what the header and the first frames say, and what the frames will be.
        losses: damage met by the current or last iteration: parts that could not be decoded, an
            early end, times that had to be mended. Empty before the first frame.
    """

    info: VideoInfo
    losses: list[Loss]

    def __init__(
        self,
        path: str | Path,
        *,
        scenes: bool = True,
        deinterlace: str = "auto",
        crop: Crop | None = None,
        start_seconds: Fraction | None = None,
        end_seconds: Fraction | None = None,
    ) -> None:
        """Open a file and look at its first frames.

        Args:
            path: any file that FFmpeg reads.
            scenes: mark the first frame of each new scene by `cut`.
            deinterlace: "auto" looks at the whole file and gives frames as they once were:
                interlaced pictures are interpolated, one frame for each; film in fields comes back
                at its own rate. "bwdif" interpolates whatever is found; "bwdif-field" gives a frame
                of every field, at twice the rate; "off" takes pictures as they are stored.
            crop: the part of the picture to give, as shown; None for all of it.
            start_seconds: give the frames whose `time` lies in [start_seconds, end_seconds), the
                same as without these limits; None from the first one. The clock is the file's own,
                in which its first frame need not be at 0 (`info.start_seconds`).
            end_seconds: None to the last one.

        Raises:
            InputError: the file is missing or empty, is no media file, has no video stream or none
                that can be decoded, is encrypted, has a colour matrix that is not supported, or is
                interlaced in ways that differ from place to place.
            OptionsError: the crop lies outside the picture, the end is not after the start, or
                there is no such `deinterlace`.
        """
        if deinterlace not in MODES:
            known = ", ".join(MODES)
            raise OptionsError(f"deinterlace must be one of {known}, got {deinterlace!r}")
        self._path, self._scenes, self._crop = Path(path), scenes, crop
        self._start_seconds, self._end_seconds = start_seconds, end_seconds
        self._source = read_info(self._path)
        report = None if deinterlace == "off" else survey_fields(self._source)
        self._plan = plan_fields(self._source, report, deinterlace)
        whole = self._plan.outcome(self._source, report)
        self.info = limited(whole, crop, start_seconds, end_seconds)
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
            yield from self._frames(container)
        finally:
            if container in self._open:
                self._open.remove(container)
                container.close()

    def _frames(self, container: InputContainer) -> Iterator[Frame]:
        source, start, end = self._source, self._start_seconds, self._end_seconds
        context = None if start is None else start - _CONTEXT_SECONDS
        decoder = Decoder(container, source, start_seconds=context, logged=(start, end))
        self.losses = decoder.losses
        finish = _Finish(source, container, decoder, self._crop)
        detector = CutDetector() if self._scenes else None
        for picture in treated(decoder, self._plan.treatment(source)):
            time = picture.pts * self.info.time_base
            if end is not None and time >= end:
                return
            cut = detector is not None and detector.is_cut(picture.image)
            if start is None or time >= start:
                yield Frame(
                    finish(picture.image), picture.pts, self.info.time_base, picture.duration, cut
                )


class _Finish:
    """Makes RGB of pictures: coloured, upright, cropped."""

    def __init__(
        self, source: VideoInfo, container: InputContainer, decoder: Decoder, crop: Crop | None
    ) -> None:
        self._source, self._decoder, self._crop = source, decoder, crop
        self._stream = container.streams[source.stream_index]
        centred = source.codec in CENTRED_CHROMA_CODECS
        self._siting: Siting = "centre" if centred else "left"

    def __call__(self, image: av.VideoFrame) -> Tensor:
        rgb = self._decoder.orientation.upright(
            to_rgb(image, self._color(image), siting=self._siting)
        )
        # cropped last, since chroma has no odd columns
        return rgb if self._crop is None else self._crop.cut(rgb)

    def _color(self, image: av.VideoFrame) -> Color:
        """The picture's own description; streams that are spliced change it on the way."""
        tags = color_tags(image).over(color_tags(self._stream.codec_context))
        size = (image.width, image.height)
        color = resolve_color(tags, image.format.name, size, self._source.rate)
        return color if is_supported(color.matrix) else self._source.color


def limited(
    info: VideoInfo, crop: Crop | None, start_seconds: Fraction | None, end_seconds: Fraction | None
) -> VideoInfo:
    """What is known of a part of a source, of which `info` is known.

    Raises:
        OptionsError: the crop lies outside the picture, or the end is not after the start.
    """
    if crop is not None:
        crop.check(info.width, info.height)
        info = replace(info, width=crop.width, height=crop.height)
    if start_seconds is None and end_seconds is None:
        return info
    if start_seconds is not None and end_seconds is not None and end_seconds <= start_seconds:
        raise OptionsError(
            f"the end ({float(end_seconds):g} s) must come after the start "
            f"({float(start_seconds):g} s)"
        )
    first = info.start_seconds
    start = first if start_seconds is None else max(first, start_seconds)
    if info.duration_seconds is None and end_seconds is None:
        return replace(info, start_seconds=start, frame_count=None)
    ends = [end_seconds, info.duration_seconds and first + info.duration_seconds]
    duration = max(Fraction(0), min(end for end in ends if end is not None) - start)
    share = duration / info.duration_seconds if info.duration_seconds else None
    count = duration * info.rate
    if share is not None and info.frame_count is not None:
        count = share * info.frame_count
    return replace(info, start_seconds=start, duration_seconds=duration, frame_count=round(count))
