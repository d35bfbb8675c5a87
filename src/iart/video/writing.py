"""What writers of films and of pictures share: complete at a clean end, removed after an error."""

from pathlib import Path
from types import TracebackType

import av.error

from iart.errors import OutputError
from iart.video.frame import Frame, Loss
from iart.video.pending import PendingOutput, output_error


class Writer:
    """Base: a context manager whose output gets its name when the block ends without an error.

    Attributes:
        notes: conversions that will happen and what cannot be kept, one line each.
        losses: damaged parts of the source's tracks, filled while writing.
    """

    def __init__(self, path: Path, pending: PendingOutput, notes: tuple[str, ...]) -> None:
        """Write to `pending`, on behalf of `path`."""
        self.notes = notes
        self.losses: list[Loss] = []
        self._path, self._pending = path, pending
        self._count = 0
        self._is_open = True

    def write(self, frame: Frame) -> None:
        """Write one frame, later than all before it.

        Raises:
            OutputError: the disk is full, or writing fails otherwise.
            ValueError: the frame has another size than announced.
        """
        with Writing(self._path):
            self._write(frame)
        self._count += 1

    def close(self) -> None:
        """Complete the output and give it its final name; does nothing the second time.

        Raises:
            OutputError: no frame was written, the disk is full, or the name was taken meanwhile.
        """
        if not self._is_open:
            return
        try:
            if not self._count:
                raise OutputError(f"cannot write '{self._path}': no frame was given")
            with Writing(self._path):
                self._finish()
        except BaseException:
            self.abort()
            raise
        self._is_open = False
        try:
            self._pending.commit()
        except OSError as error:
            self._pending.discard()
            raise output_error(self._path, error) from error

    def abort(self) -> None:
        """Stop and remove what was written."""
        if self._is_open:
            self._is_open = False
            self._pending.discard()  # first: letting go may take time, or fail
            self._release()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _write(self, frame: Frame) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what was held back."""

    def _release(self) -> None:
        """Let go of what is open, after an error; never fails."""


class Writing:
    """Errors of FFmpeg and of the system while writing become `OutputError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        if isinstance(error, (av.error.FFmpegError, OSError)):
            if not isinstance(error, OSError):
                raise OutputError(f"cannot write '{self._path}': {error}") from error
            raise output_error(self._path, error) from error
