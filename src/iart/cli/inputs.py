"""Many files at once: which sources there are, and where each one's output goes."""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from iart.errors import InputError, OptionsError, OutputError
from iart.files.images import VIDEO_ENDINGS, is_image
from iart.files.names import FRAMES, frames_of
from iart.video.dvd.disc import find_titles, one_per_title
from iart.video.write.codecs import CONTAINERS
from iart.video.write.writer import is_folder

Source = str | Path | list[str | Path]


def pair_up(
    sources: Sequence[str | Path],
    output: str | Path | None,
    *,
    size: str | None = None,
    container: str | None = None,
    images: bool = False,
) -> list[tuple[Source, Path | str]]:
    """What to enlarge, and where to.

    A file, a folder of images, or a pattern is one video; so are several images. A folder that
    holds more videos than images is each of its videos, in order of their names. Videos go to a
    folder each under its own name, one as well as many; as pictures only if `images` asks for them.
    Images go to a folder as pictures, unless `container` asks for a video. Without an output each
    goes beside its source: "in.mkv" becomes "in_x4.mkv", "shot/" a folder "shot_x4".

    Args:
        sources: files, folders or patterns.
        output: of one video, or numbered images ("out/f%03d.png"); a folder for several; or None.
        size: of the outputs, for names beside sources.
        container: ending of the outputs in that folder; None for that of the source where it can be
            written, else mkv; beside sources always mkv.
        images: whether videos become folders of pictures.

    Raises:
        InputError: images and videos together, or a folder that cannot be read.
        OptionsError: an unknown container, or one for pictures.
        OutputError: several videos go to one file, or two to the same name.
    """
    if container is not None and container not in CONTAINERS:
        raise OptionsError(f"unknown container {container!r}; known are {', '.join(CONTAINERS)}")
    if images and container is not None:
        raise OptionsError("pass --images for pictures or --container for videos, not both")
    works, is_one = _works(sources)
    as_pictures = images or (container is None and _holds_images(works[0]))
    if output is None:
        word = "_x4" if size is None else f"_{size.replace(':', 'x')}"
        works = [work for work in works if is_one or not _is_result(work, word, works)]

        def beside(work: Source) -> Path:
            name = _name(work, container, images=as_pictures, word=word, usual="mkv")
            return _named_for(work).parent / name

        return _apart(works, beside, images=as_pictures)
    folder, names = frames_of(output)
    is_numbered = names is not FRAMES
    if is_image(output) and not is_numbered and not Path(output).is_dir():
        path = Path(output)
        folder = path.parent if "%" in path.name else path.with_suffix("")
        raise OutputError(
            f"cannot write '{output}': for pictures pass a folder, -o '{folder}/' --images"
        )
    if images and not is_folder(output):
        raise OutputError(
            f"cannot write pictures to '{output}': pass a folder, or leave --images out"
        )
    if is_numbered and container is not None:
        raise OptionsError(f"'{output}' stands for images: leave --container out")
    if is_one and (as_pictures or is_numbered or not is_folder(output)):
        return [(works[0], output)]
    if is_numbered or not is_folder(output):
        other = f"{folder}/' --images" if is_numbered else f"{Path(output).with_suffix('')}/'"
        raise OutputError(
            f"cannot write {len(works)} videos to '{output}': pass a folder, such as '{other}"
        )
    return _apart(
        works, lambda work: Path(output) / _name(work, container, images=images), images=images
    )


def works_of(sources: Sequence[str | Path]) -> list[Source]:
    """What is enlarged each for itself; errors as `pair_up`."""
    return _works(sources)[0]


def _works(sources: Sequence[str | Path]) -> tuple[list[Source], bool]:
    """What is enlarged each for itself; and whether that is one work, named by its source."""
    sources = one_per_title(sources)
    if len(sources) > 1 and all(_is_image(source) for source in sources):
        return [list(sources)], True
    found = [_videos_of(Path(source)) for source in sources]
    if len(sources) == 1 and found[0] is None:
        return [sources[0]], True
    if any(_is_image(source) for source in sources):
        raise InputError(
            "images and videos together: pass images alone (they become one video), or a folder"
        )
    return [*chain(*(found[i] or [Path(sources[i])] for i in range(len(sources))))], False


def _apart(
    works: Sequence[Source], name: Callable[[Source], Path], *, images: bool
) -> list[tuple[Source, Path | str]]:
    """Each with its output, all different."""
    taken: dict[Path, Source] = {}
    for work in (work if isinstance(work, list) else Path(work) for work in works):
        target = name(work)
        if target in taken:
            raise OutputError(
                f"'{taken[target]}' and '{work}' would both become '{target}'; enlarge them apart"
            )
        taken[target] = work
    # a slash: the name of a folder may have a dot
    return [(work, f"{target}/" if images else target) for target, work in taken.items()]


def make_folder(path: str | Path) -> bool:
    """Make the folder that outputs go to, unless it is there.

    Returns:
        Whether it was made.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        existed = Path(path).is_dir()
        Path(path).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder '{path}': {error.strerror}") from error
    return not existed


def _is_image(source: str | Path) -> bool:
    return is_image(source) and not Path(source).is_dir()


def _holds_images(work: Source) -> bool:
    """Whether it is a series of images."""
    if isinstance(work, list):
        return True
    folder = Path(work)
    return not find_titles(folder) if folder.is_dir() else is_image(folder)


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
    images = sum(is_image(entry) for entry in names)
    return videos if len(videos) > images else None


def _named_for(work: Source) -> Path:
    """The file or folder whose name the output gets: of several images their folder."""
    path = Path(work[0] if isinstance(work, list) else work)
    if not path.exists() or isinstance(work, list):
        path = path.parent if is_image(path) else path
    elif path.name.upper() == "VIDEO_TS":
        path = path.absolute().parent
    return path if path.name else path.absolute()


def _name(
    work: Source, container: str | None, *, images: bool, word: str = "", usual: str | None = None
) -> str:
    path = _named_for(work)
    name, own = (path.name, "") if path.is_dir() else (path.stem, path.suffix.lower()[1:])
    ending = container or usual or (own if own in CONTAINERS else "mkv")
    return f"{name}{word}" if images else f"{name}{word}.{ending}"


def _is_result(work: Source, word: str, works: Sequence[Source]) -> bool:
    """Whether a video of a folder is what an earlier run made of another one in it."""
    stem = _named_for(work).stem
    return any(stem == f"{_named_for(other).stem}{word}" for other in works)
