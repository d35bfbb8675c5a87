"""Frames → frames four times larger: a clip in memory, or a stream of frames.

A model is any module that takes `b t 3 h w` and gives `b t 3 4h 4w`, RGB in [0, 1]; where its
parameters lie is where it runs. What is done here besides calling it: windows in time
(`iart.inference.windows`), tiles in space (`iart.inference.tiles`), values clamped to [0, 1].
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import OptionsError
from iart.inference.enlarge import Enlarger
from iart.inference.tiling import TileOption, plan_tiling
from iart.inference.windows import OVERLAP, WINDOW, Window, check_windows, plan_windows
from iart.video.frame import Frame


def upscale(
    clip: Float[Tensor, "t 3 h w"],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: TileOption = "auto",
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """Enlarge a clip that is one scene.

    Args:
        clip: RGB in [0, 1], floating point, on any device; the result is alike.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window.
        tile: side of square tiles in pixels, for pictures too large for the memory; "auto" plans
            tiles and window from what is free; None for none. Tiles, and planned windows, become
            smaller where memory runs out (a warning says so).

    Raises:
        OptionsError: the window keeps no frame, the tile is too small, or the clip holds integers.
    """
    if not clip.is_floating_point():
        raise OptionsError(f"upscale takes RGB in [0, 1] in floating point, got {clip.dtype}")
    t, _, h, w = clip.shape
    large = clip.new_empty(t, 3, 4 * h, 4 * w)
    tiling = plan_tiling(
        model, h, w, window=window, overlap=overlap, tile=tile, frames=t, beside=large.nbytes
    )
    enlarger = Enlarger(model, tiling)
    for part in plan_windows(repeat(False, t), tiling.window, tiling.overlap):
        frames = clip[part.start : part.stop]
        large[part.keep_start : part.keep_stop] = enlarger.enlarge(frames, part.kept)
    return large


def upscale_frames(
    frames: Iterable[Frame],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    tile: TileOption = "auto",
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
        tile: side of square tiles in pixels, for pictures too large for the memory; "auto" plans
            tiles and window from what is free; None for none. Tiles, and planned windows, become
            smaller where memory runs out (a warning says so).
        wanted: asked of every frame, in order: whether to enlarge and give it. The others are
            context only, and what they would have become costs nothing. None wants all.

    Raises:
        OptionsError: the window keeps no frame, or the tile is too small.
    """
    check_windows(window, overlap)
    frames = iter(frames)
    head = next(frames, None)
    if head is None:
        return
    tiling = plan_tiling(model, *head.data.shape[1:], window=window, overlap=overlap, tile=tile)
    enlarger = Enlarger(model, tiling)
    newest: deque[tuple[Frame, bool]] = deque(maxlen=tiling.window + 1)
    count = 0

    def cuts() -> Iterator[bool]:
        nonlocal count
        for frame in chain([head], frames):
            newest.append((frame, wanted is None or wanted(frame)))
            count += 1
            yield frame.cut

    for part in plan_windows(cuts(), tiling.window, tiling.overlap):
        first = count - len(newest)
        members = list(newest)[part.start - first : part.stop - first]
        if any(is_wanted for _, is_wanted in members[part.kept]):
            yield from _enlarge_wanted(members, enlarger, part)


def _enlarge_wanted(
    members: Sequence[tuple[Frame, bool]], enlarger: Enlarger, part: Window
) -> Iterator[Frame]:
    """Those of the kept frames of one window that are wanted."""
    large = enlarger.enlarge(torch.stack([frame.data for frame, _ in members]), part.kept)
    for (frame, is_wanted), data in zip(members[part.kept], large, strict=True):
        if is_wanted:
            # A copy, so that a frame that waits for the writer does not keep its whole window.
            yield replace(frame, data=data.clone() if len(large) > 1 else data)
