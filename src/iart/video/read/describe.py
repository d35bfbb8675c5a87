"""What is known of a source, for people."""

from fractions import Fraction

from iart.pictures.color_tags import color_name
from iart.video.dvd.disc import find_title, find_titles
from iart.video.frame import Loss, Track, VideoInfo


def describe(info: VideoInfo) -> list[tuple[str, str]]:
    """Labelled lines for `iart info`: ("size", "720x576 …"), ("rate", …), one line per track."""
    alpha = ", alpha" if info.alpha else ""
    lines = [
        ("file", str(info.path)),
        *_titles(info),
        ("container", info.container),
        ("video", f"{info.codec}, {info.pixel_format}, {info.bit_depth} bits{alpha}"),
        ("size", _size(info)),
        ("rate", _rate(info)),
        ("duration", _duration(info)),
        ("colour", color_name(info.color)),
    ]
    if info.rotation:
        lines.append(("rotation", f"{info.rotation} degrees clockwise, applied"))
    lines += _marks(info)
    if info.fields is not None:
        done = f" → {info.treatment}" if info.treatment else ""
        lines.append(("fields", info.fields.describe() + done))
    elif info.interlaced:
        lines.append(("fields", "marked as interlaced, not looked at"))
    if info.closed_captions:
        lines.append(("captions", "closed captions inside the video"))
    lines += [
        (f"track {track.index}", _track(track))
        for track in info.tracks
        if track.index != info.stream_index
    ]
    if info.chapters:
        lines.append(("chapters", str(len(info.chapters))))
    return lines


def describe_loss(loss: Loss) -> str:
    """One line: "0:01:02.500 – 0:01:03.120: Invalid data found …"."""
    until = "the end" if loss.end_seconds is None else clock_time(loss.end_seconds)
    return f"{clock_time(loss.start_seconds)} – {until}: {loss.reason}"


def clock_time(seconds: Fraction) -> str:
    """Hours, minutes, seconds and milliseconds, as players show them."""
    sign = "-" if seconds < 0 else ""
    milliseconds = round(abs(seconds) * 1000)
    whole, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(whole, 60)
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{second:02}.{rest:03}"


def _titles(info: VideoInfo) -> list[tuple[str, str]]:
    """Which title of a DVD this is, and how others are asked for."""
    title = find_title(info.path)
    if title is None or not title.is_set:
        return []
    lines = [("title", f"{len(title.files)} VOB, {title.size_bytes / 1e9:.2f} GB")]
    others = [other for other in find_titles(info.path.parent) if other.files != title.files]
    if others:
        names = ", ".join(
            f"{other.files[0].name} ({other.size_bytes / 1e9:.2f} GB)" for other in others
        )
        lines.append(("others", f"pass one of these for another title: {names}"))
    return lines


def _size(info: VideoInfo) -> str:
    size = f"{info.width}x{info.height}"
    if info.sample_aspect == 1:
        return size
    shown = Fraction(info.width, info.height) * info.sample_aspect
    ratio = shown.limit_denominator(100)
    return (
        f"{size}, pixels {info.sample_aspect.numerator}:{info.sample_aspect.denominator}"
        f" (shown as {ratio.numerator}:{ratio.denominator})"
    )


def _marks(info: VideoInfo) -> list[tuple[str, str]]:
    """What the header says of the pictures beside colours."""
    marks, lines = info.marks, []
    if info.stored_size is not None:
        width, height = info.stored_size
        lines.append(("cropping", f"of {width}x{height} as the file asks, applied"))
    if marks.dolby_vision is not None:
        lines.append(("dolby vision", f"profile {marks.dolby_vision.profile}"))
    if marks.spherical is not None:
        lines.append(("spherical", marks.spherical.projection))
    if marks.stereo is not None:
        lines.append(("stereo", marks.stereo.replace("_", " ")))
    return lines


def _rate(info: VideoInfo) -> str:
    exact = f" ({info.rate})" if info.rate.denominator != 1 else ""
    number = f"{float(info.rate):.3f}".rstrip("0").rstrip(".")
    varies = " on average, varies" if info.variable_rate else ""
    return f"{number} frames/s{exact}{varies}"


def _duration(info: VideoInfo) -> str:
    count = "unknown" if info.frame_count is None else str(info.frame_count)
    length = "unknown" if info.duration_seconds is None else clock_time(info.duration_seconds)
    return f"{length} ({count} {'frame' if info.frame_count == 1 else 'frames'})"


def _track(track: Track) -> str:
    parts = [track.kind, track.codec, track.language, track.details, track.title]
    flags = f"({', '.join(track.disposition)})" if track.disposition else None
    return " · ".join(part for part in [*parts, flags] if part)
