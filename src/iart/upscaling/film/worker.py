"""One pass over a film that enlarges what is not kept yet, segment by segment.

Every pass reads the film from its beginning, and so finds the same segments and the same windows
of the network. A pass asks when it comes to a segment that it does not know to be its own, and
`Claims` gives it the next one that nobody has; of the others it only reads the frames. It ends when
nothing is left. That is how a run goes on after a crash, and how several processes share the work:
what is early in the film is finished early, and one question is asked for each segment, however
many workers there are.
"""

import logging
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from iart.errors import InputError, OutputError
from iart.parallel.pipeline import read_ahead, write_behind
from iart.upscaling.budget import Tiling, device_of
from iart.upscaling.clip import Step, enlarge_steps
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.film.conform import Conform
from iart.upscaling.film.job import JOB_FILE, End, Job, source_files, source_fingerprint
from iart.upscaling.film.plan import UpscalePlan, open_source
from iart.upscaling.film.request import UpscaleRequest, absolute
from iart.upscaling.film.segments import FilmStore, PictureStore, Segment, Segments, SegmentStore
from iart.video.frame import Frame, Loss
from iart.video.read.image_series import ImageReader
from iart.video.read.reader import VideoReader
from iart.video.write import segment as segment_files
from iart.video.write.writer import writing_video

MOST_LOSSES = 3
"""How often a segment may be lost with its worker before the work is given up."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks for a segment, from the one of this number on."""

    number: int


@dataclass(frozen=True, slots=True)
class Done:
    """Tells that so many more frames were enlarged."""

    frames: int


Message = Claim | Done | End
"""What a pass tells; it is an `End` when it has read the last frame of the film."""


class Claims:
    """Answers what passes tell, all of them in one place.

    Attributes:
        end: of the film, once a pass has read it.
    """

    def __init__(self, store: SegmentStore, count: Callable[[int], None]) -> None:
        """Take up what is finished in a store; `count` is called with frames that are done."""
        self.end: End | None = None
        self._store, self._count = store, count
        self._lock = threading.Lock()
        self._owners: dict[int, Any] = dict.fromkeys(store.finished_numbers())
        self._losses: Counter[int] = Counter()
        self._error: BaseException | None = None

    def answer(self, owner: object, message: Message) -> int | None:
        """What is told by a pass that belongs to `owner`, which stands for nobody else.

        Returns:
            For a claim, a segment's number; None if nothing is left from there on.

        Raises:
            BaseException: what `stop` was given.
        """
        self.check()
        if isinstance(message, Done):
            self._count(message.frames)
        elif isinstance(message, End):
            self.end = message
        else:
            return self._claimed(owner, message.number)
        return None

    def check(self) -> None:
        """Raise what `stop` was given, if anything."""
        if self._error is not None:
            raise self._error

    @property
    def are_all_given(self) -> bool:
        """Whether every segment of the film was given to somebody."""
        with self._lock:
            return self.end is not None and all(n in self._owners for n in range(self.end.segments))

    def release(self, owner: object) -> list[int]:
        """Let others have what an owner that is lost did not finish.

        Returns:
            Segments that were lost too often by now.
        """
        with self._lock:
            owned = [number for number, by in self._owners.items() if by is owner]
            lost = [number for number in owned if self._store.finished(number) is None]
            for number in lost:
                del self._owners[number]
            self._losses.update(lost)
        if self.end is not None:
            lost = [number for number in lost if number < self.end.segments]
        return [number for number in lost if self._losses[number] >= MOST_LOSSES]

    def stop(self, error: BaseException) -> None:
        """Answer with an error from now on, which ends every pass."""
        self._error = error

    def _claimed(self, owner: object, number: int) -> int | None:
        with self._lock:
            while number in self._owners:
                number += 1
            if self.end is not None and number >= self.end.segments:
                return None
            self._owners[number] = owner
            return number


_log = logging.getLogger(__name__)

# Frames between the threads: enough to bridge a burst (a window comes out of the network at once).
READ_AHEAD = 8
CONFORM_BEHIND = 2
WRITE_BEHIND = 4
TELL_EVERY_SECONDS = 0.5
"""How often another process tells of its progress."""

