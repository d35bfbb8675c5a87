"""Packs of MPEG program streams as DVDs have them: one to each sector of 2048 bytes.

Times count 1/90000 s in 33 bits.
"""

from collections.abc import Iterator, Sequence

SECTOR_BYTES = 2048
HERTZ = 90000
PICTURE_START = b"\0\0\1\0"

_PACK, _PREFIX = b"\0\0\1\xba", b"\0\0\1"
_SYSTEM, _PRIVATE_1, _PADDING, _PRIVATE_2 = 0xBB, 0xBD, 0xBE, 0xBF
_AUDIO, _VIDEO = range(0xC0, 0xE0), range(0xE0, 0xF0)
_CLOCK = 1 << 33


def declare_subtitles(numbers: Sequence[int]) -> bytes:
    """A sector that makes FFmpeg know subtitle streams before their first picture; b"" for none.

    Args:
        numbers: of the streams, 0 to 31.
    """
    data = b""  # no pack header, since that would state a clock
    for number in numbers:
        data += _PREFIX + bytes([_PRIVATE_1, 0, 4, 0x80, 0, 0, 0x20 + number])
    if not data:
        return data
    rest = SECTOR_BYTES - len(data) - 6
    return data + _PREFIX + bytes([_PADDING]) + rest.to_bytes(2) + b"\xff" * rest


def cut(block: bytes) -> Iterator[bytes]:
    """The sectors of a block."""
    return (block[at : at + SECTOR_BYTES] for at in range(0, len(block), SECTOR_BYTES))


def _packets(sector: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of the packets of a sector."""
    if sector[:4] != _PACK or sector[4] >> 6 != 1:
        return
    at = 14 + (sector[13] & 7)
    while sector[at : at + 3] == _PREFIX and at + 9 <= SECTOR_BYTES:
        yield sector[at + 3], at
        at += 6 + int.from_bytes(sector[at + 4 : at + 6])


def _is_elementary(kind: int) -> bool:
    return kind == _PRIVATE_1 or kind in _AUDIO or kind in _VIDEO


def is_scrambled(sector: bytes) -> bool:
    """Whether a packet of pictures, sound or subtitles is marked as encrypted."""
    return any(
        _is_elementary(kind) and sector[at + 6] >> 6 == 2 and sector[at + 6] & 0x30
        for kind, at in _packets(sector)
    )


def time_places(sector: bytes) -> Iterator[int]:
    """Where presentation and decoding times stand."""
    for kind, at in _packets(sector):
        if _is_elementary(kind) and sector[at + 6] >> 6 == 2 and at + 19 <= SECTOR_BYTES:
            stated = sector[at + 7] >> 6
            if stated & 2:
                yield at + 9
            if stated == 3:
                yield at + 14


def video_payloads(sector: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Decoding time, if stated, and payload of each packet of video."""
    for kind, at in _packets(sector):
        if kind in _VIDEO and sector[at + 6] >> 6 == 2:
            stated = sector[at + 7] >> 6
            place = at + 14 if stated == 3 else at + 9  # of the last one, if any
            time = _ticks(int.from_bytes(sector[place : place + 5]), 1) if stated & 2 else None
            end = at + 6 + int.from_bytes(sector[at + 4 : at + 6])
            yield time, sector[at + 9 + sector[at + 8] : end]


def pack_clock(sector: bytes) -> int | None:
    """The time at which the pack is to be read; None if the sector is no pack."""
    if sector[:4] != _PACK or sector[4] >> 6 != 1:
        return None
    return _ticks(int.from_bytes(sector[4:10]), 11)


def unit_span(sector: bytes) -> tuple[int, int] | None:
    """[start, end) of the pictures after a navigation packet, if this is one and says so."""
    if sector[14:18] != _PREFIX + bytes([_SYSTEM]) or sector[38:42] != _PREFIX + bytes(
        [_PRIVATE_2]
    ):
        return None
    start, end = int.from_bytes(sector[57:61]), int.from_bytes(sector[61:65])
    return (start, end) if start < end else None


def _ticks(field: int, low: int) -> int:
    """A time of 33 bits in groups of 3, 15 and 15 with a bit between them, the last at `low`."""
    return (
        (field >> low + 32 & 7) << 30 | (field >> low + 16 & 0x7FFF) << 15 | (field >> low & 0x7FFF)
    )


def move_time(data: bytearray, at: int, shift: int) -> None:
    """Add to the time that stands at a place."""
    field = int.from_bytes(data[at : at + 5])
    time = (_ticks(field, 1) + shift) % _CLOCK
    kept = field & (0xF << 36 | 1 << 32 | 1 << 16 | 1)
    field = kept | (time >> 30) << 33 | (time >> 15 & 0x7FFF) << 17 | (time & 0x7FFF) << 1
    data[at : at + 5] = field.to_bytes(5)
