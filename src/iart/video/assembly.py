"""Puts an output together: video stream, tracks, chapters, metadata."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from iart.video.codecs import Encoding
from iart.video.copier import TrackCopier
from iart.video.dry_mux import Shape, add_video, explained
from iart.video.frame import VideoInfo
from iart.video.hdr import read_mastering
from iart.video.matroska import amend, display_size
from iart.video.plans import TrackPlans, container_metadata
from iart.video.tracks import open_source, plan_tracks

_CLOCK_JUMPS = 0x200  # FFmpeg's AVFMT_TS_DISCONT: times count from anywhere (MPEG-TS, DVD)


@dataclass(frozen=True)
class Assembly:
    """Everything that is decided about an output before its first frame.

    Attributes:
        encoding: of the video.
        shape: of the video.
        source: file that the tracks come from; None if there are none.
        tracks: what becomes of them.
        metadata: of the whole file.
        chapters: as PyAV takes them.
        shift: seconds added to all times.
        start_seconds: tracks are carried from this time of the source on; None from their start.
        end_seconds: and up to here; None to their end.
        delays: seconds by which tracks are late in Matroska's blocks, by source index; stated in
            the track's header, so that players take them back.
        options: of the muxer.
    """

    encoding: Encoding
    shape: Shape
    source: Path | None = None
    tracks: TrackPlans = field(default_factory=TrackPlans)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Any, ...] = ()
    shift: Fraction = Fraction(0)
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None
    delays: dict[int, Fraction] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_matroska(self) -> bool:
        """Whether `iart.video.matroska` applies."""
        return self.encoding.container.muxer in ("matroska", "webm")


def with_tracks(
    assembly: Assembly, like: VideoInfo, drop: Collection[str]
) -> tuple[Assembly, list[str]]:
    """The assembly with everything that the source has besides its pictures, and notes.

    Raises:
        OutputError: tracks that the container cannot hold; names all of them.
        OptionsError: `drop` names something that is not there.
    """
    encoding = assembly.encoding
    with explained(f"cannot read '{like.path}' again"), open_source(like.path) as source:
        tracks = plan_tracks(source, like.stream_index, encoding.container, drop)
        cut = assembly.start_seconds is not None
        shift = assembly.shift if cut else _shift(source, tracks, like)
        metadata = container_metadata(source.metadata)
        chapters = _chapters(source, shift, assembly.end_seconds)
    light: dict[str, str] = {}
    if like.bit_depth > 8:
        with explained(f"cannot read '{like.path}' again"), open_source(like.path) as source:
            light = read_mastering(source, like.stream_index).encoder_options(encoding.encoder)
    notes = list(tracks.notes)
    if shift and not cut:
        notes.append(
            f"times: the source counts from {float(-shift):.3f} s, the output from 0; all tracks"
            " move alike"
        )
    changed = replace(
        assembly,
        encoding=replace(encoding, options=encoding.options | light),
        source=like.path,
        tracks=tracks,
        metadata=metadata,
        chapters=chapters,
        shift=shift,
    )
    return changed, notes


def _shift(source: InputContainer, tracks: TrackPlans, like: VideoInfo) -> Fraction:
    """Seconds to add to all times: 0, unless the source's clock starts anywhere."""
    if not source.format.flags & _CLOCK_JUMPS:
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
        start, stop = max(0, chapter["start"] + ticks), last + ticks
        if stop > start or (end is None and not shift):
            shifted.append({**chapter, "start": start, "end": max(0, stop)})
    return tuple(shifted)


def assemble(
    assembly: Assembly, file: Any, shape: Shape | None = None
) -> tuple[OutputContainer, VideoStream, TrackCopier | None]:
    """Open the output, add all streams, and write the header.

    Args:
        assembly: to be put together.
        file: name or file object.
        shape: instead of the assembly's own, for rehearsals.

    Raises:
        OutputError: an encoder or the container refuses.
    """
    encoding, container = assembly.encoding, assembly.encoding.container
    shape = shape or assembly.shape
    with explained(f"cannot write {container.name}"):
        output = av.open(
            file,
            "w",
            format=container.muxer,
            # no version, no time of day, no random numbers: the same work gives the same bytes
            container_options={"fflags": "+bitexact"} | assembly.options,
            metadata_errors="surrogateescape",
        )
        output.metadata.update(assembly.metadata)
        video = add_video(output, encoding, shape)
        video.metadata.update(assembly.tracks.video_metadata)
        video.disposition = Disposition.default
        copier = None
        if assembly.source is not None and assembly.tracks.carried:
            copier = TrackCopier(
                open_source(assembly.source),
                output,
                assembly.tracks.carried,
                assembly.shift,
                assembly.delays,
                start_seconds=assembly.start_seconds,
                end_seconds=assembly.end_seconds,
            )
        if assembly.chapters:
            output.set_chapters(list(assembly.chapters))
        output.start_encoding()
    return output, video, copier


def amend_header(assembly: Assembly, path: Path) -> bool:
    """Tell a finished Matroska file what its muxer could not be told; False if it has no room."""
    if not assembly.is_matroska:
        return True
    shape = assembly.shape
    size = None
    if shape.sample_aspect != 1:
        size = display_size(shape.width, shape.height, shape.sample_aspect)
    order = [plan.index for plan in assembly.tracks.carried]
    # Matroska counts tracks from 1, the video is the first
    delays = {order.index(i) + 2: delay for i, delay in assembly.delays.items()}
    return not (size or delays) or amend(path, display_size=size, delays=delays)
