"""Decides everything about a video file before its first frame, and tries it in memory.

plan_film(path, like=info) → FilmPlan       refuses what can be refused, in seconds
Muxer(plan, part)                           encoded pictures in; sound and the rest come along
"""

import struct
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, Unpack

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.pictures.color import color_for
from iart.video.frame import Marks, Spherical, VideoInfo
from iart.video.read.timing import counts_from_anywhere
from iart.video.tracks.choose import SourceStart, open_source, plan_tracks, read_start
from iart.video.tracks.plan import TrackPlans, container_metadata, move_timecode
from iart.video.write.codecs import choose_encoding, container_for, reductions
from iart.video.write.encoder import Encode, Shape, explained
from iart.video.write.matroska import chapters_not_read
from iart.video.write.muxer import FilmPlan, muxer_options
from iart.video.write.trial import check_codec, check_video, try_film

_PICTURES_OF_TEXT = ("hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub")
"""Subtitles that are pictures with a place of their own."""


class EncodingOptions(TypedDict, total=False):
    """How the video is encoded; what is left out, or None, is chosen.

    Attributes:
        codec: see `iart.video.write.codecs.CODECS`, or the name of an encoder of FFmpeg; by
            container and bit depth if not given.
        crf: constant rate factor of the codec; smaller is better.
        preset: of the codec.
        pixel_format: FFmpeg's name; by codec and bit depth if not given.
    """

    codec: str | None
    crf: int | None
    preset: str | None
    pixel_format: str | None


