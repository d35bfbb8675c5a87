"""Interlaced pictures to whole frames: FFmpeg's bwdif keeps one field and interpolates the other.

Chroma of interlaced 4:2:0 is stored by field, half a field line away from where chroma of whole
frames lies. bwdif interpolates each stored plane on its own, which leaves no combs in colours; the
shift that remains, a quarter of a chroma line of each field in turn, is as in FFmpeg.
"""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av

from iart.video.fields.classify import FieldMeter
from iart.video.filters import FilterChain
from iart.video.read.decode import Picture

_REACH = 7  # pictures before and after one that say whether it is interlaced
_NEAR = 2
_INTERLACED_SHARE = 0.5


class Bwdif:
    """Every picture, as a frame or as two."""

    def __init__(self, top_first: bool | None, step: int, *, per_field: bool = False) -> None:
        """Give a frame per picture, or per field.

        Args:
            top_first: which field comes first; None to believe the flags.
            step: usual duration of a picture, in ticks.
            per_field: give both fields, in half ticks.
        """
        parity = {None: "auto", True: "tff", False: "bff"}[top_first]
        mode = "send_field" if per_field else "send_frame"
        self.divisor = 2 if per_field else 1
        self._step = step
        self._chain = FilterChain([("bwdif", f"mode={mode}:parity={parity}:deint=all")])
        self._times: dict[int, tuple[int, int]] = {}
        self._count = 0

    def push(self, picture: Picture) -> list[Picture]:
        """As `Treatment`."""
        number = self._count
        self._count += 1
        self._times[number] = picture.pts, picture.duration
        return [self._timed(*ready) for ready in self._chain.push(picture.image, number)]

    def flush(self) -> list[Picture]:
        """As `Treatment`."""
        return [self._timed(*ready) for ready in self._chain.flush()]

    def _timed(self, number: Fraction, image: av.VideoFrame) -> Picture:
        self._times.pop(int(number) - 1, None)
        pts, duration = self._times[int(number)]
        if self.divisor == 1:
            return Picture(image, pts, duration)
        half = duration or self._step  # of a tick that is half as long
        second = number.denominator == 2
        return Picture(image, 2 * pts + (half if second else 0), half)


class BwdifSome:
    """Interlaced and whole pictures mixed: bwdif for those with combs, and those among them."""

    divisor = 1

    def __init__(self, top_first: bool | None) -> None:
        self._bwdif = Bwdif(top_first, 0)
        self._meter = FieldMeter()
        self._whole: deque[Picture] = deque()
        self._filtered: deque[Picture] = deque()
        self._votes: deque[bool | None] = deque([None] * _REACH)  # first: of _REACH pictures before

    def push(self, picture: Picture) -> Iterator[Picture]:
        """As `Treatment`."""
        label = self._meter.label(picture.image)
        says = label.combed or label.top_first == "c"
        self._votes.append(label.combed if says else None)
        self._whole.append(picture)
        self._filtered += self._bwdif.push(picture)
        yield from self._decided()

    def flush(self) -> Iterator[Picture]:
        """As `Treatment`."""
        self._filtered += self._bwdif.flush()
        self._votes += [None] * _REACH
        yield from self._decided()

    def _decided(self) -> Iterator[Picture]:
        while len(self._votes) > 2 * _REACH and self._filtered:
            window = [self._votes[i] for i in range(2 * _REACH + 1)]
            near = window[_REACH - _NEAR : _REACH + _NEAR + 1]
            votes = [vote for vote in window if vote is not None]
            combed = near.count(True) >= 2 or sum(votes) > _INTERLACED_SHARE * len(votes)
            whole, filtered = self._whole.popleft(), self._filtered.popleft()
            self._votes.popleft()
            yield filtered if combed else whole
