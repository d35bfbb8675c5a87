"""Makes what DVDs consist of: sectors, VOBs, subtitle pictures and IFO sheets."""

from collections.abc import Sequence
from pathlib import Path

from tests.video.clips import make_clip, pictures

SECTOR = 2048
PALETTE = tuple((16 + 10 * i, 128, 128) for i in range(16))  # Y, Cr, Cb


def _time(value: int, prefix: int) -> bytes:
    """A time of 33 bits in groups of 3, 15 and 15 with a one after each."""
    field = prefix << 36 | (value >> 30) << 33 | (value >> 15 & 0x7FFF) << 17
    field |= (value & 0x7FFF) << 1 | 1 << 32 | 1 << 16 | 1
    return field.to_bytes(5)


def make_sector(clock: int, packets: bytes) -> bytes:
    """A pack that states a clock, filled up with padding."""
    field = 1 << 46 | (clock >> 30) << 43 | (clock >> 15 & 0x7FFF) << 27 | (clock & 0x7FFF) << 11
    field |= 1 << 42 | 1 << 26 | 1 << 10 | 1
    data = b"\0\0\1\xba" + field.to_bytes(6) + b"\x01\x89\xc3\xf8" + packets
    rest = SECTOR - len(data) - 6
    return data + b"\0\0\1\xbe" + rest.to_bytes(2) + b"\xff" * rest


def make_navigation(clock: int, start: int, end: int) -> bytes:
    """A navigation pack: pictures of [start, end) follow."""
    system = b"\0\0\1\xbb\0\x12" + bytes(18)
    times = start.to_bytes(4) + end.to_bytes(4)
    information = b"\0\0\1\xbf\x03\xd4\0" + (bytes(12) + times).ljust(0x3D3, b"\0")
    return make_sector(clock, system + information)


def make_subtitle_picture() -> bytes:
    """A picture of 8×2 in colour 1, shown for a second."""
    lines = b"\0\1\0\1"
    control = 4 + len(lines)
    shown = b"\3\x32\x10\4\xff\xf0\5\0\0\7\0\0\1\6\0\4\0\6\1\xff"
    after = control + 4 + len(shown)
    body = lines + b"\0\0" + after.to_bytes(2) + shown + b"\0\x57" + after.to_bytes(2) + b"\2\xff"
    return (len(body) + 4).to_bytes(2) + control.to_bytes(2) + body


def make_subtitle_sector(clock: int, shown: int, number: int) -> bytes:
    """A pack with one subtitle picture for a time, in the stream of a number."""
    payload = b"\x81\x80\5" + _time(shown, 2) + bytes([0x20 + number])
    payload += make_subtitle_picture()
    return make_sector(clock, b"\0\0\1\xbd" + len(payload).to_bytes(2) + payload)


def make_vob(path: Path, first: int = 0, count: int = 30, **more) -> Path:
    """Pictures [first, first + count) of 64×48 with AC-3 sound; its clock starts anew."""
    images = pictures(first + count)[first:]
    options = {"g": "12", "bf": "2"}
    sound = {"audio": ("eng",), "audio_codec": "ac3"}
    return make_clip(
        path, images, codec="mpeg2video", options=options, container="vob", **(sound | more)
    )


def insert(path: Path, at: int, *sectors: bytes) -> Path:
    """Put sectors into a file, before the one at `at`."""
    data = path.read_bytes()
    path.write_bytes(data[: at * SECTOR] + b"".join(sectors) + data[at * SECTOR :])
    return path


def scramble(path: Path) -> Path:
    """Mark all packets of video as encrypted."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), SECTOR):
        place = data.find(b"\0\0\1\xe0", at, at + SECTOR)
        if place >= 0:
            data[place + 6] |= 0x10
    path.write_bytes(data)
    return path


def make_ifo(
    path: Path,
    *,
    cells: Sequence[tuple[int, int, bytes]] = (),
    programs: Sequence[int] = (1,),
    languages: Sequence[str] = ("en",),
    subtitles: Sequence[str] = (),
    wide: bool = False,
) -> Path:
    """The sheet of a title set with one program chain.

    Args:
        cells: first and last sector, and the time that they play: hours, minutes, seconds, frames
            as decimal digits, the two highest bits for the rate.
        programs: cells (from 1) with which chapters begin.
        languages: of AC-3 sound.
        subtitles: languages of streams 0, 1, …
        wide: 16:9.
    """
    head = bytearray(2 * SECTOR)
    head[:12] = b"DVDVIDEO-VTS"
    head[0xCC:0xD0] = (2).to_bytes(4)  # sector of the program chains
    head[0x200] = 0x40 | (0x0C if wide else 0)  # MPEG-2, 525 lines
    head[0x202:0x204] = len(languages).to_bytes(2)
    for index, language in enumerate(languages):
        head[0x204 + 8 * index : 0x208 + 8 * index] = b"\x04\0" + language.encode()
    head[0x254:0x256] = len(subtitles).to_bytes(2)
    for index, language in enumerate(subtitles):
        head[0x256 + 6 * index : 0x25A + 6 * index] = b"\x01\0" + language.encode()

    chain = bytearray(0xEC)
    chain[2], chain[3] = len(programs), len(cells)
    for index in range(len(languages)):
        chain[0x0C + 2 * index] = 0x80 | index
    for index in range(len(subtitles)):
        chain[0x1C + 4 * index : 0x20 + 4 * index] = bytes([0x80 | index, index, index, index])
    chain[0xA4:0xE4] = b"".join(b"\0" + bytes(color) for color in PALETTE)
    chain[0xE6:0xE8] = len(chain).to_bytes(2)
    chain[0xE8:0xEA] = (len(chain) + len(programs)).to_bytes(2)
    chain += bytes(programs)
    for first, last, time in cells:
        chain += bytes(4) + time + first.to_bytes(4) + bytes(8) + last.to_bytes(4)
    table = b"\0\1\0\0" + (15 + len(chain)).to_bytes(4) + b"\x81\0\0\0" + (16).to_bytes(4)
    path.write_bytes(bytes(head) + table + bytes(chain))
    return path
