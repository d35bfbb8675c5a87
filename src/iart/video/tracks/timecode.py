"""Time codes ("01:00:00:00"): the number of the first frame, in another rate or later on."""

import math
import re
from fractions import Fraction

_LABEL = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d+)")
_DROPPING = (30, 60)
"""Whole frames per second at which a time code can leave out numbers to keep up with the clock."""


def move_timecode(
    label: str, elapsed: Fraction, given_rate: Fraction, rate: Fraction
) -> tuple[str, tuple[str, ...]]:
    """The time code of the first frame that is written, and notes on what is not kept.

    Args:
        label: of the source's first frame; another separator than ":" before the frames marks
            drop-frame counting, which is kept at 29.97 and 59.94 frames per second.
        elapsed: seconds from there to where the output starts.
        given_rate: frames per second of the source.
        rate: frames per second of the output.
    """
    found = _LABEL.fullmatch(label.strip())
    given_fps, fps = round(given_rate), round(rate)
    if found is None or not given_fps or not fps:
        return label, ()
    hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
    is_dropping = found[4] != ":"
    drops = is_dropping and fps in _DROPPING and rate.denominator != 1
    number = _number(hours * 60 + minutes, seconds, frames * fps // given_fps, fps, drops)
    moved = _label(number + math.ceil(elapsed * rate), fps, drops)
    if is_dropping and not drops:
        return moved, (
            f"timecode: drop-frame {label} goes on as {moved}: without drop frames, which"
            f" {float(rate):.3f} frames/s do not have",
        )
    return moved, ()


def _dropped(fps: int) -> int:
    """Numbers that are left out at the start of every minute but each tenth."""
    return fps // 15


def _number(minutes: int, seconds: int, frames: int, fps: int, drops: bool) -> int:
    count = (minutes * 60 + seconds) * fps + frames
    return count - _dropped(fps) * (minutes - minutes // 10) if drops else count


def _label(number: int, fps: int, drops: bool) -> str:
    if drops:
        left_out = _dropped(fps)
        tens, rest = divmod(number, 600 * fps - 9 * left_out)
        minutes = max(0, rest - left_out) // (60 * fps - left_out)
        number += left_out * (9 * tens + minutes)
    seconds, frames = divmod(number, fps)
    minutes, second = divmod(seconds, 60)
    separator = ";" if drops else ":"
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}:{second:02}{separator}{frames:02}"