Ask = Callable[[Message], int | None]
"""How a pass tells of its work and asks for more, see `Claims.answer`."""


@dataclass(frozen=True)
class Work:
    """What a process must know to take part in a job; can be sent to other processes.

    Attributes:
        request: with borders found and times in the clock of the file.
        folder: of the job.
        store: what becomes of finished frames.
        conform: what is done to frames before and after the network.
        tiling: what the model is shown at once.
        content: of the source, see `source_fingerprint`.
        root: of a copy of the source, see there.
    """

    request: UpscaleRequest
    folder: Path
    store: FilmStore | PictureStore
    conform: Conform
    tiling: Tiling
    content: str
    root: Path | None = None

    @classmethod
    def of(cls, plan: UpscalePlan, job: Job, tiling: Tiling, content: str) -> "Work":
        """The work of a job; paths are such that they do not depend on the folder one is in."""
        request = replace(plan.request, source=absolute(plan.request.source))
        return cls(request, job.folder, plan.store(job.segments), plan.conform, tiling, content)

    def share(self, model: nn.Module, tell: Ask) -> None:
        """Take part, as a task of a worker process: see `run`.

        Raises:
            InputError: this machine has no source like that, or cannot read it.
            OutputError: this machine does not see the job's folder.
        """
        self._check()
        done, told = 0, time.monotonic()

        def ask(message: Message) -> int | None:
            nonlocal done, told
            done += message.frames if isinstance(message, Done) else 0
            now = time.monotonic()
            if done and (not isinstance(message, Done) or now - told >= TELL_EVERY_SECONDS):
                tell(Done(done))
                done, told = 0, now
            return None if isinstance(message, Done) else tell(message)

        with open_source(self.request) as reader:
            self.run(reader, model, ask)
        if done:
            tell(Done(done))

    def _check(self) -> None:
        here, request = platform.node(), self.request
        try:
            if not source_files(request.source):
                raise InputError("it is not there")
            content = source_fingerprint(request.source, self.root)
        except (OSError, InputError) as error:
            raise InputError(
                f"{here} cannot read '{request.name}': {error} (--ship sends it there)"
            ) from error
        if content != self.content:
            raise InputError(
                f"{here} has another '{request.name}': its size or time of change differs; all"
                " machines must see one file there, or pass --ship"
            )
        if not (self.folder / JOB_FILE).is_file():
            raise OutputError(
                f"{here} does not see '{self.folder}': all machines must share the folder of the"
                " output, or pass --ship"
            )

    def run(self, reader: VideoReader | ImageReader, model: nn.Module, ask: Ask) -> None:
        """Enlarge what nobody else does, until nothing is left.

        Reading, the network, resampling, encoding and the end of the segment before go on at the
        same time.

        Args:
            reader: of the source.
            model: enlarges `b t 3 h w`; runs where its parameters lie.
            ask: is told of every frame that was enlarged, and gives segments.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
        """
        share, device = _Share(self, ask), device_of(model)
        enlarger, tiling = Enlarger(model, self.tiling), self.tiling
        reader.device = device

        def pass_on(ticket: _Ticket) -> None:
            frame = ticket.frame
            write(ticket if frame is None else replace(ticket, frame=self.conform.after(frame)))

        with (
            read_ahead(self.conform.before(reader), READ_AHEAD, device) as frames,
            _Sink(self) as sink,
            write_behind(sink.write, WRITE_BEHIND, device) as write,
            write_behind(pass_on, CONFORM_BEHIND, device) as conform,
        ):
            steps = share.steps(frames, lambda: tuple(reader.losses))
            for frame, state in enlarge_steps(steps, enlarger):
                while share.tickets[0].is_kept:
                    conform(share.tickets.popleft())
                ticket = share.tickets.popleft()
                if enlarger.tiling != tiling:  # of which it has warned
                    tiling = enlarger.tiling
                    where = (ticket.segment.number, ticket.index)
                    _log.warning("that was in segment %d, at frame %d", *where)
                conform(replace(ticket, frame=frame, state=state))
                ask(Done(1))
            for ticket in share.tickets:
                conform(ticket)


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Where an enlarged frame belongs.

    Attributes:
        segment: its segment.
        index: its number in the film.
        slot: its slot in the segment, see `Store.slots`.
        is_kept: whether an earlier run has enlarged it.
        frame: what is to be written; None if it is kept, or not made yet.
        state: of the network after it, at the end of a window.
    """

    segment: Segment
    index: int
    slot: Any
    is_kept: bool
    frame: Frame | None = None
    state: Mapping[str, Tensor] | None = None


class _Share:
    """What of a film falls to this pass.

    Attributes:
        tickets: of the frames of our segments that have not been passed on yet.
        frames: seen so far.
        segments: seen so far.
    """

    def __init__(self, work: Work, ask: Ask) -> None:
        self.tickets: deque[_Ticket] = deque()
        self.frames = self.segments = 0
        self._store, self._ask = work.store, ask
        self._slot_of = work.store.slots()
        self._plan = Segments()
        self._is_ours, self._usable = False, range(0)
        self._given: int | None = -1  # the newest; None if there are no more

    def steps(
        self, frames: Iterable[Frame], losses: Callable[[], tuple[Loss, ...]]
    ) -> Iterator[Step]:
        """What is to be done with each frame, until nothing is left to do; tells of the end."""
        for frame in frames:
            yield self.step(frame)
            if self._given is None and not self.tickets:
                return
        self._ask(End(self.frames, self.segments, losses()))

    def step(self, frame: Frame) -> Step:
        """What is to be done with the next frame of the film."""
        index, slot, segment = self.frames, self._slot_of(frame), self._plan.place(frame.cut)
        begins_chain = segment.number == self.segments
        self.frames += 1
        if begins_chain:
            self.segments += 1
            kept = self._store.has_segment(segment)
            if self._given is not None and self._given < segment.number:
                self._given = self._ask(Claim(segment.number))
            self._is_ours = not kept and self._given == segment.number
            self._usable = self._store.usable(segment.number) if self._is_ours else range(0)
        if not self._is_ours:
            return Step(frame, is_wanted=False, begins_chain=begins_chain)
        is_kept = index in self._usable
        self.tickets.append(_Ticket(segment, index, slot, is_kept))
        goes_on = self._usable and index == self._usable.stop
        state = self._store.load_state(segment.number) if goes_on else None
        return Step(frame, not is_kept, begins_chain, state)


class _Sink:
    """Writes frames in order; each segment is finished while the next one is under way."""

    def __init__(self, work: Work) -> None:
        self._output, self._store = Path(work.request.output), work.store
        self._segment: Segment | None = None
        self._writer: Any = None  # of the store
        self._thread = ThreadPoolExecutor(1, "finish")
        self._finishing: Future[None] | None = None
        self._began = self._saved = time.monotonic()

    def write(self, ticket: _Ticket) -> None:
        """Write one frame, or take up the picture that is kept of it."""
        with writing_video(self._output):
            if ticket.segment != self._segment:
                self._turn()
                self._segment = ticket.segment
                self._writer = self._store.open(ticket.segment, self._began)
                self._saved = self._began
            self._writer.write(ticket.frame, ticket.slot)
        now = time.monotonic()
        if ticket.state is not None and now - self._saved >= segment_files.KEEP_AFTER_SECONDS:
            self._store.save_state(ticket.segment, ticket.index + 1, ticket.state)
            self._saved = now

    def __enter__(self) -> "_Sink":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with writing_video(self._output), self._thread:
            if kind is None:
                self._turn()
                self._turn()
            elif self._writer is not None:
                self._writer.abort()

    def _turn(self) -> None:
        """Begin to finish the current segment, once the one before is finished."""
        if self._finishing is not None:
            self._finishing.result()
        self._finishing = None
        if self._writer is not None:
            assert self._segment is not None
            self._finishing = self._thread.submit(self._finish, self._writer, self._segment)
            self._writer = None
        self._began = time.monotonic()

    def _finish(self, writer: Any, segment: Segment) -> None:
        try:
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        self._store.forget_state(segment.number)
