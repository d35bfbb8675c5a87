"""The VOB files of a title as one MPEG program stream with one clock, read without a copy.

Clocks of DVDs start again wherever a scene was made apart. Where they do, all times after that are
moved on while they are read, so that the pictures there follow those before without a hole; sound
and subtitles move by as much. FFmpeg never sees that there was a border.

DVDs have one pack of the stream in each sector of 2048 bytes; its times count 1/90000 s in 33 bits.
"""

import io
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

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


_BLOCK_SECTORS = 64
_INSERTED_AT = 512  # after the first pictures and sound, that FFmpeg counts these first
_BACK = HERTZ // 10  # two pictures of different pieces may overlap by their stated lengths
_FORWARD = 10 * HERTZ  # more than is ever missing by damage that can be read over
_USUAL_STEP = 3600.0

_LOOK_AHEAD_SECTORS = 1024
_KNOWN_TIMES = 32
_SAMPLES, _SAMPLE_SECTORS = 16, 32


class VobStream(io.RawIOBase):
    """A file object over several files; each begins at a sector of 2048 bytes."""

    def __init__(self, files: Sequence[Path], inserted: bytes = b"") -> None:
        """Open the files.

        Args:
            files: in order.
            inserted: at most a sector that is read soon after the beginning of the first file.

        Raises:
            OSError: a file cannot be opened.
        """
        super().__init__()
        self._files: list[io.BufferedIOBase] = [file.open("rb") for file in files]
        # each a file, its first sector there, and its first sector here
        self._runs: list[tuple[io.BufferedIOBase, int, int]] = []
        at = 0
        for file, path in zip(self._files, files, strict=True):
            sectors = -(-path.stat().st_size // SECTOR_BYTES)
            self._runs.append((file, 0, at))
            at += sectors
            if inserted and file is self._files[0]:
                middle = min(_INSERTED_AT, sectors)
                self._runs += [(io.BytesIO(inserted), 0, middle), (file, middle, middle + 1)]
                at += 1
        self._run_starts = [start for _, _, start in self._runs]
        self._sectors = at
        self._size = at * SECTOR_BYTES
        self._position = 0
        self._joiner = _Joiner(self._sectors_from)
        self._followed = 0  # blocks whose borders are known
        self._block: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the next one."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go elsewhere, as files do."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """At most as many bytes; none at the end."""
        number, start = divmod(self._position, _BLOCK_SECTORS * SECTOR_BYTES)
        if self._position >= self._size or size == 0:
            return b""
        if self._block[0] != number:
            self._block = (number, self._joined(number))
        part = self._block[1][start : None if size < 0 else start + size]
        self._position += len(part)
        return part

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        super().close()

    def is_encrypted(self) -> bool:
        """Whether sectors here and there are marked as scrambled (CSS).

        Raises:
            OSError: half of those looked at cannot be read, as those of protected discs.
        """
        step = max(1, self._sectors // _SAMPLES)
        samples = range(0, self._sectors, step)
        scrambled, errors = 0, []
        for first in samples:
            try:
                block = self._raw(first, min(step, _SAMPLE_SECTORS), _read)
            except OSError as error:
                errors.append(error)
            else:
                scrambled += sum(is_scrambled(sector) for sector in cut(block))
        if 2 * len(errors) > len(samples):
            raise errors[0]
        return scrambled >= 2

    def _joined(self, number: int) -> bytes:
        first = number * _BLOCK_SECTORS
        block = self._raw(first, _BLOCK_SECTORS)
        if number == self._followed:  # borders are found in order, whatever is read in between
            self._joiner.follow(block, first)
            self._followed += 1
        return self._joiner.moved(block, first)

    def _sectors_from(self, first: int) -> Iterator[bytes]:
        """Unchanged sectors from one on."""
        while first < self._sectors:
            yield from cut(self._raw(first, _BLOCK_SECTORS))
            first += _BLOCK_SECTORS

    def _raw(
        self,
        first: int,
        count: int,
        read: Callable[[io.BufferedIOBase, int, int], bytes] | None = None,
    ) -> bytes:
        """Unchanged sectors [first, first + count), as many as there are."""
        read = read or _read_over_damage
        data, end = b"", min(first + count, self._sectors)
        while first < end:
            index = bisect_right(self._run_starts, first) - 1
            file, there, here = self._runs[index]
            until = min([end, *self._run_starts[index + 1 : index + 2]])
            data += read(file, there + first - here, until - first)
            first = until
        return data


class _Joiner:
    """Finds where the clock starts again, and by how much later times must move."""

    def __init__(self, sectors_from: Callable[[int], Iterator[bytes]]) -> None:
        """`sectors_from(first)` gives unchanged sectors from one on."""
        self._sectors_from = sectors_from
        self._borders, self._shifts = [0], [0]
        self._clock: int | None = None
        self._unit_end: int | None = None  # of the last unit, as navigation states it
        self._pictures = _PictureClock()

    def follow(self, block: bytes, first: int) -> None:
        """Look at the next sectors of the stream."""
        for number, sector in enumerate(cut(block), first):
            clock = pack_clock(sector)
            if clock is None:
                continue
            last, self._clock = self._clock, clock
            if last is not None and not last <= clock <= last + _FORWARD:
                self._join(number)
            span = unit_span(sector)
            if span is not None:
                self._unit_end = span[1]
            self._pictures.follow(sector)

    def moved(self, block: bytes, first: int) -> bytes:
        """The sectors with all times moved."""
        index = bisect_right(self._borders, first) - 1
        last = bisect_right(self._borders, first + len(block) // SECTOR_BYTES - 1) - 1
        if not any(self._shifts[index : last + 1]):
            return block
        changed = bytearray(block)
        for number in range(len(block) // SECTOR_BYTES):
            shift = self._shifts[bisect_right(self._borders, first + number) - 1]
            at = number * SECTOR_BYTES
            for place in time_places(block[at : at + SECTOR_BYTES]):
                move_time(changed, at + place, shift)
        return bytes(changed)

    def _join(self, number: int) -> None:
        end, start = self._ends(number)
        self._pictures, self._unit_end = _PictureClock(), None
        if end is None or start is None or end - _BACK <= start <= end + _FORWARD:
            return
        self._borders.append(number)
        self._shifts.append(self._shifts[-1] + end - start)

    def _ends(self, number: int) -> tuple[int | None, int | None]:
        """When pictures end before a border, and when they start after it."""
        ahead = _PictureClock()
        for sector in islice(self._sectors_from(number), _LOOK_AHEAD_SECTORS):
            span = unit_span(sector)
            if span is not None and self._unit_end is not None:
                return self._unit_end, span[0]
            ahead.follow(sector)
            start = ahead.start(self._pictures.step)
            if start is not None:
                return self._pictures.end(), start
        return None, None


class _PictureClock:
    """Tells when the next picture would be decoded, where not every picture has a time."""

    def __init__(self) -> None:
        self._count, self._rest = 0, b""
        self._known: deque[tuple[int, int]] = deque(maxlen=_KNOWN_TIMES)  # number, time

    def follow(self, sector: bytes) -> None:
        """Count the pictures that begin in the next sector."""
        for time, data in video_payloads(sector):
            if time is not None:
                self._known.append((self._count, time))
            data = self._rest + data
            self._count += data.count(PICTURE_START)
            self._rest = data[-len(PICTURE_START) + 1 :]

    @property
    def step(self) -> float:
        """Ticks from one picture to the next, lately."""
        if len(self._known) < 2:
            return _USUAL_STEP
        (first, began), (last, time) = self._known[0], self._known[-1]
        return (time - began) / (last - first) if last > first else _USUAL_STEP

    def start(self, step: float) -> int | None:
        """Time of the first picture, though it may state none; None without any time."""
        if not self._known:
            return None
        number, time = self._known[0]
        return round(time - number * step)

    def end(self) -> int | None:
        """Time after the last picture; None without any time."""
        if not self._known:
            return None
        number, time = self._known[-1]
        return round(time + (self._count - number) * self.step)


def _read(file: io.BufferedIOBase, first: int, count: int) -> bytes:
    """Sectors of a file, zeros after its end."""
    file.seek(first * SECTOR_BYTES)
    return file.read(count * SECTOR_BYTES).ljust(count * SECTOR_BYTES, b"\0")


def _read_over_damage(file: io.BufferedIOBase, first: int, count: int) -> bytes:
    """The same with zeros for sectors that cannot be read: decoders go on after them."""
    try:
        return _read(file, first, count)
    except OSError:
        if count == 1:
            return bytes(SECTOR_BYTES)
        return b"".join(_read_over_damage(file, first + index, 1) for index in range(count))
