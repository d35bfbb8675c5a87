"""DVDs: the title sets of a disc, each read as one film.

    VIDEO_TS/            VTS_01_0.IFO  VTS_01_0.VOB (menu)  VTS_01_1.VOB  VTS_01_2.VOB …

A folder stands for its largest title set; one of its files stands for the set that it belongs to.
"""

import contextlib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from iart.errors import InputError
from iart.video.dvd.ifo import TitleSheet, read_sheet
from iart.video.dvd.vob import VobStream, declare_subtitles

_PART = re.compile(r"VTS_(\d\d)_(\d)\.(VOB|IFO|BUP)", re.IGNORECASE)

_DESCRIPTORS_AT = 16 * 2048 + 1
"""Where images of discs (ISO 9660, UDF) say what they are."""
_LONG_PROBE = {"probesize": "50000000", "analyzeduration": "180000000"}
"""Bytes and microseconds in which tracks that no IFO announces must begin."""


@dataclass(frozen=True)
class Title:
    """A title set, or a single VOB file.

    Attributes:
        files: VOBs in order, without menus.
        sheets: files that may describe it, the best first.
    """

    files: tuple[Path, ...]
    sheets: tuple[Path, ...] = ()

    @property
    def is_set(self) -> bool:
        """Whether it has the name of a part of a disc."""
        return _PART.fullmatch(self.files[0].name) is not None

    @property
    def size_bytes(self) -> int:
        """Of all VOBs."""
        return sum(file.stat().st_size for file in self.files)

    def sheet(self) -> TitleSheet:
        """What its IFO says, or the copy of it; an empty one if neither can be read."""
        for path in self.sheets:
            with contextlib.suppress(OSError):
                sheet = read_sheet(path.read_bytes())
                if sheet is not None:
                    return sheet
        return TitleSheet()


def find_title(source: str | Path) -> Title | None:
    """The title set that a name stands for; None if it stands for something else.

    Args:
        source: a folder, a file of a disc, another .vob file, or a pattern of VOB files.

    Raises:
        InputError: a part of the title set is missing, the folder cannot be read, or the file is
            the image of a disc.
    """
    path = Path(source)
    part = _PART.fullmatch(path.name)
    try:
        if path.is_dir():
            return max(_titles_in(_video_folder(path)), key=lambda t: t.size_bytes, default=None)
        if path.is_file() and path.name.upper() == "VIDEO_TS.IFO":
            return find_title(path.absolute().parent)
        if path.is_file() and part is not None and _is_of_film(part):
            return _title(path.absolute().parent, part[1])
        if path.is_file():
            _check_no_image(path)
            return Title((path,)) if path.suffix.lower() == ".vob" else None
        return _of_pattern(path) if glob.has_magic(str(source)) else None
    except OSError as error:
        raise InputError(f"cannot read '{source}': {error.strerror or error}") from error


def _check_no_image(path: Path) -> None:
    """Refuse the image of a disc, in which FFmpeg would find some stream without its sheet."""
    mark = b""
    with contextlib.suppress(OSError), path.open("rb") as file:  # told where it is read
        file.seek(_DESCRIPTORS_AT)
        mark = file.read(5)
    if mark in (b"CD001", b"BEA01"):
        raise InputError(
            f"cannot read '{path.name}': it is the image of a disc. Mount it (on Linux: mount -o"
            " loop,ro IMAGE FOLDER) or unpack it (7z x IMAGE), and pass its folder VIDEO_TS"
        )


def find_titles(folder: Path) -> list[Title]:
    """All title sets of a folder, or of VIDEO_TS in it, in order."""
    return _titles_in(_video_folder(folder))


def one_per_title(sources: Sequence[str | Path]) -> list[str | Path]:
    """The sources, but for further VOBs of a title set that is there already, and its menu.

    Shells make a list of all files of VTS_01_*.VOB.
    """
    parts = [_PART.fullmatch(Path(source).name) for source in sources]
    kept: dict[tuple[Path, str], str | Path] = {}
    for source, part in zip(sources, parts, strict=True):
        if part is None:
            kept[(Path(source), "")] = source
        elif _is_of_film(part) or len(sources) == 1:
            kept.setdefault((Path(source).absolute().parent, part[1]), source)
    return list(kept.values()) or list(sources)


