"""Many files at once: which sources there are, and where each one's output goes."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from iart.errors import InputError, OptionsError, OutputError
from iart.video.codecs import CONTAINERS
from iart.video.dvd import find_titles, one_per_title
from iart.video.images import IMAGE_ENDINGS
from iart.video.writer import is_folder

VIDEO_ENDINGS = frozenset(
    f".{name}"
    for names in (
        ("mp4", "mkv", "mov", "webm", "avi", "mpg", "mpeg", "m2v", "m1v", "mpv", "vob", "ts"),
        ("m2ts", "mts", "m4v", "wmv", "asf", "flv", "f4v", "ogv", "ogm", "3gp", "3g2", "mxf"),
        ("dv", "rm", "rmvb", "divx", "y4m", "nut", "ivf", "264", "h264", "265", "hevc", "obu"),
    )
    for name in names
)
"""Files with other endings in a folder are not taken for videos."""

Source = str | Path | list[str | Path]


def pair_up(
    sources: Sequence[str | Path], output: str | Path, *, container: str | None = None
) -> list[tuple[Source, Path | str]]:
    """What to enlarge, and where to.

    A file, a folder of images, or a pattern is one video; so are several images. A folder that
    holds more videos than images is each of its videos, in order of their names. Several videos go
    to a folder, each under its own name; one video goes to a folder as pictures, unless `container`
    asks for a video.

    Args:
        sources: files, folders or patterns.
        output: of one video; or a folder for several.
        container: ending of the outputs in that folder; None for that of the source where it can be
            written, else mkv.

    Raises:
        InputError: images and videos together, or a folder that cannot be read.
        OptionsError: an unknown container.
        OutputError: several videos go to one file, or two to the same name.
    """
    if container is not None and container not in CONTAINERS:
        raise OptionsError(f"unknown container {container!r}; known are {', '.join(CONTAINERS)}")
    sources = one_per_title(sources)
    if len(sources) > 1 and all(_is_image(source) for source in sources):
        return [(list(sources), output)]
    found = [_videos_of(Path(source)) for source in sources]
    as_videos = container is not None and is_folder(output)
    if len(sources) == 1 and found[0] is None and not as_videos:
        return [(sources[0], output)]
    if len(sources) > 1 and any(_is_image(source) for source in sources):
        raise InputError(
            "images and videos together: pass images alone (they become one video), or a folder"
        )
    videos = list(chain(*(found[i] or [Path(sources[i])] for i in range(len(sources)))))
    if not is_folder(output):
        raise OutputError(
            f"cannot write {len(videos)} videos to '{output}': pass a folder, such as"
            f" '{Path(output).with_suffix('')}/'"
        )
    pairs = [(video, Path(output) / _name(video, container)) for video in videos]
    taken: dict[Path, Path] = {}
    for video, target in pairs:
        if target in taken:
            raise OutputError(
                f"'{taken[target]}' and '{video}' would both become '{target}'; enlarge them apart"
            )
        taken[target] = video
    return [(video, target) for video, target in pairs]


def make_folder(path: str | Path) -> None:
    """Make the folder that several outputs go to, unless it is there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        Path(path).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder '{path}': {error.strerror}") from error


def _is_image(source: str | Path) -> bool:
    return Path(source).suffix.lower() in IMAGE_ENDINGS and not Path(source).is_dir()


def _videos_of(folder: Path) -> list[Path] | None:
    """The videos of a folder that holds several works; None if it is one work, or no folder."""
    try:
        if not folder.is_dir():
            return None
        names = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read '{folder}': {error.strerror}") from error
    if find_titles(folder):
        return None  # a DVD
    videos = sorted(entry for entry in names if entry.suffix.lower() in VIDEO_ENDINGS)
    images = sum(entry.suffix.lower() in IMAGE_ENDINGS for entry in names)
    return videos if len(videos) > images else None


def _name(source: Path, container: str | None) -> str:
    if source.is_dir():
        folder = source.absolute()
        folder = folder.parent if folder.name.upper() == "VIDEO_TS" else folder
        return f"{folder.name}.{container or 'mkv'}"
    own = source.suffix.lower().removeprefix(".")
    return f"{source.stem}.{container or (own if own in CONTAINERS else 'mkv')}"
