"""Facts that FFmpeg's Matroska muxer cannot be told through PyAV, written afterwards, in place.

    - the shape of pixels, for codecs whose stream does not state it (AV1, FFV1, ProRes);
    - how much of a track's start is the encoder's run-up (AAC from MP4): without it all other
      tracks would have to start later by as much;
    - how spherical pictures lie around the viewer.

The muxer reserves space for its index of positions (SeekHead) and does not fill it. Elements
between it and the tracks move forward into the rest, so that nothing after them moves.
"""

import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path

from iart.video.frame import Spherical

_EBML, _SEGMENT, _SEEK_HEAD, _VOID = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0xEC
_INFO, _TRACKS, _TRACK, _TRACK_NUMBER, _VIDEO = 0x1549A966, 0x1654AE6B, 0xAE, 0xD7, 0xE0
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_CODEC_DELAY = 0x56AA
_PROJECTION, _PROJECTION_TYPE, _PROJECTION_DATA = 0x7670, 0x7671, 0x7672
_POSE_YAW, _POSE_PITCH, _POSE_ROLL = 0x7673, 0x7674, 0x7675
_PROJECTIONS = {"equirectangular": 1, "cubemap": 2, "mesh": 3}
_CHAPTERS, _EDITION, _CHAPTER = 0x1043A770, 0x45B9, 0xB6
_CHAPTER_DISPLAY, _CHAPTER_LANGUAGE = 0x80, 0x437C
_SEEK, _SEEK_ID, _SEEK_POSITION, _CRC = 0x4DBB, 0x53AB, 0x53AC, 0xBF

_HEADER_BYTES = 4 << 20
"""More than a header with many tracks takes up to the end of its tracks."""


@dataclass
class _Element:
    number: int
    payload: bytes
    size_bytes: int
    start: int = 0

    def serialized(self) -> bytes:
        return _number(self.number) + _size(len(self.payload), self.size_bytes) + self.payload


def amend(
    file: BufferedIOBase,
    *,
    display_size: tuple[int, int] | None = None,
    delays: dict[int, Fraction] | None = None,
    spherical: Spherical | None = None,
) -> bool:
    """Write display size, run-ups and projection into a finished file.

    Args:
        file: made by FFmpeg's Matroska or WebM muxer; open to read and write.
        display_size: width and height at which the first video track is shown.
        delays: seconds of run-up by track number (from 1).
        spherical: how pictures of the first video track lie around the viewer.

    Returns:
        Whether there was room; if not, the file is unchanged.
    """
    file.seek(0)
    elements, base = _top(file.read(_HEADER_BYTES))
    numbers = [element.number for element in elements]
    if numbers[:2] != [_SEEK_HEAD, _VOID] or _TRACKS not in numbers:
        return False
    last = numbers.index(_TRACKS)
    seek, void, *between = elements[: last + 1]
    tracks = between[-1]
    old = len(tracks.serialized())
    tracks.payload = _amended_tracks(tracks.payload, display_size, delays or {}, spherical)
    growth = len(tracks.serialized()) - old
    room = len(void.serialized()) - growth
    if room < 0 or room == 1:
        return False
    moved = {element.start - base: element.start - base - growth for element in between}
    length = len(seek.serialized())
    seek.payload = _moved_positions(seek.payload, moved)
    assert len(seek.serialized()) == length
    file.seek(seek.start)
    file.write(seek.serialized() + _void(room) + b"".join(e.serialized() for e in between))
    return True


def delayed_tracks(file: BufferedIOBase) -> set[int]:
    """Numbers of the tracks, from 1, whose run-up the header states."""
    file.seek(0)
    elements, _ = _top(file.read(_HEADER_BYTES))
    if not elements or elements[-1].number != _TRACKS:
        return set()
    entries = [
        {field.number: field.payload for field in _children(entry.payload)}
        for entry in _children(elements[-1].payload)
        if entry.number == _TRACK
    ]
    return {int.from_bytes(e[_TRACK_NUMBER]) for e in entries if _CODEC_DELAY in e}


def chapters_not_read(path: Path) -> tuple[str, ...]:
    """Notes on what FFmpeg does not read of a file's chapters: languages, editions, more names."""
    try:
        with path.open("rb") as file:
            chapters = _chapters(file)
        return _not_read(chapters)
    except (IndexError, OSError):  # damaged, which others tell
        return ()


def _chapters(file: BufferedIOBase) -> bytes:
    elements, base = _top(file.read(_HEADER_BYTES))
    heads = [_children(e.payload) for e in elements if e.number == _SEEK_HEAD]
    for seek in [s for head in heads for s in head if s.number == _SEEK]:
        fields = {field.number: int.from_bytes(field.payload) for field in _children(seek.payload)}
        if fields.get(_SEEK_ID) == _CHAPTERS and _SEEK_POSITION in fields:
            file.seek(base + fields[_SEEK_POSITION])
            data = file.read(_HEADER_BYTES)
            number, size, start, _ = _header(data, 0)
            return data[start : start + size] if number == _CHAPTERS else b""
    return next((e.payload for e in elements if e.number == _CHAPTERS), b"")


