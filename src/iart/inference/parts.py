"""What a job keeps of its finished frames: segments of a film, or pictures.

`FilmParts` and `PictureParts` have the same methods. They hold nothing open and can be sent to
other processes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from iart.errors import OutputError
from iart.inference.segments import Segment
from iart.video.encoder import Encode, Slot
from iart.video.film import Film, FilmPlan
from iart.video.frame import Frame, Loss
from iart.video.image_writer import PicturePlan, image_name
from iart.video.pending import sync
from iart.video.segment import (
    SegmentWriter,
    read_packets,
    read_record,
    read_records,
    write_durably,
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where an enlarged frame belongs: its number in the film, its segment, its time."""

    index: int
    segment: Segment
    slot: Slot | None


@runtime_checkable
class PartWriter(Protocol):
    """Writes the frames of one segment, in order."""

    def write(self, frame: Frame, ticket: Ticket) -> None:
        """Write one frame."""
        ...

    def finish(self) -> None:
        """Make the segment complete and durable."""
        ...

    def abort(self) -> None:
        """Remove what is not complete; never fails."""
        ...


@runtime_checkable
class Parts(Protocol):
    """What is kept of finished frames."""

    @property
    def folder(self) -> Path:
        """Of everything that is kept."""
        ...

    def has_segment(self, segment: Segment) -> bool:
        """Whether all of its frames are kept."""
        ...

    def has_frame(self, index: int) -> bool:
        """Whether a frame is kept, though its segment is not complete."""
        ...

    def count(self) -> int:
        """Frames that are kept."""
        ...

    def placer(self) -> Callable[[Frame], Slot | None]:
        """A function that gives the time of every frame of the film, in order."""
        ...

    def open(self, segment: Segment) -> PartWriter:
        """Begin a segment."""
        ...


@dataclass(frozen=True)
class FilmParts:
    """Segments of packets."""

    folder: Path
    encode: Encode

    def has_segment(self, segment: Segment) -> bool:
        """See `Parts`.

        Raises:
            OutputError: the segment that is kept has other frames.
        """
        record = read_record(self.folder, segment.number)
        if record is not None and record.first != segment.first:
            raise OutputError(
                f"cannot go on with '{self.folder}': the source gives other frames than when it was"
                " begun; pass --overwrite to start anew"
            )
        return record is not None

    def has_frame(self, index: int) -> bool:
        """Never: an encoder that was interrupted is lost with all its frames."""
        return False

    def count(self) -> int:
        """See `Parts`."""
        return sum(record.frames for record in read_records(self.folder).values())

    def placer(self) -> Callable[[Frame], Slot | None]:
        """See `Parts`."""
        return self.encode.timeline().place

    def open(self, segment: Segment) -> PartWriter:
        """See `Parts`."""
        return _FilmPart(SegmentWriter(self.folder, segment.number, segment.first, self.encode))


class _FilmPart:
    def __init__(self, writer: SegmentWriter) -> None:
        self.finish, self.abort = writer.finish, writer.abort
        self._writer = writer

    def write(self, frame: Frame, ticket: Ticket) -> None:
        assert ticket.slot is not None
        self._writer.write(frame, ticket.slot)


def assemble_film(plan: FilmPlan, folder: Path, segments: int, part: Path) -> list[Loss]:
    """Put finished segments together, with all tracks of the source, without encoding again.

    Args:
        plan: of the whole.
        folder: of the segments.
        segments: how many there are.
        part: the file to write.

    Returns:
        What is damaged in the source's tracks.

    Raises:
        OutputError: a segment is missing or damaged, or the container refuses.
        OSError: the disk refuses.
    """
    with Film(plan, part) as film:
        for number in range(segments):
            if read_record(folder, number) is None:
                raise OutputError(
                    f"cannot write '{plan.path}': segment {number} is missing or damaged; run the"
                    " same command again, which makes it anew"
                )
            for packet in read_packets(folder, number, plan.encode.shape.time_base):
                film.mux(packet)
        film.finish()
        return film.losses


@dataclass(frozen=True)
class PictureParts:
    """PNG files under their final names, in a folder of their own."""

    folder: Path
    plan: PicturePlan

    @property
    def pictures(self) -> Path:
        """The folder that becomes the output."""
        return self.folder / "pictures"

    def has_segment(self, segment: Segment) -> bool:
        """See `Parts`."""
        return (self.folder / f"{segment.number:06d}.json").exists()

    def has_frame(self, index: int) -> bool:
        """Whether the picture is whole; it may have been written just before a power cut."""
        path = self.pictures / image_name(index)
        try:
            with Image.open(path) as image:
                image.verify()
            sync(path)
        except (OSError, SyntaxError):
            return False
        return True

    def count(self) -> int:
        """See `Parts`."""
        return sum(1 for _ in self.pictures.glob("*.png"))

    def placer(self) -> Callable[[Frame], Slot | None]:
        """Pictures carry no times."""
        return lambda _: None

    def open(self, segment: Segment) -> PartWriter:
        """See `Parts`."""
        self.pictures.mkdir(exist_ok=True)
        return _PicturePart(self, segment)


class _PicturePart:
    def __init__(self, parts: PictureParts, segment: Segment) -> None:
        self._parts, self._segment = parts, segment
        self._written: list[Path] = []

    def write(self, frame: Frame, ticket: Ticket) -> None:
        path = self._parts.pictures / image_name(ticket.index)
        part = self._parts.folder / f"{path.stem}.{os.getpid()}.part"
        try:
            part.write_bytes(self._parts.plan.encoded(frame))
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._written.append(path)

    def finish(self) -> None:
        for path in self._written:
            sync(path)
        sync(self._parts.pictures)
        record = self._parts.folder / f"{self._segment.number:06d}.json"
        write_durably(record, {"first": self._segment.first})

    def abort(self) -> None:
        """Every picture is whole by itself."""
