"""Previews: a piece of a video before and after, each made by a job, without sound."""

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from iart.errors import IARTError
from iart.web import views
from iart.web.command import flags, run_iart
from iart.web.folder import OWN, Folder
from iart.web.jobs import Jobs

SIDES = ("before", "after")
PREVIEW_SECONDS = (0.05, 5.0, 1.0)
"""Shortest and longest length of a preview, and the longest that is not asked for."""
_PREVIEW_SETS = ("start_seconds", "end_seconds", "drop", "codec", "crf", "preset", "pixel_format")


class Previews:
    """Previews in a folder."""

    def __init__(self, folder: Folder, jobs: Jobs) -> None:
        self._folder, self._jobs = folder, jobs
        # A preview that is being stopped is not taken up.
        self._changing = threading.Lock()

    def begin(
        self,
        source: str,
        model: str,
        values: Mapping[str, Any],
        at: float | None,
        seconds: float | None,
    ) -> str:
        """Start the jobs of a preview, or take up one that is the same.

        Args:
            source: name in the folder.
            model: what `--model` takes.
            values: of the form.
            at: where it begins, in seconds; None for the beginning.
            seconds: its length, within `PREVIEW_SECONDS`; None for the usual one.

        Returns:
            Its name.

        Raises:
            IARTError: the source or an option is refused.
        """
        shortest, longest, most = PREVIEW_SECONDS
        seconds = min(max(float(seconds or most), shortest), longest)
        path = self._folder.find(source)
        words = [str(path), *preview_flags(values, max(0.0, float(at or 0)), seconds)]
        key = " ".join((*words, model, str(path.stat().st_mtime_ns)))
        id_ = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16]
        for side, name in zip(SIDES, ("bicubic", model), strict=True):
            output = f"{OWN}/previews/{id_}-{side}.mp4"
            command = ["upscale", *words, f"--model={name}", "--progress-every=1"]
            command += [f"--output={self._folder.root / output}", "--overwrite"]
            if side == SIDES[0]:
                run_iart([*command, "--dry-run"], self._folder.root)
            with self._changing:
                self._jobs.add("preview", source, output, command, id_=f"{id_}-{side}")
        return id_

    def stop(self, id_: str) -> None:
        """Nobody waits for it any more; what is finished is kept."""
        for side in SIDES:
            with self._changing, suppress(IARTError):
                job = self._jobs.find(f"{id_}-{side}")
                if self._jobs.progress(job).state not in ("done", "failed"):
                    self._jobs.cancel(job)

    def show(self, id_: str) -> tuple[str, bool]:
        """HTML of both videos, of what went wrong, or of how far it is; and whether that is all."""
        try:
            found = [self._jobs.progress(self._jobs.find(f"{id_}-{side}")) for side in SIDES]
        except IARTError:  # another tab has stopped it
            return "", True
        failed = [progress.message for progress in found if progress.state == "failed"]
        if failed:
            return views.error(failed[0]), True
        if all(progress.state == "done" for progress in found):
            return views.before_and_after(*(f"preview/{id_}-{side}" for side in SIDES)), True
        return views.status("Preview", found[1], job=id_), False


def preview_flags(values: Mapping[str, Any], start: float, seconds: float) -> list[str]:
    """Flags for a short piece without sound, in H.264 that browsers play."""
    return [
        *flags(values, without=_PREVIEW_SETS),
        *(f"--start={start:.3f}", f"--end={start + seconds:.3f}"),
        *("--codec=x264", "--pixel-format=yuv420p", "--crf=14"),
        *(f"--drop={kind}" for kind in ("audio", "subtitle", "attachment", "data")),
    ]


def preview_seconds(told: float | None) -> float | None:
    """How long a preview is to be on this machine, by what `info` told; None if unknown."""
    shortest, _, most = PREVIEW_SECONDS
    return None if told is None else min(max(told, shortest), most)
