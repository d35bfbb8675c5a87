"""What the IFO file beside a title's VOBs tells: colours of subtitles, languages, chapters, length.

Numbers are big-endian; sectors have 2048 bytes; times are decimal digits of hours, minutes, seconds
and frames.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from iart.video.read.timing import NTSC

_SECTOR_BYTES = 2048
_MAGIC = b"DVDVIDEO-VTS"

# ISO 639-1, which DVDs use, and what Matroska and MP4 use
_LANGUAGES = dict(
    re.findall(
        r"(\w\w):(\w+)",
        "ar:ara bg:bul bn:ben bs:bos ca:cat cs:cze cy:wel da:dan de:ger el:gre en:eng eo:epo es:spa"
        " et:est eu:baq fa:per fi:fin fr:fre ga:gle gl:glg gu:guj he:heb iw:heb hi:hin hr:hrv"
        " hu:hun hy:arm id:ind in:ind is:ice it:ita ja:jpn ka:geo kk:kaz km:khm kn:kan ko:kor"
        " la:lat lb:ltz lt:lit lv:lav mk:mac ml:mal mn:mon mr:mar ms:may mt:mlt my:bur ne:nep"
        " nl:dut no:nor nb:nob nn:nno pa:pan pl:pol ps:pus pt:por ro:rum ru:rus sa:san si:sin"
        " sk:slo sl:slv so:som sq:alb sr:srp sv:swe sw:swa ta:tam te:tel th:tha tl:tgl tr:tur"
        " uk:ukr ur:urd uz:uzb vi:vie yi:yid zh:chi zu:zul",
    )
)
_SOUND_TITLES = {2: "for the visually impaired", 3: "comments", 4: "comments (2)"}
_SUBTITLE_TITLES = {
    2: "large", 3: "for children", 5: "captions", 6: "large captions",
    7: "captions for children", 9: "forced", 13: "comments", 14: "large comments",
    15: "comments for children",
}  # fmt: skip
_FIRST_IDS = {0: 0x80, 2: 0x1C0, 3: 0x1C0, 4: 0xA0, 6: 0x88}
"""FFmpeg's number of the first sound stream, by coding: AC-3, MPEG, LPCM, DTS."""

_SIZES = ((720, 1), (704, 1), (352, 1), (352, 2))
_RATES = {1: Fraction(25), 3: 30 * NTSC}


@dataclass(frozen=True)
class TitleSheet:
    """A title set, as its IFO describes it.

    Attributes:
        tracks: metadata by FFmpeg's stream number (0x80 AC-3, 0x20 subtitles …).
        subtitles: numbers of subtitle streams, from 0.
        subtitle_header: size and colours, as VobSub and Matroska state them.
        duration_seconds: of all pictures; None if it cannot be told.
        chapter_starts: seconds from the first picture; empty if they cannot be told.
    """

    tracks: dict[int, dict[str, str]] = field(default_factory=dict)
    subtitles: tuple[int, ...] = ()
    subtitle_header: bytes = b""
    duration_seconds: Fraction | None = None
    chapter_starts: tuple[Fraction, ...] = ()


@dataclass(frozen=True)
class _Cell:
    """Sectors [first, last] of a title's VOBs, and how long they play."""

    first: int
    last: int
    seconds: Fraction
    begins_chapter: bool


def read_sheet(data: bytes) -> TitleSheet | None:
    """Take an IFO of a title set apart; None if it is none, or damaged."""
    if not data.startswith(_MAGIC):
        return None
    try:
        chains = list(_chains(data))
        if not chains:
            return None
        longest = max(chains, key=lambda chain: sum(cell.seconds for cell in _cells(chain)))
        tracks = _sounds(data, longest)
        texts = _subtitles(data, longest)
        duration, chapters = _timeline([cell for chain in chains for cell in _cells(chain)])
        return TitleSheet(
            tracks | {0x20 + number: entry for number, entry in texts.items()},
            tuple(texts),
            _subtitle_header(data, longest),
            duration,
            chapters,
        )
    except (IndexError, KeyError, ValueError):
        return None


def _number(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + length])


