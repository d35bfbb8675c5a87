"""Temporal windows: which frames the network sees at once, and which of its frames are kept.

Integers in, integers out. Convention: all ranges are half-open, frames are counted from 0.

A recurrent network knows little at the ends of a clip. Windows therefore overlap, and frames of the
overlap serve as context only: each frame is taken from one window, whole. Blending two windows
would let the picture flicker between their sharpness. A window never crosses a scene cut, where
features carried over would leave ghosts.

A network whose state is carried from window to window (`IART.advance`) needs context after the kept
frames only: a chain of windows begins with a scene, or with context where it has to begin inside of
one, and each window goes on where the kept frames of the one before end.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from iart.errors import OptionsError

WINDOW = 16
"""Frames that the network sees at once, unless told otherwise."""
OVERLAP = 3
"""Frames of context at either end of a window, unless told otherwise or the window is too short."""
_LARGEST = 1_000_000


class Begins(IntEnum):
    """What begins with a frame."""

    NOTHING = 0
    SCENE = 1
    CHAIN = 2
    """Inside a scene: no state is carried to this frame."""


@dataclass(frozen=True, slots=True)
class Window:
    """The network sees [start, stop); of its output [keep_start, keep_stop) is kept.

    With `is_carried`, it also has the state after the kept frames of the window before.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int
    is_carried: bool = False

    @property
    def kept(self) -> slice:
        """Where the kept frames lie in the window."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def usual_overlap(window: int) -> int:
    """Frames of context at either end of a window of this length, unless told otherwise."""
    return max(0, min(OVERLAP, (window - 1) // 2))


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
    begins: Iterable[int],
    window: int = WINDOW,
    overlap: int = OVERLAP,
    *,
    carried: bool = False,
) -> Iterator[Window]:
    """Plan windows while frames arrive: for each frame, `begins` tells what begins with it.

    Every frame is kept exactly once, in order, by a window in which at least `overlap` frames of
    its scene precede and follow it, where the scene has so many. Windows are `window` frames long,
    all frames of the scene if it is shorter. The last window of a scene is shifted back, so that
    it is not short either; its context may then be longer than `overlap`.

    With `carried`, the state of each window is carried to the next one of a chain, which begins
    with the frames that follow the kept ones. The last window of a chain may then be short.

    A window is yielded while all of its frames are among the `window` + 1 newest ones, so that
    nobody needs to hold more than those.

    Args:
        begins: a `Begins` for each frame; chains begin only if state is carried.
        window: frames of a window, at most.
        overlap: frames of context.
        carried: whether state is carried from window to window.

    Raises:
        OptionsError: window < 1, overlap < 0, or the overlaps leave no frame to keep.
    """
    check_windows(window, overlap)
    scene = 0  # the first frame of this scene
    chains: deque[int] = deque()  # where chains will begin in it, as far as is known
    start, is_carried = 0, False  # of the next window, if the scene is long enough
    kept = 0  # frames before this one have been kept
    count = 0

    def planned(stop: int, keep_stop: int) -> Window:
        """The next window, and where the one after it begins."""
        nonlocal start, kept, is_carried
        result = Window(start, stop, kept, keep_stop, is_carried)
        kept, is_carried = keep_stop, carried
        if chains and chains[0] == kept:
            chains.popleft()
            is_carried = False
        start = kept if is_carried else max(scene, kept - overlap)
        return result

    def rest() -> Iterator[Window]:
        """Windows of the scene that ends before frame `count`."""
        nonlocal start
        while kept < count:
            if not carried:
                start = max(scene, count - window)
            yield planned(count, chains[0] if chains else count)

    for begun in begins:
        if begun == Begins.SCENE:
            yield from rest()
            scene = start = kept = count
            is_carried = False
        else:
            if begun == Begins.CHAIN and carried and count > scene:
                chains.append(count)
            # Not the last of its scene, since this frame follows it.
            if count == min(start + window, chains[0] + overlap if chains else start + window):
                yield planned(count, count - overlap)
        count += 1
    yield from rest()
