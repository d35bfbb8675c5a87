"""Each segment registered, and each frame of it looked at: does it fit its partner?"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from iart.data.pair.disc import Thumbnails
from iart.data.pair.framing import Framing, band_passed, median, offsets, register, seen, similarity
from iart.data.pair.moments import Course, SegmentMatch
from iart.video.frame import Crop

_WIDEST = 360  # pixels that frames are looked at with
_REGISTERED = 5  # frames of a segment that tell its framing
_AGREE = 0.5  # DVD pixels: median distance of those from their median
_DETAIL = 8.0  # pixels: what is coarser says nothing about the place
_FLAT = 1.0  # mean contrast of that detail, of 255
_SAME = 0.7  # similarity below which a partner shows something else
_CLEARLY = 0.8  # of the difference: a neighbour that fits so much better is the partner
_UNUSUAL = 3.0  # times the usual difference of the segment
_FARTHEST = 0.5  # DVD pixels
_TELL_FRAMING = 25  # segments that tell the framing of the film
_FRAMED_ALIKE = 0.15  # DVD pixels by which a segment's framing may differ without a doubt

KEPT = "kept"
UNMATCHED = "no partner"
UNREGISTERED = "framing changes"
FLAT = "too dark or too even"
OTHER = "another picture"
MOMENT = "another moment, or two in one picture"
OFF = "off by more than half a pixel"
REASONS = (UNMATCHED, UNREGISTERED, FLAT, OTHER, MOMENT, OFF)
"""Why frames are left out."""


@dataclass(frozen=True)
class PairedSegment:
    """What is known of a segment of the DVD.

    Attributes:
        scene: number of its shot on the DVD.
        first: its first frame on the DVD.
        partners: frame on the Blu-ray of each frame; -1 for none.
        verdicts: `KEPT`, or why a frame is left out.
        confidence: similarity of each frame to its partner, up to 1; 0 if it was not looked at.
        framing: where the DVD's picture lies on the Blu-ray's.
        spread: median distance of single frames' framings from it, in DVD pixels.
        gain: contrast of the DVD's luma over the Blu-ray's.
        level: by how much the DVD is brighter, of 255, besides.
    """

    scene: int
    first: int
    partners: list[int]
    verdicts: list[str]
    confidence: list[float]
    framing: Framing
    spread: float = 0.0
    gain: float = 1.0
    level: float = 0.0

    @property
    def kept(self) -> int:
        """Frames that are kept."""
        return self.verdicts.count(KEPT)


def picture_size(active: Crop) -> tuple[int, int]:
    """(rows, columns) of the pictures that frames are looked at by, of either disc.

    Args:
        active: the DVD's picture without borders.
    """
    factor = max(1, math.ceil(active.width / _WIDEST))
    return round(active.height / factor), round(active.width / factor)


def check_course(
    course: Course,
    active: Crop,
    thumbnails: tuple[Thumbnails, Thumbnails],
    path: Path,
    progress: Callable[[int, int], None],
) -> list[PairedSegment]:
    """Register all segments and check their frames; what files hold already is not done again.

    Args:
        course: how the films lie on each other.
        active: the DVD's picture without borders.
        thumbnails: of both; their larger pictures are dropped in the end.
        path: a line of JSON for each segment; another file gathers them until all are there.
        progress: called with (frames done, frames in all).
    """
    if not path.exists():
        part = path.with_suffix(".part.jsonl")
        done = read_segments(part)
        start = done[-1].framing if done else course.framing
        checker = _Checker(start, course.framing, active, thumbnails)
        checker.learn_framing(course.matches)
        with part.open("a", encoding="utf-8") as file:
            for match in course.matches[len(done) :]:
                file.write(json.dumps(asdict(checker.check(match))) + "\n")
                file.flush()
                progress(match.last, len(thumbnails[0]))
        part.rename(path)
    for each in thumbnails:
        each.drop_pictures()
    return read_segments(path)


def read_segments(path: Path) -> list[PairedSegment]:
    """The segments of whole lines; what a killed run left of another is cut off."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    found = (json.loads(line) for line in whole.decode().splitlines())
    return [PairedSegment(**{**each, "framing": Framing(*each["framing"])}) for each in found]