def plan_film(
    path: str | Path,
    *,
    like: VideoInfo,
    scale: int = 4,
    drop: Collection[str] = (),
    start_seconds: Fraction | None = None,
    end_seconds: Fraction | None = None,
    **encoding: Unpack[EncodingOptions],
) -> FilmPlan:
    """Decide everything about an output, and try it in memory.

    Args:
        path: ends in .mp4, .mkv, .mov or .webm.
        like: the source: tracks, times, colour and shape of pixels are taken from it.
        scale: size of the frames that will be written over that of the source.
        drop: tracks to leave out: "audio", "subtitle", "attachment", "data", "video" (every
            other than the one that is enlarged), or a stream index of the source.
        start_seconds: the output begins with this time of the source, if not with its own start.
        end_seconds: tracks are carried up to here; None to their end.
        encoding: see `EncodingOptions`.

    Raises:
        OutputError: the codec or a track; says which and what to do.
        OptionsError: an unknown codec, pixel format or `drop`.
    """
    path = Path(path)
    chosen = choose_encoding(container_for(path), like.bit_depth, alpha=like.alpha, **encoding)
    check_codec(chosen)
    is_asked_for = encoding.get("pixel_format") is not None
    reduced = () if is_asked_for else reductions(chosen, like.pixel_format)
    profile = ()
    if like.profile:
        profile = ("colour: the images' ICC profile is lost; their numbers are taken as sRGB",)
    shape = Shape(
        like.width * scale,
        like.height * scale,
        like.rate,
        like.time_base,
        color_for(chosen.pixel_format, like.color),
        like.sample_aspect,
    )
    shift = -((start_seconds or Fraction(0)) // like.time_base) * like.time_base
    encode = Encode(chosen, shape, like.color, shift)
    plan = FilmPlan(
        path,
        encode,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        options=muxer_options(encode, TrackPlans()),
        notes=like.notes + chosen.notes + reduced + profile,
    )
    start = None
    with ExitStack() as stack:
        if like.container != "images" and like.tracks:
            with explained(f"cannot read '{like.path}' again"):
                source = stack.enter_context(open_source(like.path))
                start = read_start(source, like.stream_index, drop)
        with suppress(OutputError):
            return _tried(plan, start, like)
        # which part is to blame?
        check_video(encode)
        return _tried(plan, start, like, alone=True)


def _tried(
    plan: FilmPlan, start: SourceStart | None, like: VideoInfo, *, alone: bool = False
) -> FilmPlan:
    """The plan with everything that the source has besides its pictures, tried.

    Args:
        plan: of the video.
        start: of the source; None if there is nothing besides.
        like: the source.
        alone: whether to try each track alone, too.

    Raises:
        OutputError: tracks that the container cannot hold; an encoder or the container refuses.
    """
    if start is not None:
        tracks = plan_tracks(start, plan.encode.encoding.container, tried=alone)
        plan = _with_tracks(plan, start, tracks, like)
    plan = try_film(plan, start)
    if like.closed_captions:
        lost = "closed captions: those inside the video are lost (they cannot be passed on yet)"
        plan = replace(plan, notes=(*plan.notes, lost))
    return plan


def _with_tracks(
    plan: FilmPlan, start: SourceStart, tracks: TrackPlans, like: VideoInfo
) -> FilmPlan:
    source, encode = start.container, plan.encode
    notes = [*plan.notes, *tracks.notes]
    if plan.start_seconds is None:
        encode = replace(encode, shift=_shift(source, tracks, like))
        if encode.shift:
            notes.append(
                f"times: the source counts from {float(-encode.shift):.3f} s, the output from 0;"
                " all tracks move alike"
            )
    spherical, stereo, lost = _marks(like.marks, plan)
    notes += lost
    if not like.marks.valid:
        notes += [
            f"{track.name}: placed for the whole picture, not for the part that was cut out"
            for track in tracks.carried
            if track.codec in _PICTURES_OF_TEXT
        ]
    if source.chapters() and "matroska" in source.format.name:
        notes += chapters_not_read(like.path)
    metadata = {k: v for k, v in tracks.video_metadata.items() if k != "stereo_mode"}
    if "timecode" in metadata:
        metadata["timecode"], moved = _moved_timecode(plan, start, metadata["timecode"])
        notes += moved
    if start.picture is not None:
        mastering = mastering_of(start.picture)
        light = mastering.encoder_options(encode.encoding.encoder)
        if mastering != Mastering() and not light:
            notes.append(
                f"light: mastering display and content light are lost ({encode.encoding.encoder}"
                " cannot write them; x264, x265 and svt-av1 can)"
            )
        options = encode.encoding.options
        joined = {k: ":".join([options[k], v]) if k in options else v for k, v in light.items()}
        encoding = replace(encode.encoding, options=options | joined)
        encode = replace(encode, encoding=encoding)
    chapters = _chapters(source, encode.shift, plan.end_seconds)
    return replace(
        plan,
        encode=encode,
        source=like.path,
        video_index=like.stream_index,
        tracks=replace(tracks, video_metadata=metadata | stereo),
        spherical=spherical,
        metadata=container_metadata(source.metadata),
        chapters=chapters,
        options=muxer_options(encode, tracks, chapters),
        notes=tuple(notes),
    )


def _marks(
    marks: Marks, plan: FilmPlan
) -> tuple[Spherical | None, dict[str, str], tuple[str, ...]]:
    """The spherical mark and metadata of the stereo one that are carried, and notes on the rest."""
    if not marks.valid:
        return None, {}, marks.lost("a part of the picture was cut out")
    if not plan.is_matroska:
        name = plan.encode.encoding.container.name
        return None, {}, marks.lost(f"PyAV cannot write it to {name}; mkv and webm keep it")
    if marks.stereo == "other":
        lost = replace(marks, spherical=None).lost("Matroska has no word for it")
        return marks.spherical, {}, lost
    return marks.spherical, {"stereo_mode": marks.stereo} if marks.stereo else {}, ()


def _moved_timecode(plan: FilmPlan, start: SourceStart, label: str) -> tuple[str, tuple[str, ...]]:
    """The time code of the output's first frame, and notes on it."""
    video = start.video
    assert isinstance(video, VideoStream)
    first = (video.start_time or 0) * (video.time_base or Fraction(1))
    elapsed = max(Fraction(0), (plan.start_seconds or first) - first)
    rate = plan.encode.shape.rate
    given_rate = video.average_rate or video.guessed_rate or rate
    return move_timecode(label, elapsed, given_rate, rate)


def _shift(source: InputContainer, tracks: TrackPlans, like: VideoInfo) -> Fraction:
    """Seconds to add to all times: 0, unless the source's clock starts anywhere."""
    if not counts_from_anywhere(source.format.name):
        return Fraction(0)
    starts = [plan.start_seconds for plan in tracks.carried if plan.kind == "audio"]
    first = min([like.start_seconds, *(start for start in starts if start is not None)])
    # whole ticks of the video's clock, so that its times stay exact
    return -(first // like.time_base) * like.time_base


def _chapters(source: InputContainer, shift: Fraction, end: Fraction | None) -> tuple[Any, ...]:
    """Those that the output shows, in its times."""
    shifted = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1)
        ticks = round(shift / base)
        last = chapter["end"] if end is None else min(chapter["end"], round(end / base))
        begin, stop = max(0, chapter["start"] + ticks), last + ticks
        if stop > begin or (end is None and not shift):
            shifted.append({**chapter, "start": begin, "end": max(0, stop)})
    return tuple(shifted)


@dataclass(frozen=True)
class Mastering:
    """Mastering display and content light, as HDR10 states them: for what a picture was graded.

    PyAV cannot hand side data to an encoder; x264, x265 and SVT-AV1 take the same by option.

    Attributes:
        chromaticities: x, y of red, green, blue and white; empty if not stated.
        luminance: brightest and darkest in cd/m²; empty if not stated.
        content_light: brightest pixel and brightest mean in cd/m²; empty if not stated.
    """

    chromaticities: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance: tuple[Fraction, ...] = ()
    content_light: tuple[int, ...] = ()

    def encoder_options(self, encoder: str) -> dict[str, str]:
        """Options that make the encoder write it; empty for other encoders."""
        display = bool(self.chromaticities and self.luminance)
        light = ",".join(map(str, self.content_light))
        if encoder == "libsvtav1":
            parts = [f"mastering-display={self._points(_decimal)}"] if display else []
            parts += [f"content-light={light}"] if light else []
            return {"svtav1-params": ":".join(parts)} if parts else {}
        if encoder == "libx265":
            parts = [f"master-display={self._points(_steps)}"] if display else []
            parts += [f"max-cll={light}"] if light else []
            return {"x265-params": ":".join(parts)} if parts else {}
        if encoder == "libx264":
            parts = [f"mastering-display={self._points(_steps)}"] if display else []
            parts += [f"cll={light}"] if light else []
            return {"x264-params": ":".join(parts)} if parts else {}
        return {}

    def _points(self, number: Callable[[Fraction, int], object]) -> str:
        red, green, blue, white = self.chromaticities
        named = zip(["G", "B", "R", "WP"], (green, blue, red, white), strict=True)
        points = "".join(f"{name}({number(x, 50000)},{number(y, 50000)})" for name, (x, y) in named)
        brightest, darkest = (number(value, 10000) for value in self.luminance)
        return f"{points}L({brightest},{darkest})"


def mastering_of(frame: VideoFrame) -> Mastering:
    """What a frame states; an empty `Mastering` if nothing."""
    display: tuple = ((), ())
    light: tuple[int, ...] = ()
    data: Any
    for data in frame.side_data:
        name = data.type.name
        if name == "MASTERING_DISPLAY_METADATA":
            display = _parse_display(bytes(data))
        elif name == "CONTENT_LIGHT_LEVEL":
            light = struct.unpack_from("2I", bytes(data))
    return Mastering(display[0], display[1], light)


def _parse_display(data: bytes) -> tuple[tuple, tuple]:
    """FFmpeg's structure: ten fractions of two integers, then what of it is set."""
    numbers = struct.unpack_from("22i", data)
    fractions = [
        Fraction(a, b) if b else Fraction(0)
        for a, b in zip(numbers[0:20:2], numbers[1:20:2], strict=True)
    ]
    points = tuple(zip(fractions[0:8:2], fractions[1:8:2], strict=True))
    has_points, has_luminance = numbers[20], numbers[21]
    darkest, brightest = fractions[8], fractions[9]
    return (points if has_points else ()), ((brightest, darkest) if has_luminance else ())


def _steps(value: Fraction, per_unit: int) -> int:
    return round(value * per_unit)


def _decimal(value: Fraction, per_unit: int) -> str:
    return f"{round(value * per_unit) / per_unit:.5f}"
