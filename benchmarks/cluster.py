"""What a cluster costs: time and memory per segment, and how far it grows.

    python benchmarks/cluster.py overhead   # time of a segment more than in one process
    python benchmarks/cluster.py memory     # of the driver and of Ray, for 10 times the film
    python benchmarks/cluster.py workers    # segments that wait 2 s, on 2 to 256 logical workers

All are started with `--cluster local`'s settings. Logical workers live in 8 processes; the driver,
the way of a message and the answers are those of `iart upscale --cluster`.

docs/cluster.md has what was measured.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import ray
from torch import nn

from iart.model.bicubic import Bicubic
from iart.parallel.cluster import Cluster
from iart.parallel.processes import Answer
from iart.parallel.workers import Actor, ClusterWorkers
from iart.upscaling.film.job import End
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import run
from iart.upscaling.film.segments import LONGEST, PictureStore
from iart.upscaling.film.spread import Spread, describe, loader
from iart.upscaling.film.worker import Claim, Claims, Done
from iart.video.write.image_series import PicturePlan

HOSTS = 8
WAIT_SECONDS = 2.0
ROUNDS = 10
"""Segments of each logical worker."""


def main() -> None:
    """Measure one of three things, and print it."""
    parser = argparse.ArgumentParser(description="Measure what a cluster costs.")
    parser.add_argument("what", choices=("overhead", "memory", "workers"))
    parser.add_argument("--segments", type=int, default=20, help="of a film")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64, 256])
    arguments = parser.parse_args()
    logging.getLogger("iart").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, Cluster("local", cpus=1) as cluster:
        if arguments.what == "overhead":
            measure_overhead(cluster, Path(folder), arguments.segments, arguments.repeats)
        elif arguments.what == "memory":
            measure_memory(cluster, Path(folder), arguments.segments)
        else:
            for workers in arguments.workers:
                simulate(Path(folder), workers, WAIT_SECONDS)
            simulate(Path(folder), 64, 0)


# ---- films


def measure_overhead(cluster: Cluster, folder: Path, segments: int, repeats: int) -> None:
    """A film in this process and on one worker that is there: the difference, by segments."""
    film = make_film(folder / "film.mkv", segments)
    cluster.size = 1
    with cluster.workers(loader("bicubic", "float32", "auto"), describe) as workers:
        workers.weakest()
        kinds: dict[str, Spread | None] = {
            "one process": None,
            "a worker": Spread(workers),
            "a worker, shipped": Spread(workers, ship=True),
        }
        seconds = {
            name: min(enlarge(film, spread) for _ in range(repeats))
            for name, spread in kinds.items()
        }
    alone = seconds["one process"]
    for name, took in seconds.items():
        each = 1000 * (took - alone) / segments
        print(f"{name}: {segments} segments in {took:.2f} s, {each:+.1f} ms each")


def measure_memory(cluster: Cluster, folder: Path, segments: int) -> None:
    """A film, one of 10 times the segments, then 10 films one after another."""
    short = make_film(folder / "short.mkv", segments)
    long = make_film(folder / "long.mkv", 10 * segments)
    many = [make_film(folder / f"{n}.mkv", segments) for n in range(10)]
    with cluster.workers(loader("bicubic", "float32", "auto"), describe) as workers:
        for ship in (False, True):
            for name, films in (("short", [short]), ("long", [long]), ("10 short", many)):
                for number, film in enumerate(films):
                    enlarge(film, Spread(workers, number, ship))
                told = ", ".join(f"{what} {used} MB" for what, used in memory().items())
                print(f"{name}{', shipped' if ship else ''}: {told}", flush=True)


def enlarge(film: Path, spread: Spread | None) -> float:
    """Seconds that a film takes."""
    request = UpscaleRequest(film, film.with_suffix(".out.mkv"), preset="ultrafast", overwrite=True)
    began = time.monotonic()
    run(request, Bicubic(), spread=spread)
    return time.monotonic() - began


def make_film(path: Path, segments: int) -> Path:
    """A film of 32x32 pixels whose every segment is as long as any gets."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        across = np.arange(32)
        for index in range(segments * LONGEST):
            plane = (across[None] * 3 + across[:, None] * 2 + index) // 2
            image = np.repeat(plane[..., None] % 256, 3, axis=2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def memory() -> dict[str, int]:
    """Megabytes: of this process, and of Ray's store (pages that were ever used)."""
    found = {"driver": resident("self", "VmRSS"), "store": 0, "raylet and gcs": 0}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal() and is_ours(place):
            name = (place / "comm").read_text().strip()
            if name in ("raylet", "gcs_server"):
                store = resident(place.name, "RssShmem")
                found["store"] += store
                found["raylet and gcs"] += resident(place.name, "VmRSS") - store
    return found


def is_ours(place: Path) -> bool:
    """Whether a process was started by this one."""
    try:
        status = (place / "status").read_text()
    except OSError:
        return False
    return f"PPid:\t{os.getpid()}\n" in status


def resident(process: str, kind: str) -> int:
    """Megabytes of a process."""
    for line in Path("/proc", process, "status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) // 1024
    raise ValueError(f"/proc/{process}/status has no {kind}")


# ---- logical workers


class Host:
    """A process in which many workers live."""

    def __init__(self) -> None:
        self._actors: dict[int, Actor] = {}

    def _of(self, slot: int) -> Actor:
        return self._actors.setdefault(slot, Actor(1))

    def about(self, slot: int) -> dict[str, Any]:
        """See `Actor`."""
        return self._of(slot).about()

    def prepare(self, slot: int, load: Callable[[], Any], describe: Callable[[Any], str]) -> Answer:
        """See `Actor`."""
        return self._of(slot).prepare(load, describe)

    def run(self, slot: int, task: Callable[..., Any]) -> Iterator[Any]:
        """See `Actor`."""
        yield from self._of(slot).run(task)

    def answer(self, slot: int, reply: Any) -> None:
        """See `Actor`."""
        self._of(slot).answer(reply)


class Method:
    """A method of one of the workers of a host."""

    def __init__(self, method: Any, slot: int) -> None:
        self._method, self._slot = method, slot

    def options(self, **options: Any) -> "Method":
        """As of a method of an actor."""
        return Method(self._method.options(**options), self._slot)

    def remote(self, *arguments: Any) -> Any:
        """As of a method of an actor."""
        return self._method.remote(self._slot, *arguments)


class Logical:
    """What takes the place of an actor."""

    def __init__(self, host: Any, slot: int) -> None:
        for name in ("about", "prepare", "run", "answer"):
            setattr(self, name, Method(getattr(host, name), slot))


class LogicalWorkers(ClusterWorkers[nn.Module]):
    """Many workers in few processes."""

    def __init__(self, size: int) -> None:
        self._hosts: list[Any] = [
            ray.remote(Host).options(num_cpus=0.1, max_concurrency=2 * size // HOSTS + 2).remote()
            for _ in range(HOSTS)
        ]
        load = loader("bicubic", "float32", "auto")
        super().__init__(load, describe, size=size, cpus=1, gpus=0)

    def _start(self, slot: int) -> Any:
        return Logical(self._hosts[slot % HOSTS], slot)

    def close(self) -> None:
        """Stop all."""
        for host in self._hosts:
            ray.kill(host)
        self._actors.clear()
        super().close()


def wait_for_segments(seconds: float, model: nn.Module, tell: Callable[[Any], Any]) -> None:
    """As a task: a pass whose segments take so long, and do nothing."""
    number = -1
    while (number := tell(Claim(number + 1))) is not None:
        time.sleep(seconds)
        tell(Done(LONGEST))


def simulate(folder: Path, size: int, seconds: float) -> None:
    """Segments on so many workers, and the share of the time that they must take."""
    segments = ROUNDS * size
    store = PictureStore(folder, PicturePlan.__new__(PicturePlan))  # nothing is written
    claims = Claims(store, lambda frames: None)
    claims.answer(None, End(segments * LONGEST, segments))
    workers = LogicalWorkers(size)
    try:
        workers.weakest()
        began = time.monotonic()
        passes = [
            workers.submit(partial(wait_for_segments, seconds), partial(claims.answer, object()))
            for _ in range(size)
        ]
        for each in passes:
            each.result()
        took = time.monotonic() - began
    finally:
        workers.close()
    if seconds:
        share = ROUNDS * seconds / took
        print(f"{size} workers, {seconds:g} s: {took:.1f} s, {share:.1%} of ideal", flush=True)
    else:
        print(f"{size} workers that do not wait: {segments / took:.0f} segments/s", flush=True)


if __name__ == "__main__":
    main()
