"""What `upscale_video` tells of its work: progress, the result, and what the input lacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from iart.video.frame import Loss


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upscale has come.

    Attributes:
        frames_done: frames handed to the writer.
        frame_count: frames expected in all, an estimate; None if nothing tells.
        elapsed_seconds: since the work began.
    """

    frames_done: int
    frame_count: int | None
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class UpscaleResult:
    """What an upscale has written.

    Attributes:
        output: the file or folder written.
        frames: number of frames written, as many as were read.
        seconds: that the work took.
        notes: what had to be converted on the way, one line each.
    """

    output: Path
    frames: int
    seconds: float
    notes: tuple[str, ...] = ()


def clock(seconds: Fraction | float) -> str:
    """Seconds as "1:02:03.456", exact to the millisecond."""
    thousandths = round(abs(seconds) * 1000)
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{hours}:{minutes:02}:{thousandths // 1000:02}.{thousandths % 1000:03}"


def list_losses(losses: Sequence[Loss]) -> str:
    """All losses in one line, each with its times and its reason."""
    return "; ".join(
        f"{clock(loss.start_seconds)} to "
        f"{'the end' if loss.end_seconds is None else clock(loss.end_seconds)} ({loss.reason})"
        for loss in losses
    )