class _Checker:
    def __init__(
        self,
        last: Framing,
        usual: Framing,
        active: Crop,
        thumbnails: tuple[Thumbnails, Thumbnails],
    ) -> None:
        self._height, self._width = picture_size(active)
        self._pixel = active.width / self._width, active.height / self._height  # of the DVD
        self._active = active
        self._thumbnails = thumbnails
        self._framing, self._usual = last, usual  # of the last segment, and of the film

    def learn_framing(self, matches: Sequence[SegmentMatch]) -> None:
        """The framing of the film is the median of what segments tell.

        A steady pan that is taken a frame off has a framing that makes up for it, each pan another.
        """
        matched = [match for match in matches if len(match.partners) and match.partners.min() >= 0]
        found = []
        for match in matched[:: -(-len(matched) // _TELL_FRAMING) or 1]:
            middle = (match.last - match.first) // 2
            partner = int(match.partners[middle])
            dvd = self._pictures(0, match.first + middle, match.first + middle + 1)[0]
            bluray = self._pictures(1, partner, partner + 1)[0]
            if (framing := register(dvd, bluray, self._usual)) is not None:
                found.append(framing)
        if found:
            self._usual = median(found)

    def check(self, match: SegmentMatch) -> PairedSegment:
        count = match.last - match.first
        partners = match.partners if len(match.partners) else np.full(count, -1)
        result = PairedSegment(
            match.scene, match.first, partners.tolist(), [UNMATCHED] * count, [0.0] * count,
            self._framing,
        )  # fmt: skip
        places = np.flatnonzero(partners >= 0)
        if not len(places):
            return result
        low = max(0, int(partners[places].min()) - 2)
        high = min(len(self._thumbnails[1]), int(partners[places].max()) + 3)
        dvd = self._pictures(0, match.first, match.last)[places]
        bluray = self._pictures(1, low, high)
        here, framing, spread = self._placed(dvd, bluray, partners[places] - low)
        if framing is None:
            return replace(result, verdicts=_all(result.verdicts, places, UNREGISTERED))
        self._framing = framing
        moved = seen(bluray, framing, (self._height, self._width))
        dvd = seen(dvd, Framing(), (self._height, self._width))
        verdicts, confidence = self._judged(dvd, moved, here)
        for place, verdict, value in zip(places, verdicts, confidence, strict=True):
            result.verdicts[place], result.confidence[place] = verdict, round(float(value), 4)
        for place, partner in zip(places, here + low, strict=True):
            result.partners[place] = int(partner)
        gain, level = _light(dvd, moved[here])
        return replace(result, framing=framing, spread=spread, gain=gain, level=level)

    def _pictures(self, disc: int, first: int, last: int) -> np.ndarray:
        return self._thumbnails[disc].pictures(first, last).astype(np.float32)

    def _placed(
        self, dvd: np.ndarray, bluray: np.ndarray, here: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Framing | None, float]:
        """Places of the partners, if need be a frame off, where the film's framing fits best."""
        size = self._active.width, self._active.height
        best = (here, *self._registered(dvd, bluray[here]))
        off = math.inf if best[1] is None else best[1].distance(self._usual, *size)
        if off <= _FRAMED_ALIKE:
            return best
        for shift in (-1, 1):
            there = np.clip(here + shift, 0, len(bluray) - 1)
            framing, spread = self._registered(dvd, bluray[there])
            if framing is not None and framing.distance(self._usual, *size) < off / 2:
                best, off = (there, framing, spread), framing.distance(self._usual, *size)
        return best

    def _registered(self, dvd: np.ndarray, bluray: np.ndarray) -> tuple[Framing | None, float]:
        """The median framing of several frames, if they agree, and by how much they differ."""
        count = min(_REGISTERED, len(dvd))
        chosen = np.unique(np.linspace(0, len(dvd) - 1, count + 2).round().astype(int)[1:-1])
        size = self._active.width, self._active.height
        for start in (self._framing, self._usual):
            found = [register(dvd[n], bluray[n], start) for n in chosen.tolist()]
            framings = [framing for framing in found if framing is not None]
            if framings:
                middle = median(framings)
                spread = float(np.median([each.distance(middle, *size) for each in framings]))
                if spread <= _AGREE:
                    return middle, round(spread, 4)
        return None, 0.0

    def _judged(
        self, dvd: np.ndarray, moved: np.ndarray, here: np.ndarray
    ) -> tuple[list[str], np.ndarray]:
        fine, others = band_passed(dvd, _DETAIL), band_passed(moved, _DETAIL)
        alike = similarity(fine, others[here])
        before = similarity(fine, others[np.maximum(here - 1, 0)])
        after = similarity(fine, others[np.minimum(here + 1, len(others) - 1)])
        off = np.hypot(*(offsets(fine, others[here]) * self._pixel).T)
        contrast = np.abs(fine).mean(axis=(1, 2))
        # fields of two moments in one picture fit both, and neither as well as others do
        usual = float(np.median(1 - alike))
        verdicts = []
        for n, value in enumerate(alike):
            own, near = 1 - value, 1 - max(before[n], after[n])
            if contrast[n] < _FLAT:
                verdicts.append(FLAT)
            elif value < _SAME:
                verdicts.append(OTHER)
            elif near < _CLEARLY * own or (own > _UNUSUAL * usual and near < own / _CLEARLY):
                verdicts.append(MOMENT)
            elif off[n] > _FARTHEST:
                verdicts.append(OFF)
            else:
                verdicts.append(KEPT)
        return verdicts, alike


def _all(verdicts: list[str], places: np.ndarray, verdict: str) -> list[str]:
    chosen = set(places.tolist())
    return [verdict if n in chosen else other for n, other in enumerate(verdicts)]


def _light(dvd: np.ndarray, bluray: np.ndarray) -> tuple[float, float]:
    """Gain and offset of luma, by what most frames say."""
    gains = dvd.std(axis=(1, 2)) / np.maximum(bluray.std(axis=(1, 2)), 1e-3)
    gain = float(np.median(gains))
    level = float(np.median(dvd.mean(axis=(1, 2)) - gain * bluray.mean(axis=(1, 2))))
    return round(gain, 4), round(level, 2)
