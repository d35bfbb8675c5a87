"""Several videos matched: frames of the same time, at the same size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from iart.errors import InputError
from iart.pictures.resize import bicubic
from iart.video.frame import Frame, VideoInfo
from iart.video.open import open_video
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader

RATE = Fraction(25)
"""Of folders of images that are compared with folders of images."""

_SAME_RATE = Fraction(1, 2000)
"""Rates that differ by less (as a share) are the same: containers round times."""

_SAME_SHAPE = Fraction(2, 100)
"""Shapes of pictures that differ by less (as a share) are the same: sides are whole pixels."""


@dataclass(frozen=True, slots=True)
class MatchedFrames:
    """One frame of the first video, and what the others show at its time.

    Attributes:
        pictures: one of each video to look at, all of one size; RGB in [0, 1]. A reference that is
            smaller than the results is left out.
        scored: one of each video to score, all of one size; the same ones, if no reference is
            smaller.
        frame: of the first video, timed from its first frame on.
    """

    pictures: tuple[Float[Tensor, "3 h w"], ...]
    scored: tuple[Float[Tensor, "3 h3 w3"], ...]
    frame: Frame


class MatchedVideos:
    """Iterates over the common time of several videos; to be closed.

    Every frame of the first video is paired with the nearest frame of each other, counted from the
    first frame of each: containers let films begin at different times. It ends with the video that
    ends first. Smaller pictures are enlarged by bicubic interpolation to the size of the largest,
    but for a reference: results that are larger are reduced to it, to be scored.

    Attributes:
        info: what the moments' pictures are, without tracks: size, colour and shape of pixels of
            the largest video, rate and time base of the first.
        labels: a short name of each video, all different.
        source: whether the last video is a reference that is smaller than the results: what they
            were made from, not what they should look like.
        notes: what was done to bring them together, one line each; complete after an iteration.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        reference: bool = False,
        rate: Fraction | None = None,
    ) -> None:
        """Open the videos.

        Args:
            sources: as for `open_video`.
            reference: whether the last one is what the others are scored against.
            rate: frames per second of images; if not given, that of the first video among the
                sources, or 25.

        Raises:
            InputError: one cannot be read.
            OptionsError: a rate that images cannot have.
        """
        self._readers = _opened(sources, rate)
        infos = [reader.info for reader in self._readers]
        self.labels = _labels(sources)
        shown = infos[:-1] if reference else infos
        largest = max(shown, key=_pixels)
        self.source = reference and _pixels(infos[-1]) < _pixels(largest)
        if not self.source:
            shown, largest = infos, max(infos, key=_pixels)
        scored = infos[-1] if self.source else largest
        self._shown, self._size = len(shown), (scored.height, scored.width)
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
        self._ways = [*_size_notes(self.labels, shown, largest), *_rate_notes(self.labels, infos)]
        if self.source:
            self._ways += _source_notes(self.labels[-1], infos[-1], largest)
        self.notes = list(self._ways)

    def close(self) -> None:
        """Close the videos."""
        for reader in self._readers:
            reader.close()

    def __iter__(self) -> Iterator[MatchedFrames]:
        self.notes = list(self._ways)
        leader, *others = map(_Cursor, self._readers, self.labels)
        while leader.now is not None:
            frames = [leader.now, *(other.at(leader.time) for other in others)]
            present = [frame for frame in frames if frame is not None]
            if len(present) < len(frames):
                break
            time = round(leader.time / leader.now.time_base)
            size = (self.info.height, self.info.width)
            shown = tuple(_sized(frame.data, *size) for frame in present[: self._shown])
            scored = shown
            if self.source:
                scored = tuple(_sized(frame.data, *self._size) for frame in present)
            yield MatchedFrames(shown, scored, replace(leader.now, pts=time))
            leader.advance()
        self.notes += _end_notes([leader, *others])
        for reader, label in zip(self._readers, self.labels, strict=True):
            self.notes += [
                f"damage in {label}: {loss.reason}" for loss in reader.losses if loss.certain
            ]


def _sized(image: Float[Tensor, "3 h w"], height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    size = (height, width)
    return image if image.shape[-2:] == size else bicubic(image, *size).clamp_(0, 1)


def _pixels(info: VideoInfo) -> int:
    return info.width * info.height


class _Cursor:
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
    sources: Sequence[str | Path], rate: Fraction | None
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


def _labels(sources: Sequence[str | Path]) -> list[str]:
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
    for label, info in zip(labels, infos, strict=False):
        if (info.width, info.height) == size:
            continue
        yield (
            f"{label} is {info.width}x{info.height} and was enlarged to {size[0]}x{size[1]}"
            " by bicubic interpolation"
        )
        yield from _shape_notes(label, info, largest)


def _shape_notes(label: str, info: VideoInfo, shown: VideoInfo) -> Iterator[str]:
    shapes = [Fraction(i.width, i.height) * i.sample_aspect for i in (info, shown)]
    if abs(shapes[0] / shapes[1] - 1) > _SAME_SHAPE:
        yield (
            f"{label} is {float(shapes[0]):.2f}:1, not {float(shapes[1]):.2f}:1 as shown,"
            " and was stretched"
        )


def _source_notes(label: str, source: VideoInfo, largest: VideoInfo) -> Iterator[str]:
    """Of a reference that is smaller than the results."""
    size = f"{source.width}x{source.height}"
    yield (
        f"{label} is {size}, smaller than the results ({largest.width}x{largest.height}): for the"
        " scores they were reduced to its size by bicubic interpolation, so that the scores say how"
        " consistent the results are with it as their source, not how good they look; it is not"
        " shown"
    )
    yield from _shape_notes("each result", largest, source)


def _rate_notes(labels: Sequence[str], infos: Sequence[VideoInfo]) -> Iterator[str]:
    first, *others = infos
    for label, info in zip(labels[1:], others, strict=True):
        if abs(info.rate / first.rate - 1) > _SAME_RATE:
            yield (
                f"{label} has {float(info.rate):.5g} frames per second and {labels[0]}"
                f" {float(first.rate):.5g}: each frame of {labels[0]} is compared with the one of"
                f" {label} nearest in time"
            )


def _end_notes(cursors: Sequence[_Cursor]) -> Iterator[str]:
    """Of videos that go on after another one has ended."""
    end = cursors[0].time
    going = [cursor.at(end) is not None for cursor in cursors]
    over = next(cursor.label for cursor, goes_on in zip(cursors, going, strict=True) if not goes_on)
    for cursor, goes_on in zip(cursors, going, strict=True):
        if goes_on:
            yield f"{over} ends at {float(end):.3f} s: the rest of {cursor.label} is left out"
