"""Tries an output in memory, before the real work starts.

The trial is the same file with two blank frames and the first packets of each track, read back.
What does not come back is worked around or told to the user, so that a job of hours cannot fail at
its first or last packet for a reason that was known before.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.video.tracks.choose import SourceStart, came_back, refusal
from iart.video.tracks.convert import convert_start
from iart.video.tracks.plan import TrackPlan, kind_of
from iart.video.write.codecs import Encoding, fitting_codecs, held_codecs, is_nvenc
from iart.video.write.encoder import Encode, explained
from iart.video.write.matroska import delayed_tracks
from iart.video.write.muxer import DecodeTimes, FilmPlan, amend_header, open_output

_MOST_DELAYS = 5
_CHAPTER_SLACK = Fraction(1, 100)
"""Seconds by which chapters may move by rounding."""

_SHOWN = ("forced", "comment", "hearing_impaired", "visual_impaired", "original", "dub", "lyrics")


@dataclass(frozen=True)
class _Found:
    """What came back.

    Attributes:
        file: as it was written.
        lost_keys: metadata of the file that are not there.
        losses: of tracks and chapters, one line each.
    """

    file: io.BytesIO
    lost_keys: list[str]
    losses: list[str]


def check_codec(encoding: Encoding) -> None:
    """Ask FFmpeg's tables whether the container holds the codec.

    Raises:
        OutputError: it does not; names the codecs that fit.
    """
    container = encoding.container
    if encoding.encoder not in held_codecs(container):
        fitting = ", ".join(fitting_codecs(container))
        raise OutputError(f"{container.name} cannot hold {encoding.encoder}; it holds {fitting}")


def check_video(encode: Encode) -> None:
    """Try the video alone.

    Raises:
        OutputError: the codec does not fit into the container, or the encoder refuses the options;
            says what to do.
    """
    encoding = encode.encoding
    check_codec(encoding)
    holder = f"{encoding.container.name} cannot hold"
    try:
        with explained(f"{holder} {encoding.encoder} ({encoding.pixel_format})"):
            _play(FilmPlan(Path(), encode), None)
    except OutputError as error:
        raise OutputError(_odd(encode) or str(error)) from error


def try_film(plan: FilmPlan, start: SourceStart | None) -> FilmPlan:
    """Try the whole; what can be mended is, the rest is noted.

    Args:
        plan: to be tried.
        start: of the source that the tracks come from.

    Returns:
        The plan to follow.

    Raises:
        OutputError: an encoder or the container refuses, or tracks do not come back.
    """
    name = plan.encode.encoding.container.name
    with explained(f"cannot write {name}"):
        found = _play(plan, start)
        if found.lost_keys and "movflags" in plan.options:
            # the other of MP4's two ways to store metadata takes any key, but no cover picture
            options = plan.options | {"movflags": plan.options["movflags"] + "+use_metadata_tags"}
            other = replace(plan, options=options)
            with suppress(OutputError):
                found_other = _play(other, start)
                if len(found_other.lost_keys) < len(found.lost_keys):
                    plan, found = other, found_other
    if plan.is_matroska and start is not None and plan.start_seconds is None:
        plan = replace(plan, delays=_delays(plan, start, delayed_tracks(found.file)))
    if plan.spherical is not None and not amend_header(plan, found.file):
        lost = "spherical: the mark is lost (the header has no room for it)"
        plan = replace(plan, spherical=None, notes=(*plan.notes, lost))
    if not amend_header(plan, found.file):
        raise OutputError(
            f"{name}: its header has no room for the shape of pixels and the start of sound; pass"
            " another container, or --square-pixels"
        )
    losses = found.losses
    if found.lost_keys:
        losses = [f"metadata: {name} has no place for {', '.join(found.lost_keys)}", *losses]
    return replace(plan, notes=(*plan.notes, *losses))


def _play(plan: FilmPlan, start: SourceStart | None) -> _Found:
    shape = plan.encode.shape
    small = replace(shape, width=128 + shape.width % 2, height=96 + shape.height % 2)
    if is_nvenc(plan.encode.encoding.encoder):  # which has a smallest and a largest size
        small = shape
    # the samples are the first packets of the file, wherever the output begins
    shift = plan.encode.shift if plan.start_seconds is None else Fraction(0)
    options = dict(plan.options)
    if "movflags" in options:
        # not in memory: it reads the file again by its name
        options["movflags"] = options["movflags"].replace("+faststart", "") or "0"
        # so that each track is known again: those without packets are not written
        options["use_stream_ids_as_track_ids"] = "1"
    trial = replace(plan, encode=replace(plan.encode, shape=small, shift=shift), options=options)
    file, source = io.BytesIO(), None if start is None else start.container
    output, video, converters = open_output(trial, file, source)
    with output:
        output.mux(_blank_packets(video, trial.encode))
        for converter in converters:
            output.mux(convert_start(converter, _packets(start, converter.plan)))
    file.seek(0)
    with av.open(file, "r", metadata_errors="surrogateescape") as back:
        return _Found(file, _lost_keys(plan, back), list(_losses(plan, start, back)))


def _packets(start: SourceStart | None, plan: TrackPlan) -> list[Packet]:
    return [] if start is None else start.packets.get(plan.index, [])


def _blank_packets(stream: VideoStream, encode: Encode) -> list[Packet]:
    """Two encoded frames of nothing in particular."""
    shape, pixel_format = encode.shape, encode.encoding.pixel_format
    times = DecodeTimes(shape.time_base)
    step = max(1, round(1 / shape.rate / shape.time_base))
    packets = []
    for index in range(2):
        frame = av.VideoFrame(shape.width, shape.height, pixel_format)
        for plane in frame.planes:
            plane.update(bytes([16 + index]) * plane.buffer_size)
        frame.pts, frame.time_base = index * step, shape.time_base
        packets += stream.encode(frame)
    return [times.mended(packet) for packet in packets + stream.encode(None)]


def _lost_keys(plan: FilmPlan, back: InputContainer) -> list[str]:
    # Matroska shouts, and has no spaces
    there = {key.lower().replace(" ", "_"): value for key, value in back.metadata.items()}
    lost = []
    for key, value in plan.metadata.items():
        name = key.lower().replace(" ", "_")
        respelled = name == "creation_time" and name in there
        if value and there.get(name) != value and not respelled:
            lost.append(key)
    return lost


def _losses(plan: FilmPlan, start: SourceStart | None, back: InputContainer) -> Iterator[str]:
    """What of chapters and tracks is lost.

    Raises:
        OutputError: pictures or tracks that are not there.
    """
    container = plan.encode.encoding.container
    yield from _chapter_losses(plan, back)
    video = next(iter(back.streams.video), None)
    timecode = plan.tracks.video_metadata.get("timecode")
    there = {} if video is None else {key.lower(): text for key, text in video.metadata.items()}
    if timecode and there.get("timecode") != timecode:
        rate = float(plan.encode.shape.rate)
        yield f"timecode: {container.name} has no place for {timecode} at {rate:.3f} frames/s"
    frames, filled = 0, set()
    for packet in back.demux():
        if packet.stream is video:
            frames += len(packet.decode())
        if packet.size:
            filled.add(packet.stream_index)
    if frames != 2:
        raise OutputError(f"{frames} of 2 frames came back")
    missing = []
    for track, found in _pairs(plan, back):
        expected = bool(_packets(start, track))
        if found is None or (expected and not came_back(track, found, found.index in filled)):
            missing.append(track)
        else:
            yield from _track_losses(track, found, container.name)
    if missing:
        raise OutputError(refusal(missing, container))


def _chapter_losses(plan: FilmPlan, back: InputContainer) -> Iterator[str]:
    name = plan.encode.encoding.container.name
    wanted, found = (
        [
            (part["start"] * (part["time_base"] or 1), part["metadata"].get("title"))
            for part in parts
        ]
        for parts in (plan.chapters, back.chapters())
    )
    if wanted and not found:
        yield f"chapters: {name} has no place for them"
        return
    moved = [abs(a - b) > _CHAPTER_SLACK for (a, _), (b, _) in zip(wanted, found, strict=False)]
    if moved[:1] == [True] and found[0][0] == 0:
        yield f"chapters: the first begins at 0 in {name}, not at {float(wanted[0][0]):.3f} s"
        moved[0] = False
    if len(found) != len(wanted) or any(moved):
        yield f"chapters: {name} does not keep the times of all of them"
    elif [title for _, title in found] != [title for _, title in wanted]:
        yield f"chapters: {name} does not keep all of their titles"


def _pairs(plan: FilmPlan, back: InputContainer) -> Iterator[tuple[TrackPlan, Stream | None]]:
    """Each track with the stream that it came back as.

    By its number, which MP4 states and Matroska counts; attachments, which have none, in order.
    """
    attachments = iter([stream for stream in back.streams if kind_of(stream) == "attachment"])
    tracks = [stream for stream in back.streams if kind_of(stream) != "attachment"]
    by_number = dict(enumerate(tracks, 1))
    if not plan.is_matroska:
        by_number = {stream.id: stream for stream in tracks}
    for track in plan.tracks.carried:
        if track.kind == "attachment":
            yield track, next(attachments, None)
        else:
            yield track, by_number.get(plan.track_numbers[track.index])


def _track_losses(plan: TrackPlan, found: Stream, container: str) -> Iterator[str]:
    there = {key.lower(): value for key, value in found.metadata.items()}
    lost = []
    language = plan.metadata.get("language", "und")
    if language != "und" and there.get("language") != language:
        lost.append(f"language {language}")
    title = plan.metadata.get("title")
    if title and title not in (there.get("title"), there.get("name"), there.get("handler_name")):
        lost.append(f"title '{title}'")
    if plan.kind in ("audio", "subtitle"):
        lost += [
            f"mark '{flag}'"
            for flag in _SHOWN
            if Disposition[flag] in plan.disposition and Disposition[flag] not in found.disposition
        ]
    if lost:
        yield f"{plan.kind} {plan.index}: {container} has no place for its {', '.join(lost)}"


def _delays(plan: FilmPlan, start: SourceStart, stated: set[int]) -> dict[int, Fraction]:
    """Run-ups of sound that the muxer does not know of, by source index.

    Sound that starts before zero (the run-up of AAC in MP4) is either stated in the header, which
    FFmpeg does for some sources, or everything else is moved later by as much.
    """
    delays: dict[int, Fraction] = {}
    for track in plan.tracks.carried:
        packets = _packets(start, track)
        if track.kind != "audio" or not packets:
            continue
        first = packets[0]
        given = first.pts if first.pts is not None else first.dts
        time = (given or 0) * (first.time_base or 0) + plan.encode.shift
        if time < 0 and plan.track_numbers[track.index] not in stated:
            delays[track.index] = -time
    # the header has room for a few; with more, everything starts later by the longest
    return delays if len(delays) <= _MOST_DELAYS else {}


def _odd(encode: Encode) -> str | None:
    """That sides are odd, which is why an encoder refuses; None if they are not."""
    shape, pixel_format = encode.shape, encode.encoding.pixel_format
    whole = f"yuv444{pixel_format[6:]}" if pixel_format.startswith("yuv4") else "yuv444p"
    parts = av.VideoFormat(pixel_format, 64, 64).components
    subsampled = any(part.width < 64 or part.height < 64 for part in parts)
    if subsampled and (shape.width % 2 or shape.height % 2):
        return (
            f"the size {shape.width}x{shape.height} is odd, and {pixel_format} stores colour for"
            f" pairs of pixels: pass an even --size, or --pixel-format {whole}"
        )
    return None
