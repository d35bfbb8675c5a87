"""Everything that is decided about an upscale before its first frame.

    with plan_upscale(request) as plan:     opens the source; refuses what can be refused
        plan.tiling(model)                  and the rest

`iart.upscaling.film.run` carries a plan out; `iart.upscaling.film.forecast`
prints it.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from torch import nn

from iart.files.complete import Destination
from iart.files.names import FRAMES, NumberedName
from iart.upscaling.budget import Tiling, device_of, film_bytes, plan_tiling, waiting_bytes
from iart.upscaling.film.conform import Conform, check_hdr, plan_conform
from iart.upscaling.film.job import (
    CONTENT,
    model_fingerprint,
    precision_asked,
    source_fingerprint,
)
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.segments import FilmStore, PictureStore
from iart.version import __version__
from iart.video.frame import Loss, VideoInfo
from iart.video.open import open_video
from iart.video.read.borders import find_borders
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from iart.video.read.timing import counts_from_anywhere
from iart.video.write.codecs import choose_encoding, container_for
from iart.video.write.film import EncodingOptions, plan_film
from iart.video.write.image_series import PicturePlan, plan_pictures
from iart.video.write.muxer import FilmPlan
from iart.video.write.writer import is_folder, pixel_format_of_images

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpscalePlan:
    """Everything that is decided about an upscale.

    Attributes:
        request: what is asked for, with borders found and times in the clock of the file.
        reader: of the source, open.
        conform: size and colours of the output.
        target: the output.
    """

    request: UpscaleRequest
    reader: VideoReader | ImageReader
    conform: Conform
    target: FilmPlan | PicturePlan

    @property
    def info(self) -> VideoInfo:
        """What the reader gives."""
        return self.reader.info

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder of images."""
        return isinstance(self.target, PicturePlan)

    @property
    def notes(self) -> tuple[str, ...]:
        """Conversions that will happen and what cannot be kept, one line each."""
        return self.conform.notes + self.target.notes

    def in_output(self, losses: Iterable[Loss]) -> list[Loss]:
        """Damage of the source, in the clock of the output."""
        shift = Fraction(0)
        if isinstance(self.target, FilmPlan):
            shift = self.target.encode.shift
        elif counts_from_anywhere(self.info.container):
            shift = -self.info.start_seconds
        return [
            replace(
                loss,
                start_seconds=loss.start_seconds + shift,
                end_seconds=None if loss.end_seconds is None else loss.end_seconds + shift,
            )
            for loss in losses
        ]

    def place(self) -> Destination:
        """Where the output will be.

        Raises:
            OutputError: the name is taken, or is that of the input.
        """
        return Destination(
            self.target.path,
            folder=self.is_folder,
            inputs=[self.info.path],
            overwrite=self.request.overwrite,
            frames=self.names.pattern,
        )

    @property
    def names(self) -> NumberedName:
        """Of the images of a folder."""
        return self.target.names if isinstance(self.target, PicturePlan) else FRAMES

    def store(self, folder: Path) -> FilmStore | PictureStore:
        """What a job keeps on the way there."""
        if isinstance(self.target, PicturePlan):
            return PictureStore(folder, self.target)
        return FilmStore(folder, self.target.encode)

    def tiling(self, model: nn.Module, *, processes: int = 1) -> Tiling:
        """What the model is shown at once, if so many processes share the work.

        Raises:
            OptionsError: the tile is too small.
            DeviceError: this machine has too little memory.
        """
        # Others on GPUs have a memory of their own.
        share = 1 / processes if device_of(model).type == "cpu" else 1.0
        return film_tiling(model, self.request, self.info.height, self.info.width, share=share)

    def identity(self, model: nn.Module) -> dict[str, str]:
        """Everything that the bytes of the output depend on, as text by name."""
        source = self.request.source
        names = [source] if isinstance(source, str | Path) else source
        images = {} if self.names == FRAMES else {"names of images": self.names.pattern.pattern}
        return {
            **images,
            **self.request.bytes_depend_on,
            "version": f"{__version__} (PyAV {av.__version__})",
            "source": ", ".join(str(Path(name).absolute()) for name in names),
            CONTENT: source_fingerprint(source),
            "model": model_fingerprint(model),
            "precision": precision_asked(model),
        }


