"""Temporal windows: which frames the network sees at once, and which of its frames are kept.

Integers in, integers out. Convention: all ranges are half-open, frames are counted from 0.

A recurrent network knows little at the ends of a clip. Windows therefore overlap, and frames of the
overlap serve as context only: each frame is taken from one window, whole. Blending two windows
would let the picture flicker between their sharpness. A window never crosses a scene cut, where
features carried over would leave ghosts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from iart.errors import OptionsError

WINDOW = 16
"""Frames that the network sees at once, unless told otherwise."""
OVERLAP = 3
"""Frames of context at either end of a window, unless told otherwise."""
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """The network sees [start, stop); of its output [keep_start, keep_stop) is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept(self) -> slice:
        """Where the kept frames lie in the window."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def check_windows(window: int, overlap: int) -> None:
    """Refuse windows that keep nothing.

    Raises:
        OptionsError: window < 1, overlap < 0, or the overlaps leave no frame to keep.
    """
    if not 1 <= window <= _LARGEST:
        raise OptionsError(f"window must be 1 to {_LARGEST} frames, got {window}")
    if not 0 <= overlap <= (window - 1) // 2:
        raise OptionsError(
            f"overlap must be 0 to {(window - 1) // 2} frames for a window of {window}, "
            f"got {overlap}: a frame between the overlaps is what a window keeps"
        )


def plan_windows(
    cuts: Iterable[bool], window: int = WINDOW, overlap: int = OVERLAP
) -> Iterator[Window]:
    """Plan windows while frames arrive: for each frame, `cuts` tells if a new scene starts there.

    Every frame is kept exactly once, in order, by a window in which at least `overlap` frames of
    its scene precede and follow it, where the scene has so many. Windows are `window` frames long,
    all frames of the scene if it is shorter. The last window of a scene is shifted back, so that
    it is not short either; its context may then be longer than `overlap`.

    A window is yielded while all of its frames are among the `window` + 1 newest ones, so that
    nobody needs to hold more than those.

    Raises:
        OptionsError: window < 1, overlap < 0, or the overlaps leave no frame to keep.
    """
    check_windows(window, overlap)
    scene = 0  # the first frame of this scene
    start = 0  # of the next window, if the scene is long enough
    kept = 0  # frames before this one have been kept
    count = 0
    for cut in cuts:
        if cut and count > scene:
            yield Window(max(scene, count - window), count, kept, count)
            scene = start = kept = count
        elif count == start + window:
            # Not the last of its scene, since this frame follows it.
            yield Window(start, count, kept, count - overlap)
            kept = count - overlap
            start = kept - overlap
        count += 1
    if count > scene:
        yield Window(max(scene, count - window), count, kept, count)