def _chains(data: bytes) -> Iterator[bytes]:
    """Each program chain, from its start to the end of the file."""
    table = _number(data, 0xCC, 4) * _SECTOR_BYTES
    for index in range(_number(data, table, 2)):
        yield data[table + _number(data, table + 8 + 8 * index + 4, 4) :]


def _cells(chain: bytes) -> Iterator[_Cell]:
    programs, cells = chain[2], chain[3]
    program_map, table = _number(chain, 0xE6, 2), _number(chain, 0xE8, 2)
    starts = set(chain[program_map : program_map + programs])
    for index in range(cells):
        at = table + 24 * index
        yield _Cell(
            _number(chain, at + 8, 4),
            _number(chain, at + 20, 4),
            _seconds(chain[at + 4 : at + 8]),
            index + 1 in starts,
        )


def _seconds(time: bytes) -> Fraction:
    if not any(time):
        return Fraction(0)
    rate = _RATES[time[3] >> 6]
    hours, minutes, seconds, frames = (
        10 * (byte >> 4) + (byte & 15) for byte in (*time[:3], time[3] & 0x3F)
    )
    # 30 frames are counted as a second, though they take a little longer
    return ((hours * 60 + minutes) * 60 + seconds) * (round(rate) / rate) + frames / rate


def _timeline(cells: list[_Cell]) -> tuple[Fraction | None, tuple[Fraction, ...]]:
    """Length and chapters of all VOBs in order; nothing if they lie inside each other (angles)."""
    ordered: dict[int, _Cell] = {}
    for cell in sorted(cells, key=lambda cell: (cell.first, not cell.begins_chapter)):
        ordered.setdefault(cell.first, cell)
    now, before, starts = Fraction(0), -1, []
    for cell in ordered.values():
        if cell.first <= before:
            return None, ()
        if cell.begins_chapter:
            starts.append(now)
        now, before = now + cell.seconds, cell.last
    return now or None, tuple(starts)


def _sounds(data: bytes, chain: bytes) -> dict[int, dict[str, str]]:
    found = {}
    for index in range(min(8, _number(data, 0x202, 2))):
        control, entry = chain[0x0C + 2 * index], data[0x204 + 8 * index :][:8]
        first = _FIRST_IDS.get(entry[0] >> 5)
        if control & 0x80 and first is not None:
            has_language = entry[0] >> 2 & 3 == 1
            found[first + (control & 7)] = _names(entry, has_language, _SOUND_TITLES)
    return found


def _subtitles(data: bytes, chain: bytes) -> dict[int, dict[str, str]]:
    """By number of the stream; those of wide films may come in several shapes."""
    is_wide = data[0x200] >> 2 & 3 == 3
    found: dict[int, dict[str, str]] = {}
    for index in range(min(32, _number(data, 0x254, 2))):
        control, entry = chain[0x1C + 4 * index :][:4], data[0x256 + 6 * index :][:6]
        if not control[0] & 0x80:
            continue
        for place in (1, 2, 3) if is_wide else (0,):
            names = _names(entry, entry[0] & 3 == 1, _SUBTITLE_TITLES)
            found.setdefault(control[place] & 31, names)
    return found


def _names(entry: bytes, has_language: bool, titles: dict[int, str]) -> dict[str, str]:
    names = {}
    code = entry[2:4].decode("latin-1").lower() if has_language else ""
    if code in _LANGUAGES:
        names["language"] = _LANGUAGES[code]
    if entry[5] in titles:
        names["title"] = titles[entry[5]]
    return names


def _subtitle_header(data: bytes, chain: bytes) -> bytes:
    width, share = _SIZES[data[0x201] >> 2 & 3]
    height = (576 if data[0x200] >> 4 & 3 == 1 else 480) // share
    palette = ", ".join(_rgb(chain[at + 1 : at + 4]) for at in range(0xA4, 0xE4, 4))
    return f"size: {width}x{height}\npalette: {palette}\n".encode()


def _rgb(color: bytes) -> str:
    """Six digits for Y, Cr, Cb of BT.601, limited range."""
    y, cr, cb = (color[0] - 16) * 255 / 219, (color[1] - 128) / 224, (color[2] - 128) / 224
    red, blue = y + 255 * 1.402 * cr, y + 255 * 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return "".join(f"{min(255, max(0, round(value))):02x}" for value in (red, green, blue))
