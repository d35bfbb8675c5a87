"""What is asked for when a video is enlarged: all of it in one object, checked before the work."""

import hashlib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypedDict, Unpack

import av
import torch
from torch import nn

from iart.inference.coloring import check_hdr
from iart.inference.conform import Conform, plan_conform
from iart.inference.parts import FilmParts, Parts, PictureParts
from iart.inference.reading import Reading
from iart.inference.tiling import TileOption
from iart.inference.windows import OVERLAP, WINDOW, check_windows
from iart.video.codecs import choose_encoding
from iart.video.film import EncodingOptions, FilmPlan, container_for, plan_film
from iart.video.frame import VideoInfo
from iart.video.image_writer import PicturePlan, plan_pictures
from iart.video.writer import is_folder, pixel_format_of_images


class Options(TypedDict, total=False):
    """Attributes of an `Order` that have a default."""

    window: int
    overlap: int
    tile: TileOption
    drop: tuple[str, ...]
    encoding: EncodingOptions
    precision: str
    size: str | None
    square_pixels: bool
    color: str
    hdr: str


@dataclass(frozen=True)
class Order:
    """Everything that the result depends on, but for the model.

    Attributes:
        reading: the source, and which part of it.
        output: where the result will be.
        is_folder: whether that is a folder of pictures.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side of square tiles in pixels; "auto" as memory allows; None for none.
        drop: tracks to leave out.
        encoding: of the video.
        precision: that the model computes in.
        size: of the output, see `iart.inference.conform.plan_size`.
        square_pixels: whether pixels of the output must be square.
        color: of the output, see `iart.inference.coloring.plan_color`.
        hdr: what to do about HDR, see `iart.inference.coloring.check_hdr`.
    """

    reading: Reading
    output: Path
    is_folder: bool = False
    window: int = WINDOW
    overlap: int = OVERLAP
    tile: TileOption = "auto"
    drop: tuple[str, ...] = ()
    encoding: EncodingOptions = field(default_factory=lambda: EncodingOptions())
    precision: str = "float32"
    size: str | None = None
    square_pixels: bool = False
    color: str = "auto"
    hdr: str = "refuse"

    def __post_init__(self) -> None:
        check_windows(self.window, self.overlap)

    @classmethod
    def to(cls, output: str | Path, reading: Reading, **options: Unpack["Options"]) -> "Order":
        """An order whose output is a folder if its name says so, see `is_folder`."""
        return cls(reading, Path(output), is_folder(output), **options)

    def plan(self, info: VideoInfo, reading: Reading) -> "Target":
        """Decide everything about the output that can be decided before the work.

        Args:
            info: of what the reader gives.
            reading: with times of the file, see `Reading.resolved`.

        Raises:
            OutputError: the codec or a track does not fit.
            OptionsError: an option cannot be.
            InputError: the source is HDR, and that is not asked for.
        """
        conform = self.conform(info)
        like = conform.output(info)
        if self.is_folder:
            chosen = pixel_format_of_images(self.encoding)
            pictures = plan_pictures(
                self.output, like=like, scale=1, pixel_format=chosen, drop=self.drop
            )
            return Target(replace(pictures, notes=conform.notes + pictures.notes), conform)
        plan = plan_film(
            self.output,
            like=like,
            scale=1,
            drop=self.drop,
            start_seconds=reading.start_seconds,
            end_seconds=reading.end_seconds,
            **self.encoding,
        )
        return Target(replace(plan, notes=conform.notes + plan.notes), conform)

    def conform(self, info: VideoInfo) -> Conform:
        """Size and colours of the output; raises as `plan` does."""
        conform = plan_conform(
            info,
            size=self.size,
            square_pixels=self.square_pixels,
            color=self.color,
            is_folder=self.is_folder,
        )
        pixel_format = "rgb48be"
        if not self.is_folder:
            container = container_for(self.output)
            pixel_format = choose_encoding(container, info.bit_depth, **self.encoding).pixel_format
        notes = check_hdr(info, self.hdr, pixel_format)
        return replace(conform, notes=conform.notes + notes)

    def identity(self, model: nn.Module) -> dict[str, str]:
        """What the result depends on, as text by name, for comparison with another order."""
        import iart

        reading = self.reading
        own = {part.name: getattr(self, part.name) for part in fields(self)}
        read = {part.name: getattr(reading, part.name) for part in fields(reading)}
        options = {**read, **own, **self.encoding}
        for name in ("reading", "encoding", "output", "is_folder"):
            del options[name]
        return {
            **{name: str(value) for name, value in options.items()},
            "version": f"{iart.__version__} (PyAV {av.__version__})",
            "source": reading.absolute_name,
            "content of the source": reading.fingerprint(),
            "model": _fingerprint(model),
        }


@dataclass(frozen=True)
class Target:
    """The output, planned, and what is done to pictures on the way to it."""

    plan: FilmPlan | PicturePlan
    conform: Conform

    def parts(self, folder: Path) -> Parts:
        """What a job keeps on the way there."""
        if isinstance(self.plan, PicturePlan):
            return PictureParts(folder, self.plan)
        return FilmParts(folder, self.plan.encode)


def _fingerprint(model: nn.Module) -> str:
    """The kind of a model and a hash of its weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"{type(model).__name__} {digest.hexdigest()[:12]}"
