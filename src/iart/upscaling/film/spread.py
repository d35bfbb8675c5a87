"""A film on the workers of a cluster, which several films may share.

Where machines share no disk, the source is sent there, and finished segments come back: a pass asks
for what its machine lacks of the source, piece by piece, and keeps it in a temporary folder, where
the other passes of that machine find it. Its own job lies there too; of that it sends every
finished segment. Pieces are messages and answers, which go through Ray's object store.
"""

import logging
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from iart.errors import DeviceError, InputError, OutputError, WeightsError
from iart.files.complete import locked, sync, writing
from iart.parallel.scratch import scratch
from iart.parallel.workers import ClusterWorkers, WorkerLostError
from iart.upscaling.budget import Tiling, device_of
from iart.upscaling.film.job import (
    JOB_FILE,
    model_fingerprint,
    precision_asked,
    source_files,
    source_fingerprint,
)
from iart.upscaling.film.plan import UpscalePlan, film_tiling
from iart.upscaling.film.request import Source, UpscaleRequest
from iart.upscaling.film.segments import SHORTEST
from iart.upscaling.film.worker import Claims, Message, Work
from iart.weights import load_model
from iart.weights.load import from_anywhere

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_NOT_KNOWN = 2**31
"""Frames of a film of which nobody has come to the end: more than any has."""


@dataclass(frozen=True)
class Spread:
    """What takes the place of devices of this machine.

    Attributes:
        workers: of the cluster; they have loaded the model.
        priority: of the film among others that are enlarged at the same time; smaller ones first.
        ship: whether the source is sent to the workers, and segments back; else they share a disk.
    """

    workers: ClusterWorkers[nn.Module]
    priority: int = 0
    ship: bool = False

    def identity(self, model: nn.Module) -> dict[str, str]:
        """What the bytes of the output depend on besides `UpscalePlan.identity`.

        Raises:
            WeightsError: workers have other weights than `model`.
        """
        node, fingerprint, precision = self._one(_identified)
        if fingerprint != (ours := model_fingerprint(model)):
            raise WeightsError(
                f"{node} has other weights ({fingerprint}) than this machine ({ours}); all must be"
                " alike"
            )
        return {"precision": precision}

    def tiling(self, plan: UpscalePlan) -> Tiling:
        """What the model is shown at once, so that it fits the worker with the least memory."""
        weakest = self.workers.weakest()
        height, width = plan.info.height, plan.info.width
        return self._one(partial(_planned, plan.request, height, width, weakest))

    def enlarge(self, work: Work, claims: Claims, frames: int | None) -> None:
        """Enlarge what is not kept yet; `frames` of the film, if that is known.

        Raises:
            DeviceError: a segment was lost with its worker too often, or no worker is left.
            IARTError: what stopped a worker otherwise.
        """
        passes: dict[Future[None], object] = {}
        shipment = Shipment.of(work, self.workers.run) if self.ship else None
        share = work.share if shipment is None else shipment.share
        answer = claims.answer if shipment is None else partial(shipment.answer, claims)
        self.workers.uses_scratch |= self.ship

        def begin() -> None:
            owner = object()
            future = self.workers.submit(share, partial(answer, owner), priority=self.priority)
            passes[future] = owner

        def withdraw() -> None:
            """Passes that no worker has begun."""
            for future in [each for each in passes if each.cancel()]:
                del passes[future]

        try:
            for _ in range(min(self.workers.size, 1 + (frames or _NOT_KNOWN) // SHORTEST)):
                begin()
            while passes:
                for future in wait(passes, return_when=FIRST_COMPLETED).done:
                    owner = passes.pop(future)
                    error = future.exception()
                    if isinstance(error, WorkerLostError):
                        _log.warning("%s; others do what it had begun", error)
                        if too_often := claims.release(owner):
                            numbers = ", ".join(map(str, too_often))
                            what = f"segment {numbers} was lost with its worker too often"
                            raise DeviceError(f"{what}; {_missing(work, claims)}") from error
                        begin()
                    elif isinstance(error, DeviceError):
                        raise DeviceError(f"{error}; {_missing(work, claims)}") from error
                    elif error is not None:
                        raise error
                    elif claims.are_all_given:
                        withdraw()
        except BaseException as error:
            claims.stop(error)
            withdraw()
            wait(passes)  # so that nothing is written any more when the job is left
            raise
        finally:
            if shipment is not None:
                self.workers.remove_scratch(shipment.name)

    def _one(self, task: Callable[[nn.Module, Any], Result]) -> Result:
        """Have any worker do something small."""
        while True:
            try:
                return self.workers.submit(task, priority=-1).result()
            except WorkerLostError:
                continue


def loader(name: str, precision: str, backend: str) -> Callable[[], nn.Module]:
    """A function that loads a model where a worker is; see `iart.weights.load_model`."""
    return partial(load_model, from_anywhere(name), "auto", precision, backend=backend)


def describe(model: nn.Module) -> str:
    """What must be the same in all workers of a film: weights, precision, kind of device."""
    precision = getattr(model, "precision", "float32")
    return f"{model_fingerprint(model)} in {precision} on {device_of(model).type}"


def _identified(model: nn.Module, _: Any) -> tuple[str, str, str]:
    """As a task of a worker."""
    return platform.node(), model_fingerprint(model), precision_asked(model)


def _planned(
    request: UpscaleRequest, height: int, width: int, at_most: int | None, model: nn.Module, _: Any
) -> Tiling:
    """As a task of a worker."""
    return film_tiling(model, request, height, width, at_most=at_most)


def _missing(work: Work, claims: Claims) -> str:
    """Which frames are not there, in words."""
    frames = _NOT_KNOWN if claims.end is None else claims.end.frames
    listed = (
        f"{each.start} and later" if each.stop == _NOT_KNOWN else f"{each.start} to {each.stop - 1}"
        for each in work.store.missing(frames)
    )
    return f"frames that are missing: {', '.join(listed) or 'none'}"


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
