"""Segments: the pieces of a film that are finished, and kept, one by one.

Segments follow each other without holes. Where one ends depends on the frames so far and on nothing
else, so that every pass over the same film finds the same segments: one that goes on after a crash,
or one that shares the work with others. They end at scene cuts, where an encoder starts a new key
frame anyway. A long scene is cut where an encoder would place a key frame at the latest; there the
network sees frames on both sides, but its state is not carried on.

Finished segments lie in a folder, as packets (`FilmStore`) or as pictures (`PictureStore`), beside
the pictures of unfinished ones that took long, and the network's state after these. Stores hold
nothing open, and can be sent to other processes.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from iart.errors import OutputError
from iart.files.complete import complete_file, sync, write_json
from iart.video.frame import Frame, Loss
from iart.video.write.encoder import Encode, Slot
from iart.video.write.image_series import PicturePlan
from iart.video.write.muxer import FilmPlan, Muxer
from iart.video.write.segment import (
    KeptPictures,
    SegmentWriter,
    read_packets,
    read_record,
    segment_paths,
)

SHORTEST = 48
"""Frames of a segment at least, but for the last one."""
LONGEST = 240
"""Frames of a segment at most; x264 and x265 place a key frame after 250."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Its number, counted from 0, and the number of its first frame in the film."""

    number: int
    first: int


class Segments:
    """Tells of each frame of a film, in order, which segment it belongs to."""

    def __init__(self) -> None:
        self._next = 0
        self._current = Segment(0, 0)

    def place(self, cut: bool) -> Segment:
        """The segment of the next frame; `cut` tells whether a new scene starts there."""
        length = self._next - self._current.first
        if length >= LONGEST or (cut and length >= SHORTEST):
            self._current = Segment(self._current.number + 1, self._next)
        self._next += 1
        return self._current


@dataclass(frozen=True)
class SegmentStore(ABC):
    """Segments in `folder`."""

    folder: Path

    @abstractmethod
    def finished(self, number: int) -> range | None:
        """The frames of a segment by their numbers in the film; None if it is not finished."""

    @abstractmethod
    def files(self, number: int) -> list[Path]:
        """What a finished segment consists of; the last file makes it finished."""

    @abstractmethod
    def has_picture(self, index: int) -> bool:
        """Whether the picture of a frame is kept whole, and not cut off by a power cut."""

    @abstractmethod
    def slots(self) -> Callable[[Frame], Any]:
        """A function that tells where each frame of the film goes, called in order."""

    @abstractmethod
    def open(self, segment: Segment, began: float) -> "SegmentWriter | PictureWriter":
        """Begin to write a segment; see `SegmentWriter` for when the work on it `began`."""

    def has_segment(self, segment: Segment) -> bool:
        """Whether all of its frames are kept.

        Raises:
            OutputError: the segment that is kept has other frames.
        """
        frames = self.finished(segment.number)
        if frames is not None and frames.start != segment.first:
            raise OutputError(
                f"cannot go on with '{self.folder}': the source gives other frames than when it was"
                " begun; pass --overwrite to start anew"
            )
        return frames is not None

    def usable(self, number: int) -> range:
        """Frames of an unfinished segment that need not be made again.

        Their pictures are kept, and after them the state that the network goes on with.
        """
        try:
            with safe_open(self._state(number), "pt") as file:
                about = file.metadata()
        except (OSError, SafetensorError):
            return range(0)
        begin = stop = int(about["stop"])
        while begin > int(about["first"]) and self.has_picture(begin - 1):
            begin -= 1
        return range(begin, stop)

    def finished_numbers(self) -> list[int]:
        """Of all segments that are finished."""
        return [n for n in self._numbers("json") if self.finished(n) is not None]

    def missing(self, frames: int) -> list[range]:
        """Frames of no finished segment, in a film of so many."""
        known = [self.finished(number) for number in self.finished_numbers()]
        missing, stop = [], 0
        for kept in sorted(filter(None, known), key=lambda kept: kept.start):
            if kept.start > stop:
                missing.append(range(stop, kept.start))
            stop = max(stop, kept.stop)
        return [*missing, *([range(stop, frames)] if stop < frames else [])]

    def count(self) -> int:
        """Frames that need not be made again."""
        return self._finished_frames() + sum(
            len(self.usable(number))
            for number in self._numbers("state")
            if self.finished(number) is None
        )

    def is_complete(self, frames: int) -> bool:
        """Whether all segments are finished of a film of so many frames."""
        return self._finished_frames() == frames

    def save_state(self, segment: Segment, stop: int, state: Mapping[str, Tensor]) -> None:
        """Keep the state of the network after the frame before `stop`.

        A full disk is no error: it only costs time if the run is stopped.
        """
        about = {"first": str(segment.first), "stop": str(stop)}
        # copies, since safetensors takes no views
        tensors = {name: x.cpu().contiguous().clone() for name, x in state.items()}
        with suppress(OutputError), complete_file(self._state(segment.number)) as file:
            file.write(save(tensors, about))

    def load_state(self, number: int) -> dict[str, Tensor]:
        """The state that was saved last."""
        return load_file(self._state(number))

    def forget_state(self, number: int) -> None:
        """Remove the state of a segment that is finished."""
        self._state(number).unlink(missing_ok=True)

    def _state(self, number: int) -> Path:
        return self.folder / f"{number:06d}.state"

    def _numbers(self, ending: str) -> list[int]:
        return [int(x.stem) for x in self.folder.glob(f"*.{ending}") if x.stem.isdecimal()]

    def _finished_frames(self) -> int:
        return sum(len(self.finished(number) or ()) for number in self._numbers("json"))


