"""Where a film is cut into segments: the pieces of work that are finished, and kept, one by one.

Integers in, integers out. Segments follow each other without holes. Where one ends depends on the
frames so far and on nothing else, so that every pass over the same film finds the same segments:
one that goes on after a crash, or one that shares the work with others.

Segments end at scene cuts, where an encoder starts a new key frame anyway. A long scene is cut
where an encoder would place a key frame at the latest; windows of the network know nothing of
segments, and see the frames on both sides.
"""

from dataclasses import dataclass

SHORTEST = 48
"""Frames of a segment at least, but for the last one."""
LONGEST = 240
"""Frames of a segment at most; x264 and x265 place a key frame after 250."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Its number, counted from 0, and the number of its first frame in the film."""

    number: int
    first: int


class Segments:
    """Tells of each frame of a film, in order, which segment it belongs to."""

    def __init__(self) -> None:
        self._next = 0
        self._current = Segment(0, 0)

    def place(self, cut: bool) -> Segment:
        """The segment of the next frame; `cut` tells whether a new scene starts there."""
        length = self._next - self._current.first
        if length >= LONGEST or (cut and length >= SHORTEST):
            self._current = Segment(self._current.number + 1, self._next)
        self._next += 1
        return self._current