def _not_read(chapters: bytes) -> tuple[str, ...]:
    editions = [_children(e.payload) for e in _children(chapters) if e.number == _EDITION]
    displays = [
        [_children(d.payload) for d in _children(chapter.payload) if d.number == _CHAPTER_DISPLAY]
        for edition in editions
        for chapter in edition
        if chapter.number == _CHAPTER
    ]
    languages = {
        field.payload.rstrip(b"\0").decode("ascii", "replace")
        for names in displays
        for name in names
        for field in name
        if field.number == _CHAPTER_LANGUAGE
    } - {"und"}
    lost = []
    if len(editions) > 1:
        lost.append(f"{len(editions)} editions are read as one")
    if any(len(names) > 1 for names in displays):
        lost.append("of several names of a chapter the first is kept")
    if languages:
        lost.append(f"languages ({', '.join(sorted(languages))}) are lost")
    return (f"chapters: {'; '.join(lost)}",) if lost else ()


def display_size(width: int, height: int, sample_aspect: Fraction) -> tuple[int, int]:
    """A size of square pixels near the height given, with exactly the shape of the picture."""
    shape = Fraction(width, height) * sample_aspect
    times = max(1, round(height / shape.denominator))
    if shape.numerator * times > 0xFFFF:
        return max(1, round(width * sample_aspect)), height
    return shape.numerator * times, shape.denominator * times


def _amended_tracks(
    payload: bytes,
    display_size: tuple[int, int] | None,
    delays: dict[int, Fraction],
    spherical: Spherical | None,
) -> bytes:
    entries = _children(payload)
    for entry in entries:
        if entry.number != _TRACK:
            continue
        fields = _children(entry.payload)
        number = next(int.from_bytes(f.payload) for f in fields if f.number == _TRACK_NUMBER)
        video = next((f for f in fields if f.number == _VIDEO), None)
        if video is not None and spherical is not None:
            inside = [*_children(video.payload), _projection(spherical)]
            video.payload = _joined(inside)
            spherical = None  # the first video only
        if video is not None and display_size is not None:
            # the muxer states an unknown unit when it knows no shape
            inside = [
                f
                for f in _children(video.payload)
                if f.number not in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
            ]
            inside += [
                _unsigned(_DISPLAY_WIDTH, display_size[0]),
                _unsigned(_DISPLAY_HEIGHT, display_size[1]),
            ]
            video.payload = _joined(inside)
            display_size = None
        if number in delays:
            fields.append(_unsigned(_CODEC_DELAY, round(delays[number] * 10**9)))
        entry.payload = _joined(fields)
    return _joined(entries)


def _projection(spherical: Spherical) -> _Element:
    poses = zip(
        (_POSE_YAW, _POSE_PITCH, _POSE_ROLL),
        (spherical.yaw, spherical.pitch, spherical.roll),
        strict=True,
    )
    fields = [
        _unsigned(_PROJECTION_TYPE, _PROJECTIONS[spherical.projection]),
        _Element(_PROJECTION_DATA, spherical.data, 1),
        *(_Element(number, struct.pack(">f", degrees), 1) for number, degrees in poses if degrees),
    ]
    return _Element(_PROJECTION, _joined(fields), 1)


def _moved_positions(payload: bytes, moved: dict[int, int]) -> bytes:
    entries = _children(payload)
    for entry in entries:
        if entry.number != _SEEK:
            continue
        fields = _children(entry.payload)
        for position in fields:
            if position.number == _SEEK_POSITION:
                value = int.from_bytes(position.payload)
                value = moved.get(value, value)
                position.payload = value.to_bytes(len(position.payload))
        entry.payload = _joined(fields)
    return _joined(entries)


def _top(head: bytes) -> tuple[list[_Element], int]:
    """Elements of the segment up to its tracks, and where the segment's payload starts."""
    number, size, position, _ = _header(head, 0)
    if number != _EBML:
        return [], 0
    number, _, base, _ = _header(head, position + size)
    if number != _SEGMENT:
        return [], 0
    elements: list[_Element] = []
    position = base
    while position < len(head) and _TRACKS not in [e.number for e in elements]:
        start = position
        number, size, position, size_bytes = _header(head, position)
        if position + size > len(head):
            break
        elements.append(_Element(number, head[position : position + size], size_bytes, start))
        position += size
    return elements, base


def _children(payload: bytes) -> list[_Element]:
    elements, position = [], 0
    while position < len(payload):
        number, size, start, size_bytes = _header(payload, position)
        elements.append(_Element(number, payload[start : start + size], size_bytes, position))
        position = start + size
    return elements


def _joined(elements: list[_Element]) -> bytes:
    """Payload of a master element; a checksum in front is made anew."""
    body = b"".join(element.serialized() for element in elements if element.number != _CRC)
    if elements and elements[0].number == _CRC:
        checksum = zlib.crc32(body).to_bytes(4, "little")
        return _Element(_CRC, checksum, 1).serialized() + body
    return body


def _header(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Number, payload size, start of the payload, and bytes of the size field."""
    length = 9 - data[position].bit_length()
    number = int.from_bytes(data[position : position + length])
    position += length
    size_bytes = 9 - data[position].bit_length()
    coded = int.from_bytes(data[position : position + size_bytes])
    size = coded & ((1 << 7 * size_bytes) - 1)
    return number, size, position + size_bytes, size_bytes


def _number(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _size(size: int, at_least: int) -> bytes:
    length = at_least
    while size >= (1 << 7 * length) - 1:
        length += 1
    return (size | 1 << 7 * length).to_bytes(length)


def _unsigned(number: int, value: int) -> _Element:
    return _Element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8)), 1)


def _void(length: int) -> bytes:
    if length == 0:
        return b""
    size_bytes = 1 if length - 2 < 127 else 8
    return _Element(_VOID, bytes(length - 1 - size_bytes), size_bytes).serialized()
