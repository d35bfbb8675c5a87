"""Frames → frames four times larger: a clip in memory, or a stream of frames.

A model is any module that takes `b t 3 h w` and gives `b t 3 4h 4w`, RGB in [0, 1]; where its
parameters lie is where it runs. What is done here besides calling it: windows in time
(`iart.upscaling.windows`), tiles in space (`iart.upscaling.tiles`), values clamped to [0, 1].
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import InputError, OptionsError
from iart.model.upsample import SCALE
from iart.pictures.resize import imresize
from iart.upscaling.budget import TileOption, plan_tiling
from iart.upscaling.enlarge import NO_STATE, Enlarger
from iart.upscaling.windows import WINDOW, Begins, check_windows, plan_windows, usual_overlap
from iart.video.frame import Frame

OVERSHOOT = 1.0
"""How far beyond [0, 1] values may lie: filters that sharpen go there, other units go further."""


def upscale(
    clip: Float[Tensor, "t 3 h w"],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int | None = None,
    tile: TileOption = "auto",
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """Enlarge a clip that is one scene.

    Args:
        clip: RGB in [0, 1], floating point, on any device; the result is alike.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window; None for 3, or what a window of fewer
            than 7 frames allows.
        tile: side of square tiles in pixels, for pictures too large for the memory; "auto" plans
            tiles and window from what is free; None for none. Tiles, and planned windows, become
            smaller where memory runs out (a warning says so).

    Raises:
        OptionsError: the window keeps no frame, the tile is too small, or the clip holds integers.
        InputError: the clip has another shape, or values far outside of [0, 1].
    """
    if not clip.is_floating_point():
        raise OptionsError(f"upscale takes RGB in [0, 1] in floating point, got {clip.dtype}")
    if clip.ndim != 4 or clip.shape[1] != 3 or 0 in clip.shape[2:]:
        raise InputError(
            f"upscale takes a clip of shape (frames, 3, height, width), got {tuple(clip.shape)}"
        )
    _require_range(clip)
    t, _, h, w = clip.shape
    large = clip.new_empty(t, 3, 4 * h, 4 * w)
    tiling = plan_tiling(
        model, h, w, window=window, overlap=overlap, tile=tile, frames=t, beside=large.nbytes
    )
    enlarger, state = Enlarger(model, tiling), NO_STATE
    for part in plan_windows(
        repeat(Begins.NOTHING, t), tiling.window, tiling.overlap, carried=enlarger.is_carried
    ):
        frames = clip[part.start : part.stop]
        large[part.keep_start : part.keep_stop], state = enlarger.enlarge(frames, part.kept, state)
    return large


def _require_range(clip: Tensor) -> None:
    """Raise where pictures are not RGB in [0, 1], give or take what filters overshoot."""
    if not clip.numel():
        return
    low, high = (float(x) for x in clip.aminmax())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise InputError(
            f"frames have values from {low:.4g} to {high:.4g}, expected RGB in [0, 1]."
            " Divide 8-bit values by 255"
        )


def upscale_frames(
    frames: Iterable[Frame],
    model: nn.Module,
    *,
    window: int = WINDOW,
    overlap: int | None = None,
    tile: TileOption = "auto",
) -> Iterator[Frame]:
    """Enlarge frames as they come, holding at most `window` + 1 of them.

    Gives as many frames as it takes, with the same times. Windows end where a frame is marked as
    the first of a new scene.

    Args:
        frames: of one size; a `VideoReader`, for instance.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        window: frames that the model sees at once.
        overlap: frames of context at either end of a window; None for 3, or what a window of fewer
            than 7 frames allows.
        tile: side of square tiles in pixels, for pictures too large for the memory; "auto" plans
            tiles and window from what is free; None for none. Tiles, and planned windows, become
            smaller where memory runs out (a warning says so).

    Raises:
        OptionsError: the window keeps no frame, or the tile is too small.
    """
    overlap = usual_overlap(window) if overlap is None else overlap
    check_windows(window, overlap)
    frames = iter(frames)
    head = next(frames, None)
    if head is None:
        return
    tiling = plan_tiling(model, *head.data.shape[1:], window=window, overlap=overlap, tile=tile)
    steps = map(Step, chain([head], frames))
    for frame, _ in enlarge_steps(steps, Enlarger(model, tiling)):
        yield frame


@dataclass(frozen=True, slots=True)
class Step:
    """A frame of a stream, and what is to be done with it.

    Attributes:
        frame: the frame.
        is_wanted: whether to enlarge and give it; else it is context only.
        begins_chain: whether no state is carried to it.
        state: after the frame before, if that was enlarged by an earlier run.
    """

    frame: Frame
    is_wanted: bool = True
    begins_chain: bool = False
    state: Mapping[str, Tensor] | None = None


def enlarge_steps(
    steps: Iterable[Step], enlarger: Enlarger
) -> Iterator[tuple[Frame, Mapping[str, Tensor] | None]]:
    """Enlarge the wanted frames of a stream, see `upscale_frames`.

    Yields:
        A frame; and after the last one of a window the state, empty if the model has none: a later
        run that does not want frames up to here can be given it with the next step.
    """
    tiling, state = enlarger.tiling, NO_STATE
    newest: deque[Step] = deque(maxlen=tiling.window + 1)
    count = 0

    def begins() -> Iterator[Begins]:
        nonlocal count
        for step in steps:
            newest.append(step)
            count += 1
            chain = Begins.CHAIN if step.begins_chain else Begins.NOTHING
            yield Begins.SCENE if step.frame.cut else chain

    for part in plan_windows(begins(), tiling.window, tiling.overlap, carried=enlarger.is_carried):
        first = count - len(newest)
        members = list(newest)[part.start - first : part.stop - first]
        kept = members[part.kept]
        if not any(step.is_wanted for step in kept):
            continue
        clip = torch.stack([step.frame.data for step in members])
        _require_range(clip)
        before = kept[0].state or (state if part.is_carried else NO_STATE)
        large, state = enlarger.enlarge(clip, part.kept, before)
        for index, (step, data) in enumerate(zip(kept, large, strict=True), 1):
            if step.is_wanted:
                # A copy: a frame that waits for the writer does not keep its whole window.
                data, alpha = data.clone() if len(large) > 1 else data, step.frame.alpha
                if alpha is not None:
                    alpha = imresize(alpha, SCALE).clamp_(0, 1)
                enlarged = replace(step.frame, data=data, alpha=alpha)
                yield enlarged, state if index == len(kept) else None
