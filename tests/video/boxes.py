"""Marks in headers that no muxer of PyAV's can be asked for, written into finished files."""

import struct
from collections.abc import Sequence
from pathlib import Path

from iart.video.write import matroska

_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_ENTRY_HEADER = 86


def box(name: bytes, payload: bytes) -> bytes:
    """A box of MP4."""
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def add_box(path: Path, added: bytes) -> Path:
    """Put a box into the video's sample entry of an MP4 file whose index is at its end."""
    data = path.read_bytes()
    places, start = [], 0
    for name in _PATH:
        while data[start + 4 : start + 8] != name:
            start += int.from_bytes(data[start : start + 4])
        places.append(start)
        start += 8
    entry = start + 8  # after version and count of stsd
    places.append(entry)
    end = entry + int.from_bytes(data[entry : entry + 4])
    changed = bytearray(data[:end] + added + data[end:])
    for place in places:
        size = int.from_bytes(data[place : place + 4]) + len(added)
        changed[place : place + 4] = struct.pack(">I", size)
    path.write_bytes(changed)
    return path


def dolby_vision(profile: int, compatibility: int) -> bytes:
    """The configuration of a stream with base layer and metadata."""
    bits = profile << 9 | 1 << 3 | 0b101
    return box(b"dvcC", struct.pack(">BBHB", 1, 0, bits, compatibility << 4) + bytes(19))


def clean_aperture(width: int, height: int, right: int, down: int) -> bytes:
    """A size, and twice how far its middle lies from that of the picture."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 2, down, 2))


def stereo_3d(mode: int) -> bytes:
    """1: top and bottom, 2: left and right."""
    return box(b"st3d", bytes([0, 0, 0, 0, mode]))


def spherical(yaw: int) -> bytes:
    """Equirectangular, turned by `yaw` degrees."""
    header = box(b"prhd", struct.pack(">Iiii", 0, yaw << 16, 0, 0))
    projection = box(b"proj", header + box(b"equi", bytes(20)))
    return box(b"sv3d", box(b"svhd", bytes(4) + b"made\0") + projection)


PIXEL_CROP = {"left": 0x54CC, "right": 0x54DD, "top": 0x54BB, "bottom": 0x54AA}


def add_to_video(path: Path, numbers: Sequence[tuple[int, int]]) -> Path:
    """Put unsigned numbers by element into the video's description of a Matroska file."""
    with path.open("r+b") as file:
        elements, _ = matroska._top(file.read())
        seek, void, *between = elements
        tracks = between[-1]
        before = len(tracks.serialized())
        entries = matroska._children(tracks.payload)
        for entry in entries:
            if entry.number != matroska._TRACK:
                continue
            fields = matroska._children(entry.payload)
            video = next(field for field in fields if field.number == matroska._VIDEO)
            added = [matroska._unsigned(number, value) for number, value in numbers]
            video.payload = matroska._joined([*matroska._children(video.payload), *added])
            entry.payload = matroska._joined(fields)
        tracks.payload = matroska._joined(entries)
        room = len(void.serialized()) - (len(tracks.serialized()) - before)
        file.seek(seek.start)
        file.write(seek.serialized() + matroska._void(room))
        file.write(b"".join(element.serialized() for element in between))
    return path
