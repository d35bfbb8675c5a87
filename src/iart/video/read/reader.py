"""Video files to frames, in constant memory, with exact times, going on after damage."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.stream import Stream
from torch import Tensor

from iart.errors import OptionsError
from iart.pictures.chroma import Siting
from iart.pictures.color import Color, alpha_of, is_supported, to_rgb
from iart.pictures.color_tags import ColorTags, resolve_color
from iart.video.fields.survey import survey_fields
from iart.video.fields.treat import MODES, plan_fields, treated
from iart.video.frame import Crop, Frame, Loss, VideoInfo
from iart.video.read.decode import Decoder
from iart.video.read.probe import close_container, open_container, opened, read_info
from iart.video.read.scenes import CutDetector

_CENTRED_CHROMA_CODECS = ("mjpeg", "mpeg1video", "ljpeg", "amv")
"""Codecs whose 4:2:0 has chroma in the middle of four pixels."""

_CONTEXT_SECONDS = 2
"""Pictures this long before the first one asked for decide whether it is a cut, or a repetition."""


class VideoReader(AbstractContextManager["VideoReader"]):
    """Iterates over the frames of a video file, every one once, in presentation order.

    Any number of iterations is valid; each starts at the first frame. Memory does not grow with the
    length of the file. Frames come upright and all of one size.

    Attributes:
        info: what the header and the first frames say, and what the frames will be.
        losses: damage met by the current or last iteration: parts that could not be decoded, an
            early end, times that had to be mended. Empty before the first frame.
        device: where frames become RGB and stay; may be set before an iteration.
    """

    device = torch.device("cpu")
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
        with opened(self._path) as container:
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.thread_type = "AUTO"
            self._source = read_info(self._path, container)
            report = None if deinterlace == "off" else survey_fields(self._source, container)
        self._plan = plan_fields(self._source, report, deinterlace)
        whole = self._plan.outcome(self._source, report)
        self.info = limited(whole, crop, start_seconds, end_seconds)
        self.losses = []
        self._open: list[InputContainer] = []

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all iterations and release the file."""
        while self._open:
            close_container(self._open.pop())

    def __iter__(self) -> Iterator[Frame]:
        container = open_container(self._path)
        self._open.append(container)
        try:
            yield from self._frames(container)
        finally:
            if container in self._open:
                self._open.remove(container)
                close_container(container)

    def _frames(self, container: InputContainer) -> Iterator[Frame]:
        source, start, end = self._source, self._start_seconds, self._end_seconds
        context = None if start is None else start - _CONTEXT_SECONDS
        decoder = Decoder(container, source, start_seconds=context, logged=(start, end))
        self.losses = decoder.losses
        finish = Finish(source, container, decoder, self._crop, self.device)
        detector = CutDetector() if self._scenes else None
        for picture in treated(decoder, self._plan.treatment(source)):
            time = picture.pts * self.info.time_base
            if end is not None and time >= end:
                return
            cut = detector is not None and detector.is_cut(picture.image)
            if start is None or time >= start:
                rgb, alpha = finish(picture.image)
                yield Frame(
                    rgb, picture.pts, self.info.time_base, picture.duration, cut, alpha=alpha
                )


def picture_color(image: av.VideoFrame, stream: Stream, info: VideoInfo) -> Color:
    """How the numbers of a decoded picture mean colours.

    Its own description counts: streams that are spliced change it on the way.

    Args:
        image: the whole picture.
        stream: of which it was decoded.
        info: what the probe found of the file.
    """
    tags = ColorTags.of(image).over(ColorTags.of(stream.codec_context))
    color = resolve_color(tags, image.format.name, (image.width, image.height), info.rate)
    return color if is_supported(color.matrix) else info.color


def chroma_siting(codec: str) -> Siting:
    """Where samples of chroma lie in videos of a codec, by FFmpeg's name."""
    return "centre" if codec in _CENTRED_CHROMA_CODECS else "left"


class Finish:
    """Makes RGB and alpha of pictures: coloured, upright, cropped."""

    def __init__(
        self,
        source: VideoInfo,
        container: InputContainer,
        decoder: Decoder,
        crop: Crop | None,
        device: torch.device,
    ) -> None:
        self._source, self._decoder, self._crop, self._device = source, decoder, crop, device
        self._stream = container.streams[source.stream_index]
        self._siting: Siting = chroma_siting(source.codec)

    def __call__(self, image: av.VideoFrame) -> tuple[Tensor, Tensor | None]:
        """A decoded picture, and where it is opaque."""
        color = picture_color(image, self._stream, self._source)
        rgb = self._shown(to_rgb(image, color, siting=self._siting, device=self._device))
        alpha = alpha_of(image) if self._source.alpha else None
        return rgb, None if alpha is None else self._shown(alpha)

    def _shown(self, image: Tensor) -> Tensor:
        image = self._decoder.orientation.upright(image)
        # cropped last, since chroma has no odd columns
        for crop in (self._source.marks.aperture, self._crop):
            image = image if crop is None else crop.cut(image)
        return image


def limited(
    info: VideoInfo, crop: Crop | None, start_seconds: Fraction | None, end_seconds: Fraction | None
) -> VideoInfo:
    """What is known of a part of a source, of which `info` is known.

    Raises:
        OptionsError: the crop lies outside the picture, or the end is not after the start.
    """
    if crop is not None:
        crop.check(info.width, info.height)
        marks = replace(info.marks, valid=False)
        info = replace(info, width=crop.width, height=crop.height, marks=marks)
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
