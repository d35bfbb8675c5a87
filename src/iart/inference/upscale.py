"""Frames → frames four times larger: a clip in memory, or a stream of frames.

A model is any module that takes `b t 3 h w` and gives `b t 3 4h 4w`, RGB in [0, 1]; where its
parameters lie is where it runs. What is done here besides calling it: windows in time
(`iart.inference.windows`), tiles in space (`iart.inference.tiles`), values clamped to [0, 1].
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import OptionsError
from iart.inference.enlarge import enlarge_window
from iart.inference.windows import OVERLAP, WINDOW, Window, check_windows, plan_windows
from iart.video.frame import Frame


def upscale(
    clip: Float[Tensor, "t 3 h w"],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: int | None = None,
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """Enlarge a clip that is one scene.

    Args:
        clip: RGB in [0, 1], floating point, on any device; the result is alike.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side in pixels of square tiles, for pictures too large for the memory; None for none.

    Raises:
        OptionsError: the window keeps no frame, the tile is too small, or the clip holds integers.
    """
    if not clip.is_floating_point():
        raise OptionsError(f"upscale takes RGB in [0, 1] in floating point, got {clip.dtype}")
    t, _, h, w = clip.shape
    large = clip.new_empty(t, 3, 4 * h, 4 * w)
    for part in plan_windows(repeat(False, t), window, overlap):
        frames = clip[part.start : part.stop]
        large[part.keep_start : part.keep_stop] = enlarge_window(frames, model, part.kept, tile)
    return large


def upscale_frames(
    frames: Iterable[Frame],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: int | None = None,
    wanted: Callable[[Frame], bool] | None = None,
) -> Iterator[Frame]:
    """Enlarge frames as they come, holding at most `window` + 1 of them.

    Gives as many frames as it takes, with the same times. Windows end where a frame is marked as
    the first of a new scene.

    Args:
        frames: of one size; a `VideoReader`, for instance.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side in pixels of square tiles, for pictures too large for the memory; None for none.
        wanted: asked of every frame, in order: whether to enlarge and give it. The others are
            context only, and what they would have become costs nothing. None wants all.

    Raises:
        OptionsError: the window keeps no frame, or the tile is too small.
    """
    check_windows(window, overlap)
    newest: deque[tuple[Frame, bool]] = deque(maxlen=window + 1)
    count = 0

    def cuts() -> Iterator[bool]:
        nonlocal count
        for frame in frames:
            newest.append((frame, wanted is None or wanted(frame)))
            count += 1
            yield frame.cut

    for part in plan_windows(cuts(), window, overlap):
        first = count - len(newest)
        members = list(newest)[part.start - first : part.stop - first]
        if any(is_wanted for _, is_wanted in members[part.kept]):
            yield from _enlarge_wanted(members, model, part, tile)


def _enlarge_wanted(
    members: Sequence[tuple[Frame, bool]], model: nn.Module, part: Window, tile: int | None
) -> Iterator[Frame]:
    """Those of the kept frames of one window that are wanted."""
    large = enlarge_window(
        torch.stack([frame.data for frame, _ in members]), model, part.kept, tile
    )
    for (frame, is_wanted), data in zip(members[part.kept], large, strict=True):
        if is_wanted:
            # A copy, so that a frame that waits for the writer does not keep its whole window.
            yield replace(frame, data=data.clone())
