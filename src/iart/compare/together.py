"""Several videos brought together: frames of the same time, at the same size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from jaxtyping import Float
from torch import Tensor

from iart.errors import InputError
from iart.resize import bicubic
from iart.video.frame import Frame, VideoInfo
from iart.video.images import ImageReader, open_video
from iart.video.reader import VideoReader

Source = str | Path

RATE = Fraction(25)
"""Of folders of images that are compared with folders of images."""

_SAME_RATE = Fraction(1, 2000)
"""Rates that differ by less (as a share) are the same: containers round times."""

_SAME_SHAPE = Fraction(2, 100)
"""Shapes of pictures that differ by less (as a share) are the same: sides are whole pixels."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame of the first video, and what the others show at its time.

    Attributes:
        pictures: one of each video, all of one size; RGB in [0, 1].
        frame: of the first video, timed from its first frame on.
    """

    pictures: tuple[Float[Tensor, "3 h w"], ...]
    frame: Frame


class Together:
    """Iterates over the common time of several videos; a context manager.

    Every frame of the first video is paired with the nearest frame of each other, counted from the
    first frame of each: containers let films begin at different times. It ends with the video that
    ends first. Smaller pictures are enlarged by bicubic interpolation to the size of the largest.

    Attributes:
        info: what the moments' pictures are, without tracks: size, colour and shape of pixels of
            the largest video, rate and time base of the first.
        labels: a short name of each video, all different.
        notes: what was done to bring them together, one line each; complete after an iteration.
    """

    def __init__(self, sources: Sequence[Source], *, rate: Fraction | None = None) -> None:
        """Open the videos.

        Args:
            sources: as for `open_video`.
            rate: frames per second of images; if not given, that of the first video among the
                sources, or 25.

        Raises:
            InputError: one cannot be read.
            OptionsError: a rate that images cannot have.
        """
        self._readers = _opened(sources, rate)
        infos = [reader.info for reader in self._readers]
        self.labels = _labels(sources)
        largest = max(infos, key=lambda info: info.width * info.height)
        self.info = replace(
            largest,
            container="images",
            rate=infos[0].rate,
            time_base=infos[0].time_base,
            start_seconds=Fraction(0),
            frame_count=infos[0].frame_count,
            variable_rate=infos[0].variable_rate,
            closed_captions=False,
            tracks=(),
            chapters=(),
            metadata={},
        )
        self._ways = [*_size_notes(self.labels, infos, largest), *_rate_notes(self.labels, infos)]
        self.notes = list(self._ways)

    def __enter__(self) -> "Together":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for reader in self._readers:
            reader.close()

    def __iter__(self) -> Iterator[Moment]:
        self.notes = list(self._ways)
        leader, *others = map(_Track, self._readers, self.labels)
        while leader.now is not None:
            frames = [leader.now, *(other.at(leader.time) for other in others)]
            present = [frame for frame in frames if frame is not None]
            if len(present) < len(frames):
                break
            time = round(leader.time / leader.now.time_base)
            yield Moment(
                tuple(self._sized(frame.data) for frame in present), replace(leader.now, pts=time)
            )
            leader.advance()
        self.notes += _end_notes([leader, *others])
        for reader, label in zip(self._readers, self.labels, strict=True):
            self.notes += [f"damage in {label}: {loss.reason}" for loss in reader.losses]

    def _sized(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h2 w2"]:
        size = (self.info.height, self.info.width)
        return image if image.shape[-2:] == size else bicubic(image, *size).clamp_(0, 1)


class _Track:
    """One video, read forwards; times count from its first frame.

    Attributes:
        now: the frame that is shown; None after the last one.
    """

    def __init__(self, reader: VideoReader | ImageReader, label: str) -> None:
        self.label, self._length = label, 1 / reader.info.rate
        self._frames = iter(reader)
        self.now = next(self._frames, None)
        if self.now is None:
            raise InputError(f"cannot compare '{reader.info.path}': it holds no frame")
        self._first = self.now.time
        self._ahead = next(self._frames, None)
        self.end = Fraction(0)
        self._measure()

    @property
    def time(self) -> Fraction:
        """Of the frame that is shown; of the end after the last one."""
        return self.end if self.now is None else self.now.time - self._first

    def advance(self) -> None:
        """Show the next frame."""
        self.now, self._ahead = self._ahead, next(self._frames, None)
        self._measure()

    def at(self, time: Fraction) -> Frame | None:
        """The frame nearest to a time, not before the one that is shown; None after the end."""
        while self._ahead is not None:
            before, after = time - self.time, self._ahead.time - self._first - time
            if after > before:
                break
            self.advance()
        # times are rounded; a quarter of a frame tells the last frame from the end
        return self.now if time < self.end - self._length / 4 else None

    def _measure(self) -> None:
        if self.now is not None:
            length = self.now.duration * self.now.time_base or self._length
            self.end = self.time + length


def _opened(
    sources: Sequence[Source], rate: Fraction | None
) -> Sequence[VideoReader | ImageReader]:
    readers = [open_video(source, rate=rate or RATE, scenes=False) for source in sources]
    rates = [reader.info.rate for reader in readers if isinstance(reader, VideoReader)]
    if rate is not None or not rates:
        return readers
    return [
        open_video(source, rate=rates[0], scenes=False)
        if isinstance(reader, ImageReader)
        else reader
        for source, reader in zip(sources, readers, strict=True)
    ]


def _labels(sources: Sequence[Source]) -> list[str]:
    """Names of files, or whole paths, or numbered: the first that differ."""
    for names in ([Path(source).name for source in sources], [str(source) for source in sources]):
        if len(set(names)) == len(names) and all(names):
            break
    else:
        names = [f"{number} {Path(source).name}" for number, source in enumerate(sources, 1)]
    return [" ".join(name.split()) for name in names]


def _size_notes(
    labels: Sequence[str], infos: Sequence[VideoInfo], largest: VideoInfo
) -> Iterator[str]:
    size = (largest.width, largest.height)
    for label, info in zip(labels, infos, strict=True):
        if (info.width, info.height) == size:
            continue
        yield (
            f"{label} is {info.width}x{info.height} and was enlarged to {size[0]}x{size[1]}"
            " by bicubic interpolation"
        )
        shapes = [Fraction(i.width, i.height) * i.sample_aspect for i in (info, largest)]
        if abs(shapes[0] / shapes[1] - 1) > _SAME_SHAPE:
            yield (
                f"{label} is {float(shapes[0]):.2f}:1, not {float(shapes[1]):.2f}:1 as shown,"
                " and was stretched"
            )


def _rate_notes(labels: Sequence[str], infos: Sequence[VideoInfo]) -> Iterator[str]:
    first, *others = infos
    for label, info in zip(labels[1:], others, strict=True):
        if abs(info.rate / first.rate - 1) > _SAME_RATE:
            yield (
                f"{label} has {float(info.rate):.5g} frames per second and {labels[0]}"
                f" {float(first.rate):.5g}: each frame of {labels[0]} is compared with the one of"
                f" {label} nearest in time"
            )


def _end_notes(tracks: Sequence[_Track]) -> Iterator[str]:
    """Of videos that go on after another one has ended."""
    end = tracks[0].time
    going = [track.at(end) is not None for track in tracks]
    over = next(track.label for track, goes_on in zip(tracks, going, strict=True) if not goes_on)
    for track, goes_on in zip(tracks, going, strict=True):
        if goes_on:
            yield f"{over} ends at {float(end):.3f} s: the rest of {track.label} is left out"
