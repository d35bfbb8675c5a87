"""Output that gets its final name only when it is complete; and locks between processes.

Work goes to a hidden name beside the final one, in the same file system; at a clean end it is
renamed. Nothing is ever left or changed under the final name by a run that fails, and two runs that
write the same output cannot mix: each has its own hidden name, and the later one finds the name
taken.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from iart.errors import OutputError
from iart.files.names import FRAMES, replaced_name, temporary_name


@contextmanager
def complete_file(path: Path, *, parents: bool = False) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends well; otherwise nothing is left or changed.

    Another file of that name is replaced.

    Args:
        path: its name.
        parents: whether to make missing folders.

    Raises:
        OutputError: the operating system refuses.
    """
    with writing(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.is_dir():
            raise _no_folder(path)
        with replacing(path) as file:
            yield file


def write_json(path: Path, content: object) -> None:
    """Write JSON, complete or not at all, even after a power cut.

    Raises:
        OSError: the operating system refuses; `writing` around it names the user's output.
    """
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the operating system refuses inside the block becomes an error about `path`.

    Raises:
        OutputError: in place of any OSError; a full disk is named as such.
    """
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OutputError: the operating system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder '{folder}': {error.strerror}") from error


class Destination:
    """The name of an output: checked before the work, taken at its end.

    Attributes:
        final: its name at the end, absolute.
    """

    def __init__(
        self,
        final: Path,
        *,
        folder: bool = False,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        frames: re.Pattern[str] = FRAMES.pattern,
    ) -> None:
        """Check that the output can have its name.

        Args:
            final: its name at the end.
            folder: whether it is a folder of files.
            inputs: files or folders that are read at the same time.
            overwrite: whether a file of that name may be replaced, or a folder of `frames` alone.
            frames: names of the files in it.

        Raises:
            OutputError: exists, is an input, or its folder is missing.
        """
        self.final = final.absolute()
        self._overwrite = overwrite
        self._folder = folder
        self._frames = frames
        for given in inputs:
            if _same(self.final, given):
                raise OutputError(f"cannot write '{final}': it is the input; choose another name")
        try:
            self.final.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # as it should be, or told below
        except OSError as error:  # a name too long, a folder that may not be entered
            raise output_error(final, error) from error
        self._check_free()
        if not self.final.parent.is_dir():
            raise _no_folder(final)
        self.final = final_name(final, folder=folder)

    def not_writable(self, error: OSError) -> OutputError:
        """What to tell when nothing can be made beside the final name."""
        return OutputError(
            f"cannot write '{self.final}': folder '{self.final.parent}' is not writable"
            f" ({error.strerror})"
        )

    def take(self, part: Path) -> None:
        """Give finished work its final name; it is safely on the disk when this returns.

        Raises:
            OutputError: another file took the name in the meantime. The finished work is kept
                under its hidden name, which the message states.
            OSError: the disk refuses.
        """
        if not self._folder:
            sync(part)
        try:
            if self._folder:
                self._rename_folder(part)
            elif self._overwrite:
                part.replace(self.final)
            else:
                self._rename_to_free_name(part)
        except FileExistsError:
            raise OutputError(
                f"cannot write '{self.final}': something of that name appeared while this run was"
                f" writing; the finished output is '{part}'"
            ) from None
        sync(self.final.parent)

    def _check_free(self) -> None:
        if self._folder and self.final.is_dir():
            names = [entry.name for entry in self.final.iterdir()]
            if names and not self._overwrite:
                raise OutputError(
                    f"cannot write '{self.final}': the folder is not empty; pass --overwrite to"
                    " replace the frames in it, or choose a new one"
                )
            foreign = sorted(name for name in names if not self._frames.fullmatch(name))
            if foreign:
                raise OutputError(
                    f"cannot replace '{self.final}': it holds more than frames"
                    f" ('{foreign[0]}'); choose a new folder"
                )
        elif self.final.is_dir():
            raise OutputError(f"cannot write '{self.final}': it is a folder")
        elif self._folder and os.path.lexists(self.final):
            raise OutputError(f"cannot write '{self.final}': a file has that name")
        elif os.path.lexists(self.final) and not self._overwrite:
            raise OutputError(
                f"cannot write '{self.final}': it exists; pass --overwrite to replace it"
            )

    def _rename_folder(self, part: Path) -> None:
        replaced = replaced_name(self.final)
        if self._overwrite and self.final.is_dir():
            self._check_free()
            shutil.rmtree(replaced, ignore_errors=True)
            self.final.rename(replaced)
            try:
                part.rename(self.final)
            except BaseException:
                replaced.rename(self.final)
                raise
        else:
            try:
                part.rename(self.final)  # an empty folder of that name gives way
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise FileExistsError from error
                raise
        if self._overwrite:  # also what a run left that was stopped in the middle of this
            shutil.rmtree(replaced, ignore_errors=True)

    def _rename_to_free_name(self, part: Path) -> None:
        try:
            # a link, unlike a rename, fails if the name is taken
            self.final.hardlink_to(part)
        except FileExistsError:
            raise
        except OSError:  # file systems without links (exFAT, some network shares)
            if os.path.lexists(self.final):
                raise FileExistsError from None
            part.rename(self.final)
        else:
            part.unlink()


class PendingOutput(Destination):
    """One file or folder that is being written, and what it is called until it is complete.

    Attributes:
        part: where it is written; exists and is empty after construction.
    """

    def __init__(
        self,
        final: Path,
        *,
        folder: bool = False,
        suffix: str = "",
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        frames: re.Pattern[str] = FRAMES.pattern,
    ) -> None:
        """Check that the output can be written, and start it.

        Args:
            final: see `Destination`, as `folder`, `inputs` and `overwrite`.
            folder: whether it is a folder of files.
            suffix: ending of the hidden name.
            inputs: files or folders that are read at the same time.
            overwrite: whether something of that name may be replaced.
            frames: see `Destination`.

        Raises:
            OutputError: exists, is an input, or its folder is missing or not writable.
        """
        super().__init__(final, folder=folder, inputs=inputs, overwrite=overwrite, frames=frames)
        self.part = temporary_name(self.final, suffix)
        try:
            if folder:
                self.part.mkdir()
            else:
                self.part.touch(exist_ok=False)
        except OSError as error:
            raise self.not_writable(error) from error

    def commit(self) -> None:
        """Give the output its final name; arguments and errors are those of `take`."""
        self.take(self.part)

    def discard(self) -> None:
        """Remove what was written; never fails."""
        shutil.rmtree(self.part, ignore_errors=True)
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


def final_name(path: Path, *, folder: bool) -> Path:
    """The absolute name; a link to a folder stays, and stands for the folder."""
    is_link = folder and path.is_dir() and path.is_symlink()
    return path.resolve() if is_link else path.absolute()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another when it is complete and safely on the disk.

    Raises:
        OSError: the operating system refuses.
    """
    part = temporary_name(path)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """What to tell the user when writing fails midway; a full disk is named as such."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"cannot write '{path}': no space left on the disk of '{path.parent}'; free some"
        )
    if error.errno == errno.EFBIG:
        return OutputError(
            f"cannot write '{path}': the file would be larger than the disk or the system allows"
        )
    return OutputError(f"cannot write '{path}': {error.strerror or error}")


def _no_folder(path: Path) -> OutputError:
    return OutputError(f"cannot write '{path}': folder '{path.absolute().parent}' does not exist")


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return a.resolve() == b.resolve()


def sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # which Windows cannot open
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """A lock file that no other process, and nobody else in this one, holds while the block lasts.

    The system frees the locks of a process that ends, however it ends.

    Where the file system has no locks, as on some network shares, every lock is granted; what the
    block is given tells whether it is held in truth.

    Args:
        path: of the lock file, which is made if missing and may be removed by the holder.
        wait: until it is free.

    Raises:
        BlockingIOError: it is held and `wait` is not set.
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # takes a while to import

    path.touch()  # what cannot be made is told apart from what cannot be locked
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, f"another process holds '{path}'") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()