@dataclass(frozen=True)
class FilmStore(SegmentStore):
    """Segments of packets."""

    encode: Encode

    def finished(self, number: int) -> range | None:
        """See `SegmentStore`."""
        record = read_record(self.folder, number)
        return None if record is None else range(record.first, record.first + record.frames)

    def files(self, number: int) -> list[Path]:
        """See `SegmentStore`."""
        return list(segment_paths(self.folder, number))

    def has_picture(self, index: int) -> bool:
        """See `SegmentStore`."""
        return KeptPictures(self.folder, self.encode).has(index)

    def slots(self) -> Callable[[Frame], Slot]:
        """See `SegmentStore`."""
        return self.encode.timeline().place

    def open(self, segment: Segment, began: float) -> SegmentWriter:
        """See `SegmentStore`."""
        return SegmentWriter(self.folder, segment.number, segment.first, self.encode, began)


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
    with closing(Muxer(plan, part)) as muxer:
        for number in range(segments):
            if read_record(folder, number) is None:
                raise OutputError(
                    f"cannot write '{plan.path}': segment {number} is missing or damaged; run the"
                    " same command again, which makes it anew"
                )
            for packet in read_packets(folder, number, plan.encode.shape.time_base):
                muxer.mux(packet)
        muxer.finish()
        return muxer.losses


@dataclass(frozen=True)
class PictureStore(SegmentStore):
    """PNG files under their final names, in a folder of their own within `folder`."""

    plan: PicturePlan

    @property
    def pictures(self) -> Path:
        """The folder that becomes the output."""
        return self.folder / "pictures"

    def finished(self, number: int) -> range | None:
        """See `SegmentStore`."""
        try:
            return range(*json.loads(self.record(number).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def files(self, number: int) -> list[Path]:
        """See `SegmentStore`."""
        pictures = [self.pictures / self.plan.names.at(n) for n in self.finished(number) or ()]
        return [*pictures, self.record(number)]

    def is_complete(self, frames: int) -> bool:
        """See `SegmentStore`."""
        is_ours = self.plan.names.pattern.fullmatch
        return sum(1 for path in self.pictures.iterdir() if is_ours(path.name)) == frames

    def has_picture(self, index: int) -> bool:
        """See `SegmentStore`."""
        path = self.pictures / self.plan.names.at(index)
        try:
            with Image.open(path) as image:
                image.verify()
            sync(path)
        except (OSError, SyntaxError):
            return False
        return True

    def slots(self) -> Callable[[Frame], int]:
        """See `SegmentStore`; pictures carry no times, and are numbered."""
        numbers = count()
        return lambda _: next(numbers)

    def open(self, segment: Segment, began: float) -> "PictureWriter":
        """See `SegmentStore`; every picture is kept."""
        self.pictures.mkdir(exist_ok=True)
        return PictureWriter(self, segment)

    def record(self, number: int) -> Path:
        """The file that makes a segment finished."""
        return self.folder / f"{number:06d}.json"


class PictureWriter:
    """Writes the pictures of one segment; the counterpart of `SegmentWriter`."""

    def __init__(self, store: PictureStore, segment: Segment) -> None:
        self._store, self._segment = store, segment
        self._written: list[Path] = []
        self._frames = 0

    def write(self, frame: Frame | None, number: int) -> None:
        """Write one picture, unless it is kept."""
        self._frames += 1
        if frame is None:
            return
        path = self._store.pictures / self._store.plan.names.at(number)
        part = self._store.folder / f"{path.stem}.{os.getpid()}.part"
        try:
            part.write_bytes(self._store.plan.encoded(frame))
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._written.append(path)

    def finish(self) -> None:
        """Make the segment complete and durable."""
        for path in self._written:
            sync(path)
        sync(self._store.pictures)
        record = self._store.record(self._segment.number)
        write_json(record, (self._segment.first, self._segment.first + self._frames))

    def abort(self) -> None:
        """Leave things as they are: every picture is whole by itself."""
