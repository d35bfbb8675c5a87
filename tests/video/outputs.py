"""What writer tests share: a source's description without the reader, frames, and what came out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.stream import Disposition

from iart.pictures.color import Color
from iart.video.frame import Frame, Track, VideoInfo

BT601 = Color(6, 6, 6, full_range=False)


def describe(path: Path, **more) -> VideoInfo:
    """`VideoInfo` of a file by its header alone, 64×48 as written unless `more` says otherwise."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream: Any = next(
            s for s in container.streams.video if Disposition.attached_pic not in s.disposition
        )
        start = (stream.start_time or 0) * stream.time_base
        tracks = tuple(Track(s.index, s.type, "?") for s in container.streams)
        values = {
            "path": path,
            "container": container.format.name,
            "codec": stream.codec_context.name,
            "width": stream.width,
            "height": stream.height,
            "rate": stream.average_rate or Fraction(25),
            "time_base": stream.time_base,
            "frame_count": None,
            "duration_seconds": None,
            "start_seconds": start,
            "pixel_format": stream.pix_fmt,
            "bit_depth": max(c.bits for c in stream.format.components),
            "color": BT601,
            "tracks": tracks,
            "stream_index": stream.index,
        }
    return VideoInfo(**(values | more))


def images(folder: Path, **more) -> VideoInfo:
    """A folder of images as source: no tracks."""
    values = {
        "path": folder, "container": "images", "codec": "png", "width": 64, "height": 48,
        "rate": Fraction(25), "time_base": Fraction(1, 25), "frame_count": None,
        "duration_seconds": None, "start_seconds": Fraction(0), "pixel_format": "rgb24",
        "bit_depth": 8, "color": BT601,
    }  # fmt: skip
    return VideoInfo(**(values | more))


def frame_at(info: VideoInfo, pts: int, scale: int = 1, duration: int = 0) -> Frame:
    """A smooth picture of the right size."""
    height, width = info.height * scale, info.width * scale
    ramp = torch.linspace(0, 1, width)[None, None].expand(3, height, width)
    shade = 0.5 + 0.4 * torch.sin(torch.tensor(pts * 0.1))
    return Frame((ramp * shade).contiguous(), pts, info.time_base, duration)


def source_times(path: Path) -> Iterator[tuple[int, int]]:
    """Presentation times and durations of the video's packets, in order of presentation."""
    with av.open(str(path)) as container:
        stream = next(
            s for s in container.streams.video if Disposition.attached_pic not in s.disposition
        )
        packets = [p for p in container.demux(stream) if p.pts is not None]
        yield from sorted((p.pts or 0, p.duration or 0) for p in packets)


def write_all(writer: Any, info: VideoInfo, scale: int = 1) -> None:
    """As many frames as the source has, at its times."""
    for pts, duration in source_times(info.path):
        writer.write(frame_at(info, pts, scale, duration))


@dataclass
class Stream:
    """One stream of a finished file."""

    kind: str
    codec: str
    metadata: dict[str, str]
    disposition: Disposition
    payloads: list[bytes] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    data: bytes = b""

    @property
    def start(self) -> Fraction:
        return min(self.times)


@dataclass
class Contents:
    """A finished file, taken apart without decoding."""

    streams: list[Stream]
    metadata: dict[str, str]
    chapters: list[tuple[Fraction, Fraction, str]]

    def of(self, kind: str) -> list[Stream]:
        return [stream for stream in self.streams if stream.kind == kind]


def contents(path: Path) -> Contents:
    """Everything in a file; the text track of MP4's chapters is left out."""
    with av.open(str(path)) as container:
        streams = []
        for stream in container.streams:
            context = stream.codec_context
            cover = Disposition.attached_pic in stream.disposition
            streams.append(
                Stream(
                    "cover" if cover else stream.type,
                    context.codec.canonical_name if context else "",
                    {key.lower(): value for key, value in stream.metadata.items()},
                    stream.disposition,
                    data=bytes(getattr(stream, "data", b"")),
                )
            )
        for packet in container.demux():
            if packet.size and packet.pts is not None and packet.time_base is not None:
                streams[packet.stream_index].payloads.append(bytes(packet))
                streams[packet.stream_index].times.append(packet.pts * packet.time_base)
        given: Any = container.chapters()
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title", ""))
            for c in given
        ]
        metadata = {key.lower(): value for key, value in container.metadata.items()}
    return Contents([s for s in streams if s.kind != "data"], metadata, chapters)


def sources_of(path: Path) -> list[str]:
    """Names in the folder of `path`: shows what a failed run left behind."""
    return sorted(entry.name for entry in path.parent.iterdir())
