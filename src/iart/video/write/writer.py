"""Writes frames to a video file, with every track of the source, or to a folder of images.

    open_writer(path, like=info) → VideoWriter (mp4, mkv, mov, webm) or ImageWriter (a folder)

Everything that can be refused is refused by the constructor: the codec, each track, the place. The
output gets its final name in `close`, and only then.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import av.error

from iart.errors import OptionsError, OutputError
from iart.files.complete import PendingOutput, writing
from iart.files.names import FRAMES, frames_of
from iart.video.frame import Frame, Loss, VideoInfo
from iart.video.write.codecs import CONTAINERS, container_for
from iart.video.write.encoder import Encoder
from iart.video.write.film import EncodingOptions, plan_film
from iart.video.write.image_series import plan_pictures
from iart.video.write.muxer import Muxer


@contextmanager
def writing_video(path: Path) -> Iterator[None]:
    """What FFmpeg or the operating system refuses inside the block becomes an error about `path`.

    Raises:
        OutputError: in place of these; a full disk is named as such.
    """
    with writing(path):
        try:
            yield
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise OutputError(f"cannot write '{path}': {error}") from error


class Writer(ABC):
    """A context manager whose output gets its name when the block ends without an error.

    An error removes what was written.

    Attributes:
        notes: conversions that will happen and what cannot be kept, one line each.
        losses: damaged parts of the source's tracks, filled while writing.
    """

    def __init__(self, pending: PendingOutput, notes: tuple[str, ...], path: Path) -> None:
        """Write to `pending`, on behalf of `path`."""
        self.notes = notes
        self.losses: list[Loss] = []
        self._path, self._pending = path, pending
        self._count = 0
        self._is_open = True

    def write(self, frame: Frame) -> None:
        """Write one frame, later than all before it.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
            ValueError: the frame has another size than announced.
        """
        with writing_video(self._path):
            self._write(frame)
        self._count += 1

    def close(self) -> None:
        """Complete the output and give it its final name; does nothing the second time.

        Raises:
            OutputError: no frame was written, the disk is full, or the name was taken meanwhile.
        """
        if not self._is_open:
            return
        try:
            if not self._count:
                raise OutputError(f"cannot write '{self._path}': no frame was given")
            with writing_video(self._path):
                self._finish()
        except BaseException:
            self.abort()
            raise
        self._is_open = False
        with writing(self._path):
            try:
                self._pending.commit()
            except OSError:
                self._pending.discard()
                raise

    def abort(self) -> None:
        """Stop and remove what was written."""
        if self._is_open:
            self._is_open = False
            self._pending.discard()  # first: letting go may take time, or fail
            self._release()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _write(self, frame: Frame) -> None: ...

    @abstractmethod
    def _finish(self) -> None:
        """Write what was held back."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of what is open, after an error; never fails."""


class VideoWriter(Writer):
    """Encodes frames and carries the tracks of the source over."""

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
            drop: tracks to leave out, see `iart.video.write.film.plan_film`.
            overwrite: whether an existing file may be replaced, at the end.
            encoding: codec, crf, preset, pixel_format; see `iart.video.write.film.EncodingOptions`.

        Raises:
            OutputError: the place, the codec or a track; says which and what to do.
            OptionsError: an unknown codec, pixel format or `drop`.
        """
        path = Path(path)
        container_for(path)
        pending = PendingOutput(path, suffix=path.suffix, inputs=[like.path], overwrite=overwrite)
        try:
            plan = plan_film(path, like=like, scale=scale, drop=drop, **encoding)
            self._muxer = Muxer(plan, pending.part)
        except BaseException:
            pending.discard()
            raise
        super().__init__(pending, plan.notes, path)
        self._encode = plan.encode
        self._encoder = Encoder(plan.encode, self._muxer.video)
        self._timeline = plan.encode.timeline()

    def __enter__(self) -> "VideoWriter":
        return self

    def _write(self, frame: Frame) -> None:
        picture = self._encode.picture(frame)
        for packet in self._encoder.encode(picture, self._timeline.place(frame)):
            self._muxer.mux(packet)

    def _finish(self) -> None:
        for packet in self._encoder.flush():
            self._muxer.mux(packet)
        self._muxer.finish()
        self.losses += self._muxer.losses

    def _release(self) -> None:
        self._muxer.close()


class ImageWriter(Writer):
    """00000000.png, 00000001.png … in a folder.

    Sources of more than 8 bits give images of 16 bits. Sound, subtitles and times have no place
    in images; `notes` says what is left out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        like: VideoInfo,
        scale: int = 4,
        pixel_format: str | None = None,
        drop: Collection[str] = (),
        overwrite: bool = False,
    ) -> None:
        """Start the folder beside its final name.

        Args:
            path: of the folder, which may exist if it is empty, or with the names of the images in
                it ("out/f%03d.png").
            like: the source.
            scale: size of the frames that will be written over that of the source.
            pixel_format: see `iart.video.write.image_series.plan_pictures`.
            drop: kinds that need no note.
            overwrite: whether numbered images in the folder may be replaced.

        Raises:
            OutputError: the place.
            OptionsError: another pixel format, or `drop` names something that is not there.
        """
        self._plan = plan_pictures(
            path, like=like, scale=scale, pixel_format=pixel_format, drop=drop
        )
        path = self._plan.path
        pending = PendingOutput(
            path,
            folder=True,
            inputs=[like.path],
            overwrite=overwrite,
            frames=self._plan.names.pattern,
        )
        super().__init__(pending, self._plan.notes, path)

    def __enter__(self) -> "ImageWriter":
        return self

    def _write(self, frame: Frame) -> None:
        name = self._plan.names.at(self._count)
        (self._pending.part / name).write_bytes(self._plan.encoded(frame))

    def _finish(self) -> None:
        """Nothing: every image is complete."""

    def _release(self) -> None:
        """Nothing is open."""


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

    A folder is an existing one, a path that ends in a slash, or one without an ending; and that of
    a numbered PNG image ("out/f%03d.png").

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
        return Path(path).is_dir() or frames_of(path)[1] is not FRAMES
    except OSError:  # a name that cannot be: refused where it is written
        return False
