"""Writes frames to a video file, with every track of the source.

    open_writer(path, like=info) → VideoWriter (mp4, mkv, mov, webm) or ImageWriter (a folder)

Everything that can be refused is refused by the constructor: the codec, each track, the place. The
file gets its final name in `close`, and only then.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Unpack

from iart.errors import OptionsError, OutputError
from iart.video.codecs import CONTAINERS
from iart.video.encoder import Encoder
from iart.video.film import EncodingOptions, Film, container_for, plan_film
from iart.video.frame import Frame, VideoInfo
from iart.video.image_writer import ImageWriter
from iart.video.pending import PendingOutput
from iart.video.writing import Writer


class VideoWriter(Writer):
    """Encodes frames and carries the tracks of the source over; a context manager.

    Leaving the `with` block without an error completes the file; an error removes it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        like: VideoInfo,
        scale: int = 4,
        drop: Collection[str] = (),
        overwrite: bool = False,
        **encoding: Unpack[EncodingOptions],
    ) -> None:
        """Decide and try everything, and open the output beside its final name.

        Args:
            path: ends in .mp4, .mkv, .mov or .webm.
            like: the source: tracks, times, colour and shape of pixels are taken from it.
            scale: size of the frames that will be written over that of the source.
            drop: tracks to leave out, see `iart.video.film.plan_film`.
            overwrite: whether an existing file may be replaced, at the end.
            encoding: codec, crf, preset, pixel_format; see `iart.video.film.EncodingOptions`.

        Raises:
            OutputError: the place, the codec or a track; says which and what to do.
            OptionsError: an unknown codec, pixel format or `drop`.
        """
        path = Path(path)
        container_for(path)
        pending = PendingOutput(path, suffix=path.suffix, inputs=[like.path], overwrite=overwrite)
        try:
            plan = plan_film(path, like=like, scale=scale, drop=drop, **encoding)
            self._film = Film(plan, pending.part)
        except BaseException:
            pending.discard()
            raise
        super().__init__(path, pending, plan.notes)
        self._encoder = Encoder(plan.encode, self._film.video)
        self._timeline = plan.encode.timeline()

    def __enter__(self) -> "VideoWriter":
        return self

    def _write(self, frame: Frame) -> None:
        for packet in self._encoder.encode(frame, self._timeline.place(frame)):
            self._film.mux(packet)

    def _finish(self) -> None:
        for packet in self._encoder.flush():
            self._film.mux(packet)
        self._film.finish()
        self.losses += self._film.losses

    def _release(self) -> None:
        self._film.close()


def open_writer(
    path: str | Path,
    *,
    like: VideoInfo,
    scale: int = 4,
    drop: Collection[str] = (),
    overwrite: bool = False,
    **encoding: Unpack[EncodingOptions],
) -> VideoWriter | ImageWriter:
    """A `VideoWriter` for names of video files, an `ImageWriter` for folders.

    Arguments and errors are those of the two classes; options that a folder of images has no use
    for are refused.
    """
    if not is_folder(path):
        return VideoWriter(path, like=like, scale=scale, drop=drop, overwrite=overwrite, **encoding)
    return ImageWriter(
        path,
        like=like,
        scale=scale,
        pixel_format=pixel_format_of_images(encoding),
        drop=drop,
        overwrite=overwrite,
    )


def pixel_format_of_images(encoding: EncodingOptions) -> str | None:
    """The one option of encoding that a folder of images has a use for.

    Raises:
        OptionsError: another is set.
    """
    for name, value in encoding.items():
        if value is not None and name != "pixel_format":
            raise OptionsError(f"--{name} does not apply to a folder of PNG images")
    return encoding.get("pixel_format")


def is_folder(path: str | Path) -> bool:
    """Whether an output of this name is a folder of images.

    A folder is an existing one, a path that ends in a slash, or one without an ending.

    Raises:
        OutputError: the name is nothing but the ending of a video file.
    """
    if str(path).endswith(("/", "\\")):
        return True
    name = Path(path).name
    if name.startswith(".") and name[1:].lower() in CONTAINERS and not Path(path).is_dir():
        raise OutputError(f"cannot write '{path}': it has no name before its ending")
    if not Path(path).suffix:
        return True
    try:
        return Path(path).is_dir()
    except OSError:  # a name that cannot be: refused where it is written
        return False