def film_tiling(
    model: nn.Module,
    request: UpscaleRequest,
    height: int,
    width: int,
    *,
    share: float = 1.0,
    at_most: int | None = None,
) -> Tiling:
    """What the model is shown at once of a film; see `plan_tiling`."""
    return plan_tiling(
        model,
        height,
        width,
        window=request.window,
        overlap=request.overlap,
        tile=request.tile,
        beside=film_bytes(height, width),
        beside_network=waiting_bytes(height, width),
        share=share,
        at_most=at_most,
    )


@contextmanager
def plan_upscale(request: UpscaleRequest) -> Iterator[UpscalePlan]:
    """Open the source, and decide everything about the output that can be decided before the work.

    Raises:
        InputError: the source cannot be read, or is HDR, and that is not asked for.
        OutputError: the codec or a track does not fit.
        OptionsError: an option cannot be.
    """
    request = resolved(request)
    with open_source(request) as reader:
        info = reader.info
        conform = _conform_of(request, info)
        like, encoding = conform.output(info), encoding_of(request)
        if is_folder(request.output):
            target = plan_pictures(
                request.output,
                like=like,
                scale=1,
                pixel_format=pixel_format_of_images(encoding),
                drop=request.drop,
            )
        else:
            target = plan_film(
                request.output,
                like=like,
                scale=1,
                drop=request.drop,
                start_seconds=request.start_seconds,
                end_seconds=request.end_seconds,
                **encoding,
            )
        yield UpscalePlan(request, reader, conform, target)


def open_source(request: UpscaleRequest) -> VideoReader | ImageReader:
    """A reader of what is asked for; the request is `resolved`.

    Raises:
        InputError: the source cannot be read.
        OptionsError: the range or the rectangle is empty or lies outside.
    """
    assert request.crop != "auto"
    return open_video(
        request.source,
        rate=request.rate,
        deinterlace=request.deinterlace,
        crop=request.crop,
        start_seconds=request.start_seconds,
        end_seconds=request.end_seconds,
    )


def resolved(request: UpscaleRequest) -> UpscaleRequest:
    """The same, with what depends on the file: its black borders, and times in its clock.

    Raises:
        InputError: the source cannot be read.
    """
    if request.crop == "auto":
        found = find_borders(request.source)
        _log.info("crop: %s", "no black borders found" if found is None else f"{found}")
        request = replace(request, crop=found)
    if not request.has_range:
        return request
    with open_video(request.source, rate=request.rate, deinterlace="off") as reader:
        info = reader.info
    if not counts_from_anywhere(info.container):
        return request
    times = (request.start_seconds, request.end_seconds)
    start, end = (None if time is None else time + info.start_seconds for time in times)
    return replace(request, start_seconds=start, end_seconds=end)


def _conform_of(request: UpscaleRequest, info: VideoInfo) -> Conform:
    """Size and colours of the output; raises as `plan_upscale` does."""
    as_images = is_folder(request.output)
    conform = plan_conform(info, request, is_folder=as_images)
    pixel_format = "rgb48be"
    if not as_images:
        container = container_for(Path(request.output))
        encoding = choose_encoding(container, info.bit_depth, **encoding_of(request))
        pixel_format = encoding.pixel_format
    notes = check_hdr(info, request.hdr, pixel_format)
    return replace(conform, notes=conform.notes + notes)


def encoding_of(request: UpscaleRequest) -> EncodingOptions:
    """How the video is encoded."""
    return EncodingOptions(
        codec=request.codec,
        crf=request.crf,
        preset=request.preset,
        pixel_format=request.pixel_format,
    )
