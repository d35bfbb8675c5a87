"""What `upscale_video` tells of its work: progress and the result."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upscale has come.

    Attributes:
        frames_done: frames handed to the writer, by this run and those that it goes on from.
        frame_count: frames expected in all, an estimate; None if nothing tells.
        elapsed_seconds: since this run began.
        frames_before: those of `frames_done` that runs before this one have done.
    """

    frames_done: int
    frame_count: int | None
    elapsed_seconds: float
    frames_before: int = 0


@dataclass(frozen=True, slots=True)
class UpscaleResult:
    """What an upscale has written.

    Attributes:
        output: the file or folder written.
        frames: number of frames written, as many as were read.
        seconds: that this run took.
        notes: what had to be converted on the way, one line each.
        is_new: whether this run made it; False if it was finished before.
    """

    output: Path
    frames: int
    seconds: float
    notes: tuple[str, ...] = ()
    is_new: bool = True
