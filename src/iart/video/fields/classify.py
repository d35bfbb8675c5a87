"""What pictures are made of: whole frames, fields of two moments, or film spread over fields.

An interlaced picture is woven of two fields: its even rows (top) and its odd rows (bottom). Where
something moves, the weave of two fields of different moments shows combs. For each picture, with
t and b its own fields and t', b' those of the one before, the combing of three weaves is measured:

    C = (t, b)      P = (t, b')      Q = (t', b)

The farther apart the moments, the stronger the combs. With the top field first, each picture is

    c   one moment of its own:                          C least, P and Q alike
    i   two moments half a picture apart:               C and P alike, Q most
    p   t belongs to the moment of b' (film):           P least
    r   its b is the field b' once more (film), or t t': that field differs far less than the other

and with the bottom field first the same with P and Q exchanged. A picture that fits none of these
is an x: the order is wrong, or it moves as nothing woven does. Film of 24 pictures per second in
video of 30 (3:2, "hard telecine") gives c c p p r again and again:

    t  A B B C D        each film frame lasts two fields, then three
    b  A B C D D

The content decides; what the stream's flags say of it is often wrong, and not used.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import av
import numpy as np

CYCLE = 5
"""Pictures of video that hold four of film."""
CHUNK = 3 * CYCLE
"""So many successive pictures are judged together."""

Content = Literal["progressive", "interlaced", "soft telecine", "hard telecine", "shifted film"]
Kind = Literal[Content, "mixed"]
Label = Literal["c", "i", "p", "r", "x", "."]

_FILM_LABELS = "ccppr"
_NOISE = 4  # differences of 8-bit luma up to this are no comb
_STILL = 0.02  # combing that differs less says nothing
_UNLIKE = 0.1  # relative to the least
_ALIKE = 0.4  # of the span from least to most
_SAME_MOMENT = 2.0  # combing of fields equally far apart differs by less than this factor
_REPEATED = 0.65  # difference of a repeated field, relative to the other field's
_MIN_VOTES = 6
_MIN_CADENCE = 0.8
_CLEAR = 0.6  # share of the votes that settles what a place is
_MIN_FIT = 0.3
_MAX_UNFIT = 0.3
_SHARE_THAT_COUNTS = 0.08
_MANY_PLACES = 5
_FARTHEST = 4  # rows per picture by which vertical motion is recognised
_VERTICAL_ROWS = [
    sign * rows for sign in (1, -1) for rows in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
]
_EXPLAINED = 0.75  # of the change; less is left if the picture only moved up or down
_WIDE = 360  # of wider pictures every other column is looked at


@dataclass(frozen=True)
class FieldReport:
    """What a survey found.

    Attributes:
        kind: "mixed" if more than one kind of content has a share worth a mention.
        top_first: order in time of the fields; None where it does not matter.
        shares: of the places with motion, by content; empty if nothing moves.
        rate: of the film frames per second in telecined material; None otherwise.
    """

    kind: Kind
    top_first: bool | None = None
    shares: dict[str, float] = field(default_factory=dict)
    rate: Fraction | None = None

    def describe(self) -> str:
        """For people: "interlaced, top field first", "mixed: 70 % progressive, 30 % …"."""
        if not self.shares and self.kind != "soft telecine":
            return "no motion was found that would show them"
        order = {None: "", True: ", top field first", False: ", bottom field first"}
        text = str(self.kind)
        if self.kind == "mixed":
            text += ": " + describe_shares(self.shares)
        if self.rate is not None:
            text += f", film at {float(self.rate):.3f} frames/s"
        return text + order[self.top_first]


def describe_shares(shares: dict[str, float]) -> str:
    """Shares in words, the largest first: 70 % progressive, 30 % interlaced."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{round(100 * share)} % {content}" for content, share in ordered)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a picture is if the top field comes first, and if the bottom field does."""

    top_first: Label
    bottom_first: Label

    @property
    def combed(self) -> bool:
        """Whether its two fields belong to different moments."""
        return self.top_first in "ip" or self.bottom_first in "ip"


_NOTHING = Labels(".", ".")


class FieldMeter:
    """Labels the pictures of a video, in order."""

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._vertical = False  # whether the last picture only moved up or down

    def label(self, image: av.VideoFrame) -> Labels:
        """Compare a picture with the one before; the first says nothing."""
        before, (top, bottom) = self._before, _fields(image)
        self._before = top, bottom
        if before is None or before[0].shape != top.shape or not top.size:
            return _NOTHING
        rows = _vertical_motion(_woven(*before), _woven(top, bottom))
        was_vertical, self._vertical = self._vertical, bool(rows)
        if rows:
            return _labels_of_vertical(top, bottom, rows)
        if was_vertical:  # slow motion explains every second picture only
            return _NOTHING
        own = _combing(top, bottom)
        late, early = _combing(top, before[1]), _combing(before[0], bottom)
        moves = _difference(top, before[0]), _difference(bottom, before[1])
        return Labels(
            _label(own, late, early, repeated=moves[1] < _REPEATED * moves[0]),
            _label(own, early, late, repeated=moves[0] < _REPEATED * moves[1]),
        )


def luma(image: av.VideoFrame) -> np.ndarray:
    """Luma of a picture in 8 bits, (rows, columns); of a wide one every other column."""
    plane, depth = image.planes[0], image.format.components[0].bits
    if not image.format.is_planar or image.format.is_rgb or depth > 16:
        image = image.reformat(format="gray")
        plane, depth = image.planes[0], 8
    dtype = np.dtype("u1" if depth <= 8 else "<u2")
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    rows = rows[:, : plane.width : 2 if plane.width >= _WIDE else 1]
    return (rows >> max(0, depth - 8)).astype(np.uint8)


def _fields(image: av.VideoFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the top and of the bottom field of luma."""
    rows = luma(image).astype(np.int16)
    return rows[: len(rows) // 2 * 2 : 2], rows[1::2]


def _combing(top: np.ndarray, bottom: np.ndarray) -> float:
    """How much rows of `bottom` stand out from both rows of `top` beside them, on average."""
    above, below = top[:-1] - bottom[:-1], top[1:] - bottom[:-1]
    stands_out = np.maximum(np.minimum(above, below), -np.maximum(above, below))
    return float(np.maximum(stands_out - _NOISE, 0).mean(dtype=np.float64))


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean(dtype=np.float64))


