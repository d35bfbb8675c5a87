"""One pass over a film that enlarges what is not kept yet, segment by segment.

Every pass reads the whole film, and so finds the same segments and the same windows of the network.
A pass takes a segment that nobody has finished or begun; of the others it only reads the frames.
That is how a run goes on after a crash, and how several processes share the work.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from torch import nn

from iart.inference.conform import Conform
from iart.inference.job import End, Job, claim
from iart.inference.order import Order, Target
from iart.inference.parts import Parts, PartWriter, Ticket
from iart.inference.pipeline import read_ahead, write_behind
from iart.inference.segments import Segment, Segments
from iart.inference.tiling import Tiling
from iart.inference.upscale import upscale_frames
from iart.video.frame import Frame
from iart.video.images import ImageReader
from iart.video.reader import VideoReader
from iart.video.writing import Writing

# Frames between the threads: enough to bridge a burst (a window comes out of the network at once).
READ_AHEAD = 8
CONFORM_BEHIND = 2
WRITE_BEHIND = 4


@dataclass(frozen=True)
class Work:
    """What a process must know to take part in a job; can be sent to other processes.

    Attributes:
        folder: of the job.
        output: final name, for messages.
        parts: what finished frames become.
        conform: what is done to frames before and after the network.
        tiling: what the model is shown at once.
    """

    folder: Path
    output: Path
    parts: Parts
    conform: Conform
    tiling: Tiling

    @classmethod
    def of(cls, order: Order, target: Target, job: Job, tiling: Tiling) -> "Work":
        """The work of a job for an order."""
        parts = target.parts(job.parts)
        return cls(job.folder, order.output, parts, target.conform, tiling)

    def run(
        self, reader: VideoReader | ImageReader, model: nn.Module, done: Callable[[], None]
    ) -> End:
        """Enlarge every segment that nobody else has.

        Reading, the network, resampling, encoding and the end of the segment before go on at the
        same time.

        Args:
            reader: of the source.
            model: enlarges `b t 3 h w`; runs where its parameters lie.
            done: called after each frame that was enlarged.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
        """
        share = _Share(self)

        def pass_on(item: tuple[Ticket, Frame]) -> None:
            ticket, frame = item
            write((ticket, self.conform.after(frame)))

        with (
            read_ahead(self.conform.before(reader), READ_AHEAD) as frames,
            _Sink(self) as sink,
            write_behind(sink.write, WRITE_BEHIND) as write,
            write_behind(pass_on, CONFORM_BEHIND) as conform,
        ):
            for frame in upscale_frames(
                frames,
                model,
                window=self.tiling.window,
                overlap=self.tiling.overlap,
                tile=self.tiling.tile,
                wanted=share.wants,
            ):
                conform((share.tickets.popleft(), frame))
                done()
        return End(share.frames, share.segments, tuple(reader.losses))


class _Share:
    """What of a film falls to this pass.

    Attributes:
        tickets: of the frames that are wanted and have not been enlarged yet.
        frames: seen so far.
        segments: seen so far.
    """

    def __init__(self, work: Work) -> None:
        self.tickets: deque[Ticket] = deque()
        self.frames = self.segments = 0
        self._folder, self._parts = work.folder, work.parts
        self._place = work.parts.placer()
        self._plan = Segments()
        self._is_ours = False

    def wants(self, frame: Frame) -> bool:
        """Whether to enlarge the next frame of the film."""
        index, slot, segment = self.frames, self._place(frame), self._plan.place(frame.cut)
        self.frames += 1
        if segment.number == self.segments:
            self.segments += 1
            kept = self._parts.has_segment(segment)
            self._is_ours = not kept and claim(self._folder, segment.number)
        wanted = self._is_ours and not self._parts.has_frame(index)
        if wanted:
            self.tickets.append(Ticket(index, segment, slot))
        return wanted


class _Sink:
    """Writes frames in order; each segment is finished while the next one is under way."""

    def __init__(self, work: Work) -> None:
        self._output, self._parts = work.output, work.parts
        self._segment: Segment | None = None
        self._writer: PartWriter | None = None
        self._thread = ThreadPoolExecutor(1, "finish")
        self._finishing: Future[None] | None = None

    def write(self, item: tuple[Ticket, Frame]) -> None:
        """Write one frame."""
        ticket, frame = item
        with Writing(self._output):
            if ticket.segment != self._segment:
                self._turn()
                self._segment = ticket.segment
                self._writer = self._parts.open(ticket.segment)
            assert self._writer is not None
            self._writer.write(frame, ticket)

    def __enter__(self) -> "_Sink":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with Writing(self._output), self._thread:
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
            self._finishing = self._thread.submit(_finish, self._writer)
            self._writer = None


def _finish(writer: PartWriter) -> None:
    try:
        writer.finish()
    except BaseException:
        writer.abort()
        raise
