"""Which frame of the Blu-ray each frame of the DVD shows, by thumbnails.

Shots of the DVD are cut into segments of a few seconds. Of each, the places on the Blu-ray that
look most like it are found, wherever they are, frames following each other by the clock. A path
through the candidates of all segments is then the best by Viterbi's algorithm: it goes on by the
clock for nothing; a jump forwards (a scene is missing), a jump back (one is repeated) and a segment
without partner (another scene) have a price. Last, each segment's offset is found to a quarter of a
frame.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

import numpy as np
from jaxtyping import Float, Int

from iart.data.pair.disc import Thumbnails
from iart.data.pair.framing import Framing, band_passed, median, register, seen

_LONGEST = 96  # frames of a segment: they are in memory at once
_SHORTEST = 3
_CUT = 0.5  # likeness of the pictures at a cut, over that of pictures beside it
_LOOKED_AT = 12  # frames of a segment, for candidates
_CANDIDATES = 6
_APART = 4  # frames between candidates
_CHUNK = 8192  # frames of the Blu-ray that are looked at together
_COARSE = 16, 24  # rows and columns of pictures for candidates
_DETAIL = 4.0  # pixels of a thumbnail: what is coarser is left out, so that light does not matter
_ALIKE = 0.5  # similarity from which on frames may be the same
_CONTINUES = 2.5  # frames off the clock that are no jump
_OFF_CLOCK = 0.5  # frames that neighbours may disagree by
_FORWARD, _BACK = 4.0, 6.0  # prices of jumps, in frames that are wholly alike
_SKIPPED = 40  # segments without partner that a path may leave out
_TRIED = 24  # segments that decide on speed and framing


@dataclass(frozen=True)
class SegmentMatch:
    """One segment of the DVD, and where it is on the Blu-ray.

    Attributes:
        scene: number of the shot on the DVD.
        first: its first frame on the DVD.
        last: the one after its last frame.
        partners: the frame on the Blu-ray of each; empty if it has none.
        place: where its first frame is on the Blu-ray, maybe between two frames.
        likeness: mean similarity of the thumbnails, up to 1.
    """

    scene: int
    first: int
    last: int
    partners: Int[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, np.int64))
    place: float = 0.0
    likeness: float = 0.0


@dataclass(frozen=True)
class Course:
    """How the whole DVD lies on the Blu-ray.

    Attributes:
        speed: seconds of the Blu-ray per second of the DVD.
        framing: of the whole film, roughly.
        matches: all segments, in order.
    """

    speed: float
    framing: Framing
    matches: list[SegmentMatch]


def find_course(
    dvd: Thumbnails,
    bluray: Thumbnails,
    speeds: Sequence[float],
    framings: Sequence[Framing],
    progress: Callable[[int, int], None],
) -> Course:
    """Match two films.

    Args:
        dvd: of the DVD.
        bluray: of the Blu-ray.
        speeds: those that may be, see `speeds_of`.
        framings: likewise.
        progress: called with (frames of the Blu-ray done, in all).
    """
    segments = list(_segments(_cuts(dvd)))
    longest = sorted(segments, key=lambda each: each.first - each.last)[: 4 * _TRIED]
    tried = sorted(longest, key=lambda each: each.first)[:: -(-len(longest) // _TRIED)]
    found = []
    for speed in speeds:
        searches = [_Search(dvd, bluray, speed, framing).refined(tried) for framing in framings]
        fits = [(search, search.best(tried)) for search in searches]
        found.append(max(fits, key=lambda each: _likeness(each[1])))
    # slow pans look much the same at any speed, but do not follow each other by its clock
    search, _ = max(found, key=lambda each: (each[0].successions(each[1]), _likeness(each[1])))
    candidates = search.candidates(segments, progress)
    path = search.path(segments, search.continued(segments, candidates))
    matches = [
        segment if place is None else search.on_clock(segment, place)
        for segment, place in zip(segments, path, strict=True)
    ]
    return Course(search.speed, search.framing, search.agreed(matches))


def _cuts(dvd: Thumbnails) -> list[int]:
    """First frames of shots, and the end: a picture is unlike the one before, as no motion does."""
    alike: list[float] = []
    for start in range(0, len(dvd), _CHUNK):
        pictures = _coarse(dvd.luma[start : start + _CHUNK + 1], Framing())
        alike += (pictures[1:] * pictures[:-1]).sum(axis=1).tolist()
    near = np.array([1.0, *alike, 1.0])
    cuts = near[1:-1] < _CUT * np.minimum(near[:-2], near[2:])
    return [0, *(np.flatnonzero(cuts) + 1).tolist(), len(dvd)]


def _segments(starts: Sequence[int]) -> Iterator[SegmentMatch]:
    """Shots, cut into parts of about equal length."""
    for scene, (start, end) in enumerate(pairwise(starts)):
        parts = -(-(end - start) // _LONGEST)
        edges = np.linspace(start, end, parts + 1).round().astype(int).tolist()
        for first, last in pairwise(edges):
            yield SegmentMatch(scene, first, last)


def speeds_of(dvd_rate: float, bluray_rate: float) -> list[float]:
    """The clock's, and that of a film which was sped up from 24 to 25 frames per second."""
    ratio = dvd_rate / bluray_rate
    return [1.0] if abs(ratio - 1) < 0.005 or not 0.94 < ratio < 1.06 else [1.0, ratio]


