"""Temporary folders on the machines of a cluster.

Tasks keep things there; the command that started them removes them, or after one that was killed
the next that has such a folder on the same machine.

    /tmp/iart-UID-MACHINE/
        lock                  held for a moment
        RUN-NODE/NAME/        `scratch(RUN, NAME)` on one machine
            TASK.used         held while a task uses it
"""

import hashlib
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from iart.errors import OutputError
from iart.files.complete import locked


@contextmanager
def scratch(run: str, name: str) -> Iterator[Path]:
    """In a task: a folder that it shares with those on the same machine that give the same words.

    It stays until it is removed, see `remove`.

    Raises:
        OutputError: another user has taken its name.
        OSError: the disk refuses.
    """
    base = _place()
    base.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(base):
        raise OutputError(f"cannot use '{base}': it belongs to another user")
    with ExitStack() as stack:
        with locked(base / "lock") as can_lock:
            if can_lock:  # else nothing tells what is in use
                _remove_left(base, besides=_of_this_machine(run))
            folder = base / _of_this_machine(run) / name
            folder.mkdir(parents=True, exist_ok=True)
            used = folder / f"{secrets.token_hex(4)}.used"
            stack.callback(used.unlink, missing_ok=True)
            stack.enter_context(locked(used))
        yield folder


def remove(run: str, name: str = "") -> None:
    """On one machine: remove a folder of `scratch`, or all of a run; never fails."""
    base = _place()
    if _is_ours(base):
        shutil.rmtree(base / _of_this_machine(run) / name, ignore_errors=True)


def machine_mark() -> str:
    """Stands for this machine in names of files: a hash, as machines' names are long and alike."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _place() -> Path:
    """Of this machine alone: on a disk that several share, their locks may not know each other."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir(), f"iart-{user}-{machine_mark()}")


def _is_ours(base: Path) -> bool:
    try:
        return not hasattr(os, "getuid") or base.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _of_this_machine(run: str) -> str:
    """Tests have several nodes on one machine, which stand for machines."""
    import ray

    return f"{run}-{ray.get_runtime_context().get_node_id()[:8]}"


def _remove_left(base: Path, besides: str) -> None:
    """Remove folders in which no task is at work: most are of commands that were killed.

    A command that lives may have one whose film has nothing left to do on this machine; should it
    come back, it gets its source anew.
    """
    for folder in base.iterdir():
        if folder.is_dir() and folder.name != besides:
            try:
                for used in folder.glob("*/*.used"):
                    with locked(used, wait=False):
                        pass
            except OSError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
