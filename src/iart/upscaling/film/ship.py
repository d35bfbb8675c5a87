"""Films on machines that share no disk: the source is sent there, finished segments come back.

A pass asks for what its machine lacks of the source, piece by piece, and keeps it in a temporary
folder, where the other passes of that machine find it. Its own job lies there too; of that it sends
every finished segment. Pieces are messages and answers, which go through Ray's object store.
"""

import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from iart.errors import InputError, OutputError
from iart.files.complete import sync, writing
from iart.files.locks import locked
from iart.parallel.scratch import scratch
from iart.upscaling.film.claims import Claims, Message
from iart.upscaling.film.job import JOB_FILE, source_files, source_fingerprint
from iart.upscaling.film.request import Source
from iart.upscaling.film.worker import Work

PIECE_BYTES = 16 * 2**20
"""Of a file at a time: one for each machine and film that begins has room in a small store."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Asks for a piece of a file of the source; the answer is `bytes`."""

    number: int
    start: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file of a finished segment.

    Attributes:
        name: of the file, below the folder of segments.
        sender: stands for the pass.
        start: where in the file it begins.
        content: at most `PIECE_BYTES`.
        is_last: whether the file ends with it.
    """

    name: str
    sender: str
    start: int
    content: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    mtime_ns: int

    def is_there(self, path: Path) -> bool:
        """Whether a file looks like this one."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True)
class Shipment:
    """The work of a film, for passes that see neither its source nor its job.

    Attributes:
        work: as it is here; the paths of the source are without links and dots.
        files: of the source.
        run: what the folders of this command are called on all machines, see `scratch`.
        name: of the film's folder in them.
    """

    work: Work
    files: tuple[_File, ...]
    run: str
    name: str

    @classmethod
    def of(cls, work: Work, run: str) -> "Shipment":
        """Pack work up."""
        source = _plain(work.request.source)
        paths = dict.fromkeys(source_files(source))
        if isinstance(source, Path) and source.is_file():  # a disc's menu stands for its title
            paths[source] = None
        stats = [(path, path.stat()) for path in paths]
        files = tuple(_File(path, each.st_size, each.st_mtime_ns) for path, each in stats)
        request = replace(work.request, source=source)
        work = replace(work, request=request, content=source_fingerprint(source))
        return cls(work, files, run, secrets.token_hex(4))

    def share(self, model: nn.Module, tell: Callable[[Any], Any]) -> None:
        """Take part, as a task of a worker process: see `Work.share`."""
        with self._unpacked(tell) as work:

            def tell_and_send(message: Message) -> int | None:
                _send(work, tell)
                return tell(message)

            work.share(model, tell_and_send)
            _send(work, tell)

    def answer(self, claims: Claims, owner: object, message: Missing | Piece | Message) -> Any:
        """What is told by a pass, see `Claims.answer`.

        Raises:
            InputError: the source has changed, or cannot be read.
            OutputError: the disk refuses what is sent.
        """
        if isinstance(message, Missing | Piece):
            claims.check()
        if isinstance(message, Missing):
            return self._read(message)
        if isinstance(message, Piece):
            return self._take(message)
        return claims.answer(owner, message)

    def _read(self, asked: Missing) -> bytes:
        file = self.files[asked.number]
        if not file.is_there(file.path):
            raise InputError(f"'{file.path}' has changed while it was sent to other machines")
        try:
            with file.path.open("rb") as opened:
                opened.seek(asked.start)
                return opened.read(PIECE_BYTES)
        except OSError as error:
            raise InputError(f"cannot read '{file.path}': {error.strerror}") from error

    def _take(self, piece: Piece) -> None:
        folder = self.work.store.folder
        whole = folder / piece.name
        part = folder / f"{whole.name}.{piece.sender}.part"
        with writing(Path(self.work.request.output)):
            with part.open("ab" if piece.start else "wb") as file:
                file.write(piece.content)
            if piece.is_last:
                sync(part)
                whole.parent.mkdir(exist_ok=True)
                part.replace(whole)
                sync(whole.parent)

    @contextmanager
    def _unpacked(self, tell: Callable[[Any], Any]) -> Iterator[Work]:
        """On a machine of the cluster: the work, with its own copy of the source and a job."""
        with scratch(self.run, self.name) as folder:
            root, job = folder / "source", folder / secrets.token_hex(4)
            try:
                (job / "segments").mkdir(parents=True)
                (job / JOB_FILE).touch()
                with locked(folder / "lock"):
                    self._fetch(root, tell)
                yield replace(
                    self.work,
                    request=replace(
                        self.work.request, source=_moved(self.work.request.source, root)
                    ),
                    folder=job,
                    store=replace(self.work.store, folder=job / "segments"),
                    root=root,
                )
            finally:
                shutil.rmtree(job, ignore_errors=True)

    def _fetch(self, root: Path, tell: Callable[[Any], Any]) -> None:
        for number, file in enumerate(self.files):
            copy, part = _below(root, file.path), root / "part"
            if file.is_there(copy):
                continue
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as written:
                    while written.tell() < file.size:
                        written.write(tell(Missing(number, written.tell())))
                os.utime(part, ns=(file.mtime_ns, file.mtime_ns))
                if not file.is_there(part):  # else every pass would fetch it again
                    raise OSError("the disk keeps no exact times")
                part.replace(copy)
            except OSError as error:
                raise OutputError(
                    f"{platform.node()} cannot keep a copy of '{file.path}' in '{root}': {error}"
                ) from error


def _send(work: Work, tell: Callable[[Any], Any]) -> None:
    """Send what segments are finished, and remove them."""
    for number in work.store.finished_numbers():
        for path in work.store.files(number):
            name, size, start = str(path.relative_to(work.store.folder)), path.stat().st_size, 0
            with path.open("rb") as file:
                while True:
                    content = file.read(PIECE_BYTES)
                    stop = start + len(content)
                    tell(Piece(name, work.folder.name, start, content, stop == size))
                    start = stop
                    if stop == size:
                        break
            path.unlink()


def _plain(source: Source) -> Source:
    """Absolute, and such that no folder above is a link or a dot."""
    if isinstance(source, str | Path):
        path = Path(source).absolute()
        return path.parent.resolve() / path.name
    return [path for each in source if isinstance(path := _plain(each), Path)]


def _moved(source: Source, root: Path) -> Source:
    """The same below another root."""
    if isinstance(source, str | Path):
        return _below(root, Path(source))
    return [_below(root, Path(each)) for each in source]


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to(path.anchor)
