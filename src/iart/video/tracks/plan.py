"""What is to become of each track: the plan, its metadata, and its time code."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction

from av.stream import Disposition, Stream

from iart.errors import OptionsError
from iart.video.write.codecs import Container

KINDS = ("audio", "subtitle", "attachment", "data", "video")
"""What `drop` takes besides stream indices; "video" is every video but the one that is read."""

_NO_DISPOSITION = Disposition(0)


@dataclass(frozen=True)
class TrackPlan:
    """What happens to one track.

    Attributes:
        index: of the stream in the source.
        kind: one of `KINDS`.
        codec: FFmpeg's name of the source's codec.
        target: "copy", "attach" (into the header), or the codec that it is converted to.
        metadata: for the output's stream.
        disposition: flags (default, forced …).
        sample_rate: of sound, else 0.
        ticks: units per second in which the times of a further video count, else 0.
        start_seconds: of sound, if the source states it.
        attached: payload, for `target` "attach".
    """

    index: int
    kind: str
    codec: str
    target: str
    metadata: dict[str, str] = field(default_factory=dict)
    disposition: Disposition = _NO_DISPOSITION
    sample_rate: int = 0
    ticks: int = 0
    start_seconds: Fraction | None = None
    attached: bytes = b""

    @property
    def name(self) -> str:
        """For messages: `subtitle 3 (subrip, ger)`."""
        language = self.metadata.get("language")
        return f"{self.kind} {self.index} ({', '.join(filter(None, (self.codec, language)))})"


@dataclass(frozen=True)
class TrackPlans:
    """What happens to everything in the source but its pictures.

    Attributes:
        carried: in the source's order.
        notes: conversions and losses, one line each.
        video_metadata: for the output's video stream.
    """

    carried: tuple[TrackPlan, ...] = ()
    notes: tuple[str, ...] = ()
    video_metadata: dict[str, str] = field(default_factory=dict)


def kind_of(stream: Stream) -> str:
    """One of `KINDS`; a cover picture counts as an attachment."""
    if Disposition.attached_pic in stream.disposition:
        return "attachment"
    return stream.type if stream.type in KINDS else "data"


def codec_of(stream: Stream) -> str:
    """FFmpeg's name of the codec ("subrip"), not of its decoder ("srt")."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"


def check_drop(drop: Collection[str], count: int, video_index: int) -> None:
    """Refuse to drop what is not there.

    Args:
        drop: kinds or stream indices.
        count: streams of the source; 0 for images.
        video_index: stream index of the video that is enlarged.

    Raises:
        OptionsError: another name, no such stream, or the video that is enlarged.
    """
    for name in drop:
        if name in KINDS:
            continue
        if name not in map(str, range(count)):
            raise OptionsError(
                f"cannot drop {name!r}: pass one of {', '.join(KINDS)} or a stream index below"
                f" {count}"
            )
        if int(name) == video_index:
            raise OptionsError(f"cannot drop stream {name}: it is the video that is enlarged")


_FOREIGN_TAGS = ("encoder", "duration", "vendor_id", "major_brand", "minor_version")
_FOREIGN_TAGS += ("compatible_brands",)
STATISTICS = ("bps", "number_of_frames", "number_of_bytes", "_statistics_", "duration-")

# QuickTime knows languages by number; FFmpeg finds the number by one of two ISO codes only
_QUICKTIME_LANGUAGES = {
    "fre": "fra", "deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice",
    "zho": "chi", "ces": "cze", "ron": "rum", "fas": "per", "slk": "slo",
}  # fmt: skip


def stream_metadata(given: dict[str, str], container: Container) -> dict[str, str]:
    """Metadata as the output's stream takes them; what describes the old file itself goes.

    Matroska shouts its keys, and MP4 has the title under another key.
    """
    kept = {key: value for key, value in given.items() if not key.lower().startswith(_FOREIGN_TAGS)}
    lowered = {key.lower(): key for key in kept}
    for key in ("language", "title", "timecode"):
        if key in lowered:
            kept[key] = kept.pop(lowered[key])
    name = lowered.get("name")
    if name is not None and "title" not in kept:
        kept["title"] = kept.pop(name)
    language = kept.get("language", "")
    if container.name == "mov" and language in _QUICKTIME_LANGUAGES:
        kept["language"] = _QUICKTIME_LANGUAGES[language]
    return kept


def container_metadata(given: dict[str, str]) -> dict[str, str]:
    """Metadata of the whole file, without what described the old container.

    A time code belongs to the video, see `TrackPlans.video_metadata`.
    """
    left_out = (*_FOREIGN_TAGS, "timecode")
    return {key: value for key, value in given.items() if not key.lower().startswith(left_out)}


_TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d+)")
_DROPPING = (30, 60)
"""Whole frames per second at which a time code can leave out numbers to keep up with the clock."""


def move_timecode(
    label: str, elapsed: Fraction, given_rate: Fraction, rate: Fraction
) -> tuple[str, tuple[str, ...]]:
    """The time code ("01:00:00:00") of the first frame written, and notes on what is not kept.

    Args:
        label: of the source's first frame; another separator than ":" before the frames marks
            drop-frame counting, which is kept at 29.97 and 59.94 frames per second.
        elapsed: seconds from there to where the output starts.
        given_rate: frames per second of the source.
        rate: frames per second of the output.
    """
    found = _TIMECODE.fullmatch(label.strip())
    given_fps, fps = round(given_rate), round(rate)
    if found is None or not given_fps or not fps:
        return label, ()
    hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
    is_dropping = found[4] != ":"
    drops = is_dropping and fps in _DROPPING and rate.denominator != 1
    minutes += 60 * hours
    number = (minutes * 60 + seconds) * fps + frames * fps // given_fps
    if drops:
        number -= _dropped(fps) * (minutes - minutes // 10)
    moved = _timecode(number + math.ceil(elapsed * rate), fps, drops)
    if is_dropping and not drops:
        return moved, (
            f"timecode: drop-frame {label} goes on as {moved}: without drop frames, which"
            f" {float(rate):.3f} frames/s do not have",
        )
    return moved, ()


def _dropped(fps: int) -> int:
    """Numbers that are left out at the start of every minute but each tenth."""
    return fps // 15


def _timecode(number: int, fps: int, drops: bool) -> str:
    if drops:
        left_out = _dropped(fps)
        tens, rest = divmod(number, 600 * fps - 9 * left_out)
        minutes = max(0, rest - left_out) // (60 * fps - left_out)
        number += left_out * (9 * tens + minutes)
    seconds, frames = divmod(number, fps)
    minutes, second = divmod(seconds, 60)
    separator = ";" if drops else ":"
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}:{second:02}{separator}{frames:02}"
