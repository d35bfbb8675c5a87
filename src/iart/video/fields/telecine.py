"""Film in fields: the fields of each film frame are put together again, and repetitions dropped.

FFmpeg's fieldmatch finds which fields belong together. It is shown luma alone, in 8 bits, with each
picture's number in place of its colours; where these end up says how to weave the pictures, which
may be of any format.

Five pictures of video hold four of film: one of them shows nothing new. Pictures are counted by
their times, from the start of the file: number n belongs to cycle n // 5. So what is dropped does
not depend on where reading began, or on pictures missing elsewhere. The four that stay are spread
evenly over the time of the five, which keeps film in time with sound; FFmpeg's decimate counts
pictures instead, and is early by all that are missing.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest

import av
import numpy as np

from iart.pictures.color import plane_rows
from iart.video.fields.bwdif import Bwdif
from iart.video.fields.classify import CYCLE, luma
from iart.video.filters import FilterChain
from iart.video.read.decode import Picture

DIVISOR = CYCLE - 1
"""Of the time base, so that four steps in the time of five are whole numbers."""

_MARKS = 200  # numbers go round; neighbours must differ
_BLOCK = 16
_CLEAR = 0.6
"""A picture repeats the one before if it differs less than this, relative to the next least."""


class Match:
    """Film whose fields lie in two pictures: put together; what fits nothing is interpolated."""

    divisor = 1

    def __init__(self, top_first: bool) -> None:
        order = "tff" if top_first else "bff"
        options = f"order={order}:combmatch=full:mchroma=0"
        self._chain = FilterChain([("fieldmatch", options)])
        self._bwdif = Bwdif(top_first, 0)
        self._pictures: dict[int, Picture] = {}
        self._matched: deque[tuple[Picture, bool]] = deque()
        self._count = 0

    def push(self, picture: Picture) -> Iterator[Picture]:
        """As `Treatment`."""
        for each, _ in self.marked(picture):
            yield each

    def flush(self) -> Iterator[Picture]:
        """As `Treatment`."""
        for each, _ in self.marked(None):
            yield each

    def marked(self, picture: Picture | None) -> Iterator[tuple[Picture, bool]]:
        """What is ready, and whether it had to be interpolated; None for all that is left."""
        if picture is None:
            ready = self._chain.flush()
        else:
            self._pictures[self._count] = picture
            ready = self._chain.push(_numbered(picture.image, self._count), self._count)
            self._count += 1
        whole = []
        for number, answer in ready:
            matched = self._woven(int(number), answer)
            # it marks what still has combs
            self._matched.append((matched, answer.interlaced_frame))
            whole += self._bwdif.push(matched)
        if picture is None:
            whole += self._bwdif.flush()
        for interpolated in whole:
            matched, combed = self._matched.popleft()
            yield (interpolated if combed else matched), combed

    def _woven(self, number: int, answer: av.VideoFrame) -> Picture:
        """A picture of the fields that fieldmatch chose."""
        picture = self._pictures[number]
        self._pictures.pop(number - 2, None)
        marks = plane_rows(answer.planes[1])[:2, 0]
        top, bottom = (number + (int(mark) - number + 1) % _MARKS - 1 for mark in marks)
        images = self._pictures[top].image, self._pictures[bottom].image
        if top == bottom == number or images[0].format.name != images[1].format.name:
            return picture
        image = _weave(*images)
        return Picture(image, picture.pts, picture.duration)


def _numbered(image: av.VideoFrame, number: int) -> av.VideoFrame:
    """Luma with a number in place of colours."""
    values = luma(image)
    height, width = values.shape
    numbered = av.VideoFrame(width, height, "yuv420p")
    luma_rows, numbers, zeros = map(plane_rows, numbered.planes)
    luma_rows[:, :width], numbers[:], zeros[:] = values, number % _MARKS, 0
    return numbered


def _weave(top: av.VideoFrame, bottom: av.VideoFrame) -> av.VideoFrame:
    """The even rows of one picture and the odd rows of another."""
    woven = av.VideoFrame(top.width, top.height, top.format.name)
    for index, plane in enumerate(woven.planes):
        rows = plane_rows(plane)
        for parity, source in enumerate((top, bottom)):
            other = plane_rows(source.planes[index])
            width = min(plane.line_size, other.shape[1])
            rows[parity::2, :width] = other[parity::2, :width]
    woven.color_primaries, woven.color_trc = top.color_primaries, top.color_trc
    woven.colorspace, woven.color_range = top.colorspace, top.color_range
    return woven


class Film:
    """Film in video of five pictures for four: put together, and the fifth dropped."""

    divisor = DIVISOR

    def __init__(self, top_first: bool, decimator: "Decimator") -> None:
        self._match, self._decimator = Match(top_first), decimator

    def push(self, picture: Picture) -> Iterator[Picture]:
        """As `Treatment`."""
        for each, combed in self._match.marked(picture):
            yield from self._decimator.push(each, combed=combed)

    def flush(self) -> Iterator[Picture]:
        """As `Treatment`."""
        for each, combed in self._match.marked(None):
            yield from self._decimator.push(each, combed=combed)
        yield from self._decimator.flush()


@dataclass(slots=True)
class _Cycle:
    """Pictures of one cycle, and the place of each in it.

    Attributes:
        number: counted from the start of the file; None if it is none.
        news: how much each picture differs from the one before, where it differs most.
        combed: whether any had to be interpolated.
    """

    number: int | None = None
    pictures: list[Picture] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    news: list[float] = field(default_factory=list)
    combed: bool = False

    @property
    def complete(self) -> bool:
        return self.places == list(range(CYCLE))

    def relative_news(self) -> np.ndarray:
        if not self.complete:
            return np.zeros(CYCLE)
        return np.array(self.news) / max(1e-9, sum(self.news) / CYCLE)

    def repeat(self) -> int | None:
        """The place of the one that clearly repeats another; None if none does."""
        least, next_least = sorted(self.news)[:2]
        return self.news.index(least) if least < _CLEAR * next_least else None


class Decimator:
    """Drops one picture of every five that hold film."""

    def __init__(self, rate: Fraction, start: int, *, always: bool) -> None:
        """Count from the start of the file.

        Args:
            rate: pictures per tick.
            start: time of the file's first picture, in ticks.
            always: the file is film throughout; False to look at each cycle.
        """
        self._rate, self._start, self._always = rate, start, always
        self._before: np.ndarray | None = None
        self._cycles = [_Cycle()]  # one that is decided, the next to decide, and one to compare

    def push(self, picture: Picture, *, combed: bool) -> Iterator[Picture]:
        """Take a picture; give those that stay, in ticks of a `DIVISOR`-th."""
        cycle, place = divmod(round((picture.pts - self._start) * self._rate), CYCLE)
        if self._cycles[-1].number != cycle:
            if len(self._cycles) == 3:
                yield from self._kept(*self._cycles)
                del self._cycles[0]
            self._cycles.append(_Cycle(cycle))
        newest = self._cycles[-1]
        newest.pictures.append(picture)
        newest.places.append(place)
        newest.news.append(self._news(picture))
        newest.combed |= combed

    def flush(self) -> Iterator[Picture]:
        """The rest, at the end."""
        before, *rest = self._cycles
        for cycle, after in zip_longest(rest, rest[1:], fillvalue=_Cycle()):
            yield from self._kept(before, cycle, after)
            before = cycle
        self._cycles = [_Cycle()]

    def _kept(self, before: _Cycle, cycle: _Cycle, after: _Cycle) -> Iterator[Picture]:
        repeat = self._repeat(before, cycle, after)
        if repeat is None:
            for each in cycle.pictures:
                yield Picture(each.image, DIVISOR * each.pts, DIVISOR * each.duration)
            return
        first, last = cycle.pictures[0], cycle.pictures[-1]
        # of each of the four, in fourths of a tick, as of all in ticks
        length = last.pts + (last.duration or round(1 / self._rate)) - first.pts
        kept = cycle.pictures[:repeat] + cycle.pictures[repeat + 1 :]
        for index, each in enumerate(kept):
            yield Picture(each.image, DIVISOR * first.pts + index * length, length)

    def _repeat(self, before: _Cycle, cycle: _Cycle, after: _Cycle) -> int | None:
        """The place of the picture to drop; None for none."""
        if not cycle.complete:
            return None
        clear = cycle.repeat()
        if not self._always:
            return None if cycle.combed else clear
        if clear is not None:
            return clear
        # little moves: film keeps its rhythm
        near = before.relative_news() + cycle.relative_news() + after.relative_news()
        return int(near.argmin())

    def _news(self, picture: Picture) -> float:
        """The mean difference of luma from the picture before, of the block that differs most."""
        rows = luma(picture.image)
        before, self._before = self._before, rows
        if before is None or before.shape != rows.shape:
            return 255.0
        difference = np.abs(rows.astype(np.int16) - before)
        height, width = (side // _BLOCK * _BLOCK for side in difference.shape)
        if not height or not width:
            return float(difference.mean())
        blocks = difference[:height, :width].reshape(height // _BLOCK, _BLOCK, -1, _BLOCK)
        return float(blocks.sum(axis=(1, 3), dtype=np.int32).max() / _BLOCK**2)
