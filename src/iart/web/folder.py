"""The folder that is served: nothing outside of it is read or written, whatever a name says."""

import os
from pathlib import Path

from iart.errors import InputError, OutputError
from iart.files.images import VIDEO_ENDINGS, is_image, natural_key
from iart.files.shipped import shipped_models
from iart.upscaling.film.request import AUTO
from iart.video.write.codecs import CONTAINERS

OWN = ".iart"
"""Folder in it for jobs, previews and uploads."""
DEPTH = 3
MOST_ENTRIES = 2000
_WEIGHTS = (".safetensors", ".pth")


class Folder:
    """A folder of sources and outputs.

    Attributes:
        root: without links.
        own: for what belongs to the page.
    """

    def __init__(self, root: Path) -> None:
        """Make the hidden folder.

        Raises:
            InputError: no such folder, or it is not writable.
        """
        if not root.is_dir():
            raise InputError(f"cannot serve '{root}': no such folder. Check the path")
        self.root = root.resolve()
        self.own = self.root / OWN
        try:
            for name in ("jobs", "previews", "uploads"):
                (self.own / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot serve '{root}': {error.strerror}") from error

    def sources(self) -> list[str]:
        """Names of videos, DVDs and folders of images, at most `DEPTH` folders deep."""
        found: list[str] = []
        for folder, inner, files in os.walk(self.root):
            place = Path(folder)
            depth = len(place.relative_to(self.root).parts)
            shown = [name for name in files if not name.startswith(".")]
            names = [n for n in shown if Path(n).suffix.lower() in VIDEO_ENDINGS]
            if place.name.upper() == "VIDEO_TS":
                found.append(self.name(place))
            else:
                found += [self.name(place / name) for name in names]
                if depth and any(map(is_image, shown)):
                    found.append(self.name(place))
            inner[:] = [n for n in inner if not n.startswith(".") and depth < DEPTH]
            if len(found) > MOST_ENTRIES:
                break
        inside = [name for name in found if self._is_inside(self.root / name)]
        return sorted(inside, key=natural_key)[:MOST_ENTRIES]

    def models(self) -> list[str]:
        """What `--model` takes: auto, models that ship, weights at the top of the folder."""
        files = [p.name for p in self.root.iterdir() if p.suffix in _WEIGHTS and self._is_inside(p)]
        return [AUTO, *reversed(shipped_models()), *sorted(files, key=natural_key)]

    def model(self, name: str) -> str:
        """What `--model` takes.

        Raises:
            InputError: no such model in the folder.
        """
        return name if name in (AUTO, *shipped_models()) else str(self.find(name))

    def name(self, path: Path) -> str:
        """How the page calls a path below the folder."""
        return path.relative_to(self.root).as_posix()

    def find(self, name: str) -> Path:
        """A file or folder that a client names.

        Raises:
            InputError: it does not exist, is hidden, or lies outside, be it by a link.
        """
        path = self.root / name
        if not _is_plain(name) or not self._is_inside(path):
            raise InputError(f"cannot read '{name}': nothing of that name in this folder")
        if path.is_dir() and not all(map(self._is_inside, path.iterdir())):
            raise InputError(f"cannot read '{name}': it holds links that lead out of this folder")
        return path.resolve()

    def output(self, name: str, container: str | None) -> Path:
        """The path of an output that a client names, in an existing folder.

        Raises:
            OutputError: it would lie outside, be hidden, or be of another kind.
        """
        path = self.root / name
        if not _is_plain(name) or not self._is_inside(path.parent) or path.is_symlink():
            raise OutputError(f"cannot write '{name}': pass a name in this folder")
        if container is not None and path.suffix.lower().removeprefix(".") not in CONTAINERS:
            path = path.with_name(f"{path.name}.{container}")
        return path.parent.resolve() / path.name

    def take_upload(self, file: Path) -> str:
        """Give an uploaded file its name at the top of the folder, which replaces nothing.

        Raises:
            InputError: it is no video by its name.
            OutputError: the name is taken.
        """
        target = self.root / file.name
        if not _is_plain(file.name) or target.suffix.lower() not in VIDEO_ENDINGS:
            raise InputError(f"cannot take '{file.name}': only videos can be added")
        if os.path.lexists(target):
            raise OutputError(f"cannot take '{file.name}': the name is taken in this folder")
        file.replace(target)
        return target.name

    def _is_inside(self, path: Path) -> bool:
        """Whether it exists in the folder, with links followed."""
        try:
            return path.resolve(strict=True).is_relative_to(self.root)
        except (OSError, RuntimeError, ValueError):
            return False


def _is_plain(name: str) -> bool:
    """Whether a name is relative, goes down only, and neither empty nor hidden."""
    parts = Path(name).parts
    is_safe = "\0" not in name and "\\" not in name and not Path(name).is_absolute()
    return is_safe and bool(parts) and not any(part.startswith(".") for part in parts)