class _Search:
    """Looks for segments of the DVD on the Blu-ray, at a speed and a framing.

    Places are frames of the Blu-ray, from 0, maybe between two.
    """

    def __init__(self, dvd: Thumbnails, bluray: Thumbnails, speed: float, framing: Framing) -> None:
        self._dvd, self._bluray, self.speed, self.framing = dvd, bluray, speed, framing
        self._pace = speed * bluray.rate  # frames of the Blu-ray per second of the DVD

    def candidates(
        self, segments: Sequence[SegmentMatch], progress: Callable[[int, int], None] | None = None
    ) -> list[list[tuple[int, float]]]:
        """Places of each segment's first frame, and how alike it is there; best first."""
        found: list[list[tuple[int, float]]] = [[] for _ in segments]
        total = len(self._bluray)
        for start in range(0, total, _CHUNK):
            pictures = self._coarse_bluray(start, start + _CHUNK + 2 * _LONGEST)
            for segment, best in zip(segments, found, strict=True):
                frames, steps = self._looked_at(segment)
                count = min(_CHUNK, len(pictures) - int(steps[-1]))
                if count < 1:
                    continue
                alike = frames @ pictures.T
                lines = [line[step : step + count] for line, step in zip(alike, steps, strict=True)]
                best += ((start + place, score) for place, score in _peaks(np.mean(lines, axis=0)))
                best.sort(key=lambda each: -each[1])
                del best[_CANDIDATES:]
            if progress is not None:
                progress(min(start + _CHUNK, total), total)
        return [best or [(0, 0.0)] for best in found]

    def continued(
        self, segments: Sequence[SegmentMatch], candidates: Sequence[list[tuple[int, float]]]
    ) -> list[list[tuple[int, float]]]:
        """Also the places where neighbours' candidates lead: scenes that stand still have many."""
        more = [list(each) for each in candidates]
        for number, segment in enumerate(segments):
            frames, steps = self._looked_at(segment)
            for near in (number - 2, number - 1, number + 1, number + 2):
                if not 0 <= near < len(segments):
                    continue
                for place, _ in candidates[near][:2]:
                    there = round(place + self._passed(segments[near], segment))
                    known = any(abs(other - there) < _CONTINUES for other, _ in more[number])
                    if known or not 0 <= there < len(self._bluray) - steps[-1]:
                        continue
                    pictures = self._coarse_bluray(there, there + int(steps[-1]) + 1)[steps]
                    more[number].append((there, float((frames * pictures).sum(axis=1).mean())))
        return more

    def path(
        self, segments: Sequence[SegmentMatch], candidates: Sequence[list[tuple[int, float]]]
    ) -> list[int | None]:
        """The best place of each segment; None for those without."""
        totals: list[np.ndarray] = []
        origins: list[list[tuple[int, int] | None]] = []
        for number, segment in enumerate(segments):
            places = np.array([place for place, _ in candidates[number]], np.float64)
            alike = np.array([score for _, score in candidates[number]])
            count = segment.last - segment.first
            gains = count * (alike - _ALIKE) if count >= _SHORTEST else np.full(len(alike), -1.0)
            best = np.zeros(len(places))
            origin: list[tuple[int, int] | None] = [None] * len(places)
            for before in range(max(0, number - _SKIPPED), number):
                others = np.array([place for place, _ in candidates[before]], np.float64)
                off = places - (others[:, None] + self._passed(segments[before], segment))
                price = np.where(off > 0, _FORWARD, _BACK) * (np.abs(off) > _CONTINUES)
                arrived = totals[before][:, None] - price
                for index, (come, value) in enumerate(
                    zip(arrived.argmax(axis=0), arrived.max(axis=0), strict=True)
                ):
                    # of equals the nearest before: little is left out
                    if value >= best[index] and value > 0:
                        best[index], origin[index] = value, (before, int(come))
            totals.append(best + gains)
            origins.append(origin)
        return _followed(segments, candidates, totals, origins)

    def agreed(self, matches: Sequence[SegmentMatch]) -> list[SegmentMatch]:
        """Segments that go on without a jump are brought to one clock, which most of them tell.

        A steady pan that is framed a little differently looks the same a frame earlier.
        """
        result = list(matches)
        for number, match in enumerate(matches):
            near = [other for other in matches[max(0, number - 4) : number + 5] if other.likeness]
            places = np.array([each.place + self._passed(each, match) for each in near])
            places = places[np.abs(places - match.place) <= _CONTINUES]
            if match.likeness and abs(np.median(places) - match.place) > _OFF_CLOCK:
                result[number] = self.on_clock(match, float(np.median(places)), _OFF_CLOCK)
        return result

    def on_clock(
        self, segment: SegmentMatch, place: int | float, reach: float = 2.5
    ) -> SegmentMatch:
        """The partners by the clock, from the offset at which most frames are alike.

        Args:
            segment: with a place.
            place: of its first frame, about.
            reach: frames by which it may be off.
        """
        steps = self._steps(segment.first, np.arange(segment.first, segment.last))
        low = max(0, int(place) - 4)
        high = min(len(self._bluray), int(place + steps[-1]) + 6)
        frames = _fine(np.asarray(self._dvd.luma[segment.first : segment.last]), Framing())
        pictures = _fine(np.asarray(self._bluray.luma[low:high]), self.framing)
        alike = frames @ pictures.T
        rows = np.arange(len(steps))
        shifts = np.arange(-4 * reach, 4 * reach + 1) / 4
        scores = []
        for shift in shifts:
            partners = np.floor(place + shift + steps + 0.5).astype(np.int64)
            inside = (partners >= low) & (partners < high)
            values = np.where(inside, alike[rows, np.clip(partners - low, 0, high - low - 1)], 0)
            scores.append(float(values.mean()))
        best = np.flatnonzero(np.array(scores) >= max(scores) - 1e-3)
        middle = best[np.abs(shifts[best] - shifts[best].mean()).argmin()]
        partners = np.floor(place + shifts[middle] + steps + 0.5).astype(np.int64)
        partners = np.where((partners >= 0) & (partners < len(self._bluray)), partners, -1)
        found = place + float(shifts[middle])
        return replace(segment, partners=partners, place=found, likeness=scores[middle])

    def best(self, segments: Sequence[SegmentMatch]) -> list[SegmentMatch]:
        """Segments at the places where they are most alike."""
        found = zip(segments, self.candidates(segments), strict=True)
        return [self.on_clock(each, places[0][0]) for each, places in found]

    def successions(self, matches: Sequence[SegmentMatch]) -> int:
        """How many pairs of matches lie apart by the clock."""
        alike = [match for match in matches if match.likeness >= _ALIKE]
        return sum(
            abs(after.place - before.place - self._passed(before, after)) <= _CONTINUES
            for before, after in combinations(alike, 2)
        )

    def refined(self, segments: Sequence[SegmentMatch]) -> "_Search":
        """A search at the framing that the segments' best places agree on."""
        found = []
        for segment, ((place, score), *_) in zip(segments, self.candidates(segments), strict=True):
            middle = (segment.first + segment.last) // 2
            step = round(float(self._steps(segment.first, np.array([middle]))[0]))
            partner = min(place + step, len(self._bluray) - 1)
            framing = register(
                self._dvd.luma[middle].astype(np.float32),
                self._bluray.luma[partner].astype(np.float32),
                self.framing,
            )
            if framing is not None and score >= _ALIKE:
                found.append(framing)
        framing = median(found) if found else self.framing
        return _Search(self._dvd, self._bluray, self.speed, framing)

    def _passed(self, before: SegmentMatch, after: SegmentMatch) -> float:
        """Frames of the Blu-ray between the first frames of two segments."""
        return self._pace * float(self._dvd.times[after.first] - self._dvd.times[before.first])

    def _steps(self, first: int, frames: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return self._pace * (self._dvd.times[frames] - self._dvd.times[first])

    def _looked_at(self, segment: SegmentMatch) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
        count = min(_LOOKED_AT, segment.last - segment.first)
        chosen = np.linspace(segment.first, segment.last - 1, count).round().astype(np.int64)
        steps = self._steps(segment.first, chosen).round().astype(np.int64)
        return _coarse(self._dvd.luma[chosen], Framing()), steps

    def _coarse_bluray(self, first: int, last: int) -> Float[np.ndarray, "n d"]:
        return _coarse(self._bluray.luma[first:last], self.framing)


def _likeness(matches: Sequence[SegmentMatch]) -> float:
    return float(np.mean([match.likeness for match in matches]))


def _coarse(luma: np.ndarray, framing: Framing) -> Float[np.ndarray, "n d"]:
    """Of thumbnails, what finds candidates."""
    return _unit(seen(luma.astype(np.float32), framing, _COARSE), _DETAIL / 2)


def _fine(luma: np.ndarray, framing: Framing) -> Float[np.ndarray, "n d"]:
    """Of thumbnails, what finds the clock's offset."""
    return _unit(seen(luma.astype(np.float32), framing, luma.shape[1:]), _DETAIL)


def _peaks(scores: Float[np.ndarray, " n"]) -> Iterator[tuple[int, float]]:
    """Places of the highest scores, apart from each other."""
    for _ in range(min(_CANDIDATES, len(scores))):
        place = int(scores.argmax())
        if scores[place] < 0:
            return
        yield place, float(scores[place])
        scores[max(0, place - _APART) : place + _APART + 1] = -1


def _unit(pictures: Float[np.ndarray, "n h w"], sigma: float) -> Float[np.ndarray, "n d"]:
    """Band-passed, of length 1, so that products are similarities; 0 where nothing is seen."""
    flat = band_passed(pictures, sigma).reshape(len(pictures), -1)
    length = np.sqrt((flat * flat).mean(axis=1, keepdims=True))
    return np.where(length > 0.25, flat / np.maximum(length, 1e-6), 0) / np.sqrt(flat.shape[1])


def _followed(
    segments: Sequence[SegmentMatch],
    candidates: Sequence[list[tuple[int, float]]],
    totals: Sequence[np.ndarray],
    origins: Sequence[list[tuple[int, int] | None]],
) -> list[int | None]:
    """The path that ends best, from its end back."""
    path: list[int | None] = [None] * len(segments)
    ends = [(float(total.max()), number) for number, total in enumerate(totals)]
    best, number = max(ends)
    place: tuple[int, int] | None = (number, int(totals[number].argmax())) if best > 0 else None
    while place is not None:
        number, index = place
        path[number] = candidates[number][index][0]
        place = origins[number][index]
    return path