def open_media(path: Path, *, metadata_errors: str = "strict") -> InputContainer:
    """Open a file, or the title that it belongs to.

    Raises:
        InputError: see `open_title`.
        FFmpegError, OSError: it cannot be read.
    """
    title = find_title(path)
    if title is not None:
        return open_title(title, metadata_errors=metadata_errors)
    # an absolute path: FFmpeg takes "a:b.mkv" for a protocol
    return av.open(str(path.absolute()), "r", metadata_errors=metadata_errors)


def open_title(title: Title, *, metadata_errors: str = "strict") -> InputContainer:
    """Open a title as one file, with languages, chapters and the colours of subtitles.

    Raises:
        InputError: it is encrypted, or cannot be read for that reason or another.
        FFmpegError: it is no MPEG stream.
    """
    sheet = title.sheet()
    name = title.files[0].name
    options = {} if sheet.tracks else dict(_LONG_PROBE)
    try:
        stream = VobStream(title.files, declare_subtitles(sheet.subtitles))
        if stream.is_encrypted():
            raise InputError(
                f"cannot read '{name}': it is encrypted (CSS); decrypt it with a disc ripper first"
            )
    except OSError as error:
        raise InputError(
            f"cannot read '{name}': {error.strerror or error}. The disc is damaged, or encrypted"
            " (CSS); copy it with a disc ripper first"
        ) from error
    container = av.open(stream, "r", metadata_errors=metadata_errors, options=options)
    for entry in container.streams:
        entry.metadata.update(sheet.tracks.get(entry.id, {}))
        if entry.type == "subtitle" and sheet.subtitle_header:
            entry.codec_context.extradata = sheet.subtitle_header
    container.set_chapters(_chapters(sheet, container))
    return container


def stated_duration(path: Path) -> Fraction | None:
    """Seconds that the IFO of a title states; the clock of several VOBs does not tell."""
    title = find_title(path)
    return None if title is None else title.sheet().duration_seconds


def _chapters(sheet: TitleSheet, container: InputContainer) -> list:
    """As PyAV takes them, in the clock of the file."""
    starts, end = sheet.chapter_starts, sheet.duration_seconds
    if len(starts) < 2 or end is None:
        return []
    first = Fraction(container.start_time or 0, av.time_base)
    return [
        {
            "id": number,
            "start": round((first + start) * 1000),
            "end": round((first + stop) * 1000),
            "time_base": Fraction(1, 1000),
            "metadata": {"title": f"Chapter {number:02}"},
        }
        for number, (start, stop) in enumerate(zip(starts, (*starts[1:], end), strict=True), 1)
    ]


def _is_of_film(part: re.Match[str]) -> bool:
    """Whether a file's name is that of a film's part or sheet, not of a menu."""
    return part[2] != "0" or part[3].upper() != "VOB"


def _video_folder(folder: Path) -> Path:
    """The folder itself, or VIDEO_TS in it."""
    inner = (entry for entry in folder.iterdir() if entry.name.upper() == "VIDEO_TS")
    return next((entry for entry in inner if entry.is_dir()), folder)


def _titles_in(folder: Path) -> list[Title]:
    parts = (_PART.fullmatch(entry.name) for entry in folder.iterdir())
    films = {part[1] for part in parts if part and part[2] != "0" and part[3].upper() == "VOB"}
    return [_title(folder, number) for number in sorted(films)]


def _title(folder: Path, number: str) -> Title:
    named = [(_PART.fullmatch(entry.name), entry) for entry in sorted(folder.iterdir())]
    ours = [(part, entry) for part, entry in named if part is not None and part[1] == number]
    files = {int(part[2]): e for part, e in ours if part[2] != "0" and part[3].upper() == "VOB"}
    for index in range(1, max(files, default=1)):
        if index not in files:
            raise InputError(
                f"cannot read '{folder.name}': VTS_{number}_{index}.VOB is missing, though there"
                f" are later parts; copy it too"
            )
    if not files:
        raise InputError(f"cannot read '{folder.name}': there is no VTS_{number}_1.VOB")
    sheets = {part[3].upper(): entry for part, entry in ours if part[3].upper() != "VOB"}
    best = [sheets[kind] for kind in ("IFO", "BUP") if kind in sheets]
    return Title(tuple(files[index] for index in sorted(files)), tuple(best))


def _of_pattern(pattern: Path) -> Title | None:
    """The title set that all matches belong to."""
    matches = sorted(pattern.parent.glob(pattern.name))
    parts = [_PART.fullmatch(match.name) for match in matches]
    numbers = {part[1] if part else None for part in parts}
    number = numbers.pop() if len(numbers) == 1 else None
    return None if number is None else _title(pattern.absolute().parent, number)