def _label(own: float, late: float, early: float, *, repeated: bool) -> Label:
    least, middle, most = sorted((own, late, early))
    if most - least < _UNLIKE * least + _STILL:
        return "."
    if repeated and most == early and most > own:
        return "r"
    alike = (middle - least) / (most - least) < _ALIKE
    if alike and middle < _SAME_MOMENT * least + _STILL:
        return "i" if most == early else "x"
    if least == own:
        return "c"
    return "p" if least == late else "x"


def _woven(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    count = min(len(top), len(bottom))
    return np.stack([top[:count], bottom[:count]], axis=1).reshape(2 * count, -1)


def _moved(rows: np.ndarray, by: float) -> tuple[np.ndarray, slice]:
    """What lies `by` rows below each row, and the rows for which there is such a thing."""
    whole = math.floor(by)
    part = by - whole
    first, last = max(0, -whole), min(len(rows), len(rows) - whole - 1)
    upper = rows[first + whole : last + whole].astype(np.float32)
    lower = rows[first + whole + 1 : last + whole + 1]
    return upper + np.float32(part) * (lower - upper), slice(first, last)


def _vertical_motion(before: np.ndarray, now: np.ndarray) -> float:
    """Rows by which the picture moved up, if that explains how it changed; else 0."""
    changed = _difference(now, before)
    if changed < _STILL or len(now) < 4 * _FARTHEST:
        return 0.0
    found, least = 0.0, _EXPLAINED * changed
    for rows in _VERTICAL_ROWS:
        moved, place = _moved(before, rows)
        left = _difference(now[place], moved)
        if left < least:
            found, least = rows, left
    return found


def _labels_of_vertical(top: np.ndarray, bottom: np.ndarray, rows: float) -> Labels:
    """Fields of two moments fit better where one is moved by half of what the picture moved."""
    fits = []
    for by in (-rows / 4, rows / 4):  # rows of a field, for a field that is later and earlier
        moved, place = _moved(bottom, by)
        fits.append(_combing(top[place], moved[: len(top[place])]))
    later, earlier = fits
    own = _combing(top, bottom)
    if own > min(fits) and max(fits) > _SAME_MOMENT * min(fits) + _STILL:
        return Labels("i", "x") if later < earlier else Labels("x", "i")
    return Labels("c", "c") if _SAME_MOMENT * own + _STILL < min(fits) else _NOTHING


def judge(labels: Sequence[Labels]) -> tuple[Content, bool | None] | None:
    """The content of successive pictures and which field is first; None if they do not tell."""
    found: dict[bool, tuple[Content, float]] = {}
    for top_first in (True, False):
        text = [each.top_first if top_first else each.bottom_first for each in labels]
        verdict = _judge_order(text)
        if verdict is not None:
            found[top_first] = verdict
    if not found:
        return None
    top_first = max(found, key=lambda order: found[order][1])
    content = found[top_first][0]
    return content, None if content == "progressive" else top_first


def _judge_order(labels: Sequence[str]) -> tuple[Content, float] | None:
    """The content if this order of fields is right, and how well that fits, from 0 to 1."""
    count = Counter(labels)
    votes = len(labels) - count["."]
    if votes < _MIN_VOTES:
        return None
    cadence = max(_cadence(labels, phase) for phase in range(CYCLE))
    if cadence >= _MIN_CADENCE and count["p"] >= 2 and count["p"] + count["r"] >= votes / 3:
        return "hard telecine", cadence
    contents: dict[Content, int] = {
        "progressive": count["c"],
        "shifted film": count["p"],
        "interlaced": count["i"] + count["r"],
    }
    content = max(contents, key=lambda each: contents[each])
    fit = contents[content] / votes
    if fit < _CLEAR and count["x"] > _MAX_UNFIT * votes:
        return None
    if fit < _CLEAR:  # fields of some rhythm of their own
        content, fit = "interlaced", (votes - count["c"] - count["x"]) / votes
    return (content, fit) if fit >= _MIN_FIT else None


def _cadence(labels: Sequence[str], phase: int) -> float:
    """Share of the labels that are those of film that starts its cycle at `phase`."""
    pairs = [(got, _FILM_LABELS[(i - phase) % CYCLE]) for i, got in enumerate(labels)]
    votes = [(got, wanted) for got, wanted in pairs if got != "."]
    fits = {"c": "c", "p": "p", "r": "ri"}
    return sum(got in fits[wanted] for got, wanted in votes) / max(1, len(votes))


def believed(
    found: Sequence[tuple[int, Content, bool | None]], places: int
) -> list[tuple[Content, bool | None]]:
    """The judgements that count, of those with the number of the place where each was made.

    One place among many is no proof of fields: what moves there may only look like them.
    """
    whole = ("progressive", "soft telecine")
    fielded = {place for place, content, _ in found if content not in whole}
    doubted = fielded if len(fielded) == 1 and places >= _MANY_PLACES else set()
    return [
        (content, first)
        for place, content, first in found
        if place not in doubted or content in whole
    ]


def conclude(
    chunks: Sequence[tuple[Content, bool | None]], rate: Fraction, film_rate: Fraction | None
) -> FieldReport:
    """One report of what was judged at many places.

    Args:
        chunks: the judgement of each place that told something.
        rate: pictures per second.
        film_rate: that of soft telecine, if there is any.
    """
    total = len(chunks)
    if not total:
        return FieldReport("progressive")
    count: Counter[Content] = Counter(content for content, _ in chunks)
    worth = {
        content: n
        for content, n in count.items()
        if n == max(count.values()) or (n >= 2 and n / total >= _SHARE_THAT_COUNTS)
    }
    shares = {content: n / sum(worth.values()) for content, n in worth.items()}
    orders = Counter(first for content, first in chunks if content in worth and first is not None)
    top_first = orders.most_common(1)[0][0] if orders else None
    if len(orders) == 2 and min(orders.values()) >= max(2, _SHARE_THAT_COUNTS * total):
        # the second order is content of its own, which no single setting can treat
        shares["fields in both orders"] = min(orders.values()) / total
    (usual, _), *_ = count.most_common(1)
    kind: Kind = usual if len(shares) == 1 else "mixed"
    film = {"soft telecine": film_rate, "hard telecine": rate * (CYCLE - 1) / CYCLE}.get(kind)
    return FieldReport(kind, top_first, shares, film)
