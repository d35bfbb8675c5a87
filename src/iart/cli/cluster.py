"""What commands share that work on a cluster: its flags, and several films at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from iart.cli.console import progress_display, say
from iart.cli.flags import one_of
from iart.errors import IARTError
from iart.upscaling.film.request import Progress, UpscaleResult

if TYPE_CHECKING:
    from iart.upscaling.film.request import UpscaleRequest

MACHINES = "Several machines"
Cluster = Annotated[
    str | None,
    Option(
        metavar="ADDRESS",
        help="Share the work among the machines of a Ray cluster: HOST:PORT, auto (RAY_ADDRESS, or"
        " this machine's) or local (starts one here).",
        rich_help_panel=MACHINES,
        autocompletion=one_of("auto", "local"),
    ),
]
ClusterCpus = Annotated[
    float | None,
    Option(
        metavar="N",
        help="CPUs of a worker (default: 4, or all of a smaller machine; 1 beside a GPU).",
        rich_help_panel=MACHINES,
    ),
]
ClusterGpus = Annotated[
    float | None,
    Option(
        metavar="N",
        help="GPUs of a worker, such as 1 or 0.5 (default: 1 if the cluster has any).",
        rich_help_panel=MACHINES,
    ),
]
Ship = Annotated[
    bool,
    Option(
        "--ship",
        help="Send the source to the machines of the cluster, and segments back: no shared disk.",
        rich_help_panel=MACHINES,
    ),
]

FILMS_AT_ONCE = 8
"""That are planned, and have workers, at the same time; each holds its source open here."""

Enlarge = Callable[["UpscaleRequest", int, Callable[[Progress], None]], UpscaleResult]
"""Carries out one of several requests, given its number, which the first should have least."""


def enlarge_together(
    requests: "Sequence[UpscaleRequest]",
    enlarge: Enlarge,
    *,
    every: float,
    quiet: bool,
    tell: Callable[["UpscaleRequest", UpscaleResult], None],
) -> None:
    """Several films at once; those that fail are told at once, and again at the end."""
    failed: list[tuple[UpscaleRequest, IARTError]] = []
    at_once = min(FILMS_AT_ONCE, len(requests))
    with progress_display(quiet=quiet, every=every) as show:
        parts = _Sum(show or (lambda progress: None), len(requests))
        threads = ThreadPoolExecutor(at_once, "film")
        try:
            begun = {
                threads.submit(enlarge, request, number, parts.of(number)): request
                for number, request in enumerate(requests)
            }
            for future in as_completed(begun):
                try:
                    tell(begun[future], future.result())
                except IARTError as error:
                    if len(requests) == 1:
                        raise
                    say(f"error: {error}")
                    failed.append((begun[future], error))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on") from None
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    tell_failed(failed)


def tell_failed(failed: "Sequence[tuple[UpscaleRequest, IARTError]]") -> None:
    """Tell at the end which of several films failed; exit code 1 if any did."""
    for request, error in failed:
        say(f"failed: {request.name}: {error}")
    if failed:
        raise Exit(1)


class _Sum:
    """Progress of several films as that of one."""

    def __init__(self, show: Callable[[Progress], None], count: int) -> None:
        self._show, self._lock = show, threading.Lock()
        self._parts: list[Progress | None] = [None] * count

    def of(self, number: int) -> Callable[[Progress], None]:
        def told(progress: Progress) -> None:
            with self._lock:
                self._parts[number] = progress
                known = [part for part in self._parts if part is not None]
                counts = [part.frame_count for part in known if part.frame_count is not None]
                all_known = len(counts) == len(self._parts)
                self._show(
                    Progress(
                        sum(part.frames_done for part in known),
                        sum(counts) if all_known else None,
                        max(part.elapsed_seconds for part in known),
                        sum(part.frames_before for part in known),
                    )
                )

        return told
