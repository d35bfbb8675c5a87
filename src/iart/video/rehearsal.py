"""Rehearses an output in memory, before the real work starts.

The rehearsal is the same assembly with two blank frames and the first packets of each track, read
back. What does not come back is worked around or told to the user.
"""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from iart.errors import OutputError
from iart.video.assembly import Assembly, amend_header, assemble
from iart.video.dry_mux import blank_packets, explained
from iart.video.lanes import Lane, copy_packet, open_lane
from iart.video.plans import Plan, kind_of
from iart.video.tracks import open_source, refusal

_MOST_DELAYS = 5

_SHOWN = ("forced", "comment", "hearing_impaired", "visual_impaired", "original", "dub", "lyrics")


def rehearse(assembly: Assembly) -> tuple[Assembly, tuple[str, ...]]:
    """Try the assembly in memory; what can be mended is, the rest is noted.

    Returns:
        The assembly to use, and one line per loss.

    Raises:
        OutputError: an encoder or the container refuses.
    """
    if assembly.is_matroska and assembly.source is not None and assembly.start_seconds is None:
        assembly = replace(assembly, delays=_delays(assembly))
    found = _play(assembly)
    if assembly.encoding.container.is_mov and _lost_metadata(assembly, found):
        # the other of MP4's two ways to store metadata takes any key, but no cover picture
        options = dict(assembly.options)
        options["movflags"] = options.get("movflags", "") + "+use_metadata_tags"
        other = replace(assembly, options=options)
        found_other = _play(other)
        fewer = len(_lost_metadata(other, found_other)) < len(_lost_metadata(assembly, found))
        if fewer and len(found_other.streams) == len(found.streams):
            assembly, found = other, found_other
    return assembly, tuple(_losses(assembly, found))


@dataclass(frozen=True)
class _Found:
    metadata: dict[str, str]
    chapters: int
    streams: list[tuple[str, dict[str, str], Disposition]]


def _play(assembly: Assembly) -> _Found:
    shape = assembly.shape
    small = replace(shape, width=128 + shape.width % 2, height=96 + shape.height % 2)
    options = dict(assembly.options)
    if "movflags" in options:
        # not in memory: it reads the file again by its name
        options["movflags"] = options["movflags"].replace("+faststart", "") or "0"
    buffer = io.BytesIO()
    # the samples are the first packets of the file, wherever the output begins
    shift = assembly.shift if assembly.start_seconds is None else Fraction(0)
    trial = replace(assembly, options=options, shift=shift)
    output, video, copier = assemble(trial, buffer, small)
    with explained(f"cannot write {assembly.encoding.container.name}"):
        try:
            for packet in blank_packets(video, assembly.encoding.pixel_format, small):
                output.mux(packet)
            for lane in copier.lanes if copier else []:
                for packet in assembly.tracks.samples.get(lane.plan.index, []):
                    output.mux(lane.convert(copy_packet(packet)))
                output.mux(lane.flush())
        finally:
            if copier is not None:
                copier.close()
            output.close()
        _check_room(trial, buffer.getvalue())
        buffer.seek(0)
        with av.open(buffer, "r", metadata_errors="surrogateescape") as back:
            streams = [
                (kind_of(stream), dict(stream.metadata), stream.disposition)
                for stream in back.streams
            ]
            return _Found(dict(back.metadata), len(back.chapters()), streams)


def _check_room(assembly: Assembly, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial"
        path.write_bytes(content)
        if not amend_header(assembly, path):
            raise OutputError(
                f"{assembly.encoding.container.name}: its header has no room for the shape of"
                " pixels and the start of sound; pass another container, or --square-pixels"
            )


def _lost_metadata(assembly: Assembly, found: _Found) -> list[str]:
    # Matroska shouts, and has no spaces
    there = {key.lower().replace(" ", "_"): value for key, value in found.metadata.items()}
    lost = []
    for key, value in assembly.metadata.items():
        name = key.lower().replace(" ", "_")
        respelled = name == "creation_time" and name in there
        if value and there.get(name) != value and not respelled:
            lost.append(key)
    return lost


def _losses(assembly: Assembly, found: _Found) -> Iterator[str]:
    name = assembly.encoding.container.name
    lost = _lost_metadata(assembly, found)
    if lost:
        yield f"metadata: {name} has no place for {', '.join(lost)}"
    if assembly.chapters and not found.chapters:
        yield f"chapters: {name} has no place for them"
    tracks = [stream for stream in found.streams if stream[0] != "data"][1:]
    attached = [stream for stream in tracks if stream[0] == "attachment"]
    others = [stream for stream in tracks if stream[0] != "attachment"]
    missing = []
    for plan in assembly.tracks.carried:
        queue = attached if plan.kind == "attachment" else others
        if queue:
            yield from _track_losses(plan, queue.pop(0), name)
        else:
            missing.append(plan)
    if missing:
        raise OutputError(refusal(missing, assembly.encoding.container))


def _track_losses(
    plan: Plan, found: tuple[str, dict[str, str], Disposition], container: str
) -> Iterator[str]:
    _, metadata, disposition = found
    there = {key.lower(): value for key, value in metadata.items()}
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
            if Disposition[flag] in plan.disposition and Disposition[flag] not in disposition
        ]
    if lost:
        yield f"{plan.kind} {plan.index}: {container} has no place for its {', '.join(lost)}"


def _delays(assembly: Assembly) -> dict[int, Fraction]:
    """Run-ups of sound that the muxer does not know of, by source index.

    Sound that starts before zero (the run-up of AAC in MP4) is either stated in the header, which
    FFmpeg does for some sources, or everything else is moved later by as much. Which of them
    happens shows when the track is written alone.
    """
    assert assembly.source is not None
    delays: dict[int, Fraction] = {}
    with open_source(assembly.source) as source:
        streams = list(source.streams)
        for plan in assembly.tracks.carried:
            packets = assembly.tracks.samples.get(plan.index, [])
            if plan.kind != "audio" or not packets:
                continue
            first = packets[0]
            given = first.pts if first.pts is not None else first.dts
            start = (given or 0) * (first.time_base or 0) + assembly.shift
            if start >= 0:
                continue
            if _start_alone(assembly, plan, streams[plan.index], packets) >= 0:
                delays[plan.index] = -start
    # the header has room for a few; with more, everything starts later by the longest
    return delays if len(delays) <= _MOST_DELAYS else {}


def _start_alone(assembly: Assembly, plan: Plan, stream: Stream, packets: list[Packet]) -> Fraction:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=assembly.encoding.container.muxer) as output:
        lane: Lane = open_lane(plan, stream, output, assembly.shift)
        output.start_encoding()
        for packet in packets:
            output.mux(lane.convert(copy_packet(packet)))
    buffer.seek(0)
    back: InputContainer
    with av.open(buffer, "r") as back:
        for packet in back.demux(audio=0):
            if packet.pts is not None and packet.time_base is not None:
                return packet.pts * packet.time_base
    return Fraction(0)
