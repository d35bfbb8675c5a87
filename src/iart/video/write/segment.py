"""One segment of a film on the disk: packets of a fresh encoder, complete or not there at all.

A segment is two files: NUMBER.packets, and NUMBER.json, which appears when the packets are safely
on the disk. Packets are records of a fixed header (see `_HEADER`) and a payload, in order of
decoding; times count in the time base of the output's video.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet

from iart.errors import OutputError
from iart.files.complete import replacing, write_json
from iart.pictures.color import color_for, plane_rows, tag_color
from iart.video.frame import Frame
from iart.video.write.encoder import Encode, Slot

KEEP_AFTER_SECONDS = 20
"""What a stop may cost of a segment, besides the window that the network works on."""

_FASTEST = 1  # of zlib's levels
_HEADER = struct.Struct("<qqqI?")  # pts, dts, duration, bytes of payload, key frame
_NO_TIME = -(2**63)


@dataclass(frozen=True)
class KeptPictures:
    """Pictures of a segment that is not finished, as the encoder got them, each in a file.

    An encoder that is stopped leaves nothing. Pictures that took long to compute are therefore kept
    without loss until their segment is finished; a later run hands them to the encoder again, and
    where a run stopped changes no byte.

    Attributes:
        folder: of the segments; the pictures lie in a folder in it.
        encode: what they are encoded to.
    """

    folder: Path
    encode: Encode

    def has(self, number: int) -> bool:
        """Whether a picture is kept whole; it may have been written just before a power cut."""
        try:
            self.load(number)
        except (OSError, ValueError, zlib.error):
            return False
        return True

    def save(self, number: int, picture: av.VideoFrame) -> None:
        """Keep a picture; complete or not at all, and safely on the disk.

        Raises:
            OSError: the disk refuses.
        """
        self._place.mkdir(exist_ok=True)
        same = self._blank()
        for target, source in zip(same.planes, picture.planes, strict=True):
            width = min(target.line_size, source.line_size)
            plane_rows(target)[:, :width] = plane_rows(source)[: target.height, :width]
        with replacing(self._path(number)) as file:
            file.write(zlib.compress(b"".join(map(bytes, same.planes)), _FASTEST))

    def load(self, number: int) -> av.VideoFrame:
        """A picture as it was when it was saved.

        Raises:
            OSError: it is not there.
            ValueError: it has another size.
            zlib.error: it is damaged.
        """
        content = zlib.decompress(self._path(number).read_bytes())
        picture = self._blank()
        if sum(plane.buffer_size for plane in picture.planes) != len(content):
            raise ValueError("a picture of another size")
        start = 0
        for plane in picture.planes:
            plane.update(content[start : start + plane.buffer_size])
            start += plane.buffer_size
        pixel_format = self.encode.encoding.pixel_format
        tag_color(picture, color_for(pixel_format, self.encode.source_color))
        return picture

    def remove(self, numbers: range) -> None:
        """Remove pictures that are no longer needed; never fails."""
        for number in numbers:
            with suppress(OSError):
                self._path(number).unlink()

    @property
    def _place(self) -> Path:
        return self.folder / "pictures"

    def _path(self, number: int) -> Path:
        return self._place / f"{number:08d}.picture"

    def _blank(self) -> av.VideoFrame:
        shape = self.encode.shape
        return av.VideoFrame(shape.width, shape.height, self.encode.encoding.pixel_format)


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What NUMBER.json says.

    Attributes:
        first: number of its first frame in the film.
        frames: how many it has.
        size: bytes of NUMBER.packets.
    """

    first: int
    frames: int
    size: int


def read_record(folder: Path, number: int) -> SegmentRecord | None:
    """The record of a segment; None if it is not complete."""
    try:
        record = SegmentRecord(**json.loads(segment_paths(folder, number)[1].read_text()))
        return record if segment_paths(folder, number)[0].stat().st_size == record.size else None
    except (OSError, ValueError, TypeError):
        return None


def read_packets(folder: Path, number: int, time_base: Fraction) -> Iterator[Packet]:
    """The packets of a complete segment.

    Raises:
        OutputError: the file is shorter than its packets say.
    """
    path = segment_paths(folder, number)[0]
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise _damaged(path)
            pts, dts, duration, size, is_key = _HEADER.unpack(header)
            payload = file.read(size)
            if len(payload) < size:
                raise _damaged(path)
            packet = Packet(payload)
            packet.time_base = time_base
            packet.pts, packet.dts = pts, None if dts == _NO_TIME else dts
            packet.duration, packet.is_keyframe = duration, is_key
            yield packet


class SegmentWriter:
    """Encodes the frames of one segment into its file."""

    def __init__(self, folder: Path, number: int, first: int, encode: Encode, began: float) -> None:
        """Open a fresh encoder.

        Args:
            folder: of all segments.
            number: of the segment.
            first: number of its first frame in the film.
            encode: what it is encoded to.
            began: when the work on its first frame did, in the time of `time.monotonic`; pictures
                that come more than `KEEP_AFTER_SECONDS` later are kept until it is finished.

        Raises:
            OutputError: the encoder refuses.
            OSError: the disk refuses.
        """
        self._packets, self._record = segment_paths(folder, number)
        # two processes never share a name, not even one that outlived its killed parent
        self._part = folder / f"{number:06d}.{os.getpid()}.part"
        self._first, self._frames, self._began = first, 0, began
        self._encode, self._kept = encode, KeptPictures(folder, encode)
        with ExitStack() as stack:
            self._file = stack.enter_context(self._part.open("wb"))
            self._encoder = stack.enter_context(encode.fresh())
            self._open = stack.pop_all()

    def write(self, frame: Frame | None, slot: Slot) -> None:
        """Encode the next frame; None stands for the picture that is kept of it."""
        number = self._first + self._frames
        if frame is None:
            picture = self._kept.load(number)
        else:
            picture = self._encode.picture(frame)
            if time.monotonic() - self._began >= KEEP_AFTER_SECONDS:
                with suppress(OSError):  # a full disk: it only costs time if the run is stopped
                    self._kept.save(number, picture)
        self._store(self._encoder.encode(picture, slot))
        self._frames += 1

    def finish(self) -> None:
        """Encode what was held back, and complete the segment once it is safely on the disk."""
        self._store(self._encoder.flush())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._open.close()
        self._part.replace(self._packets)
        write_json(self._record, asdict(SegmentRecord(self._first, self._frames, size)))
        self._kept.remove(range(self._first, self._first + self._frames))

    def abort(self) -> None:
        """Stop, and remove what was encoded; never fails. Pictures that are kept stay."""
        try:
            self._open.close()
        except OSError:
            pass  # a full disk: there is nothing to keep
        finally:
            self._part.unlink(missing_ok=True)

    def _store(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            payload = bytes(packet)
            dts = _NO_TIME if packet.dts is None else packet.dts
            self._file.write(
                _HEADER.pack(
                    packet.pts or 0, dts, packet.duration or 0, len(payload), packet.is_keyframe
                )
            )
            self._file.write(payload)


def segment_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Names of the two files of a segment, see above."""
    return folder / f"{number:06d}.packets", folder / f"{number:06d}.json"


def _damaged(path: Path) -> OutputError:
    return OutputError(
        f"cannot read '{path}': it is damaged. Delete it and run the same command again, which"
        " makes it anew"
    )
