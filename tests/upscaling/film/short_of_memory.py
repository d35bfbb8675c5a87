"""A program that enlarges a film on a cluster whose workers have little memory, see test_cluster.

    short_of_memory.py ADDRESS FILM FOLDER

Its functions reach workers as they stand here: this is the main module.
"""

import logging
import os
import resource
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from torch import nn

import iart.device
from iart.errors import IARTError
from iart.model.bicubic import Bicubic
from iart.parallel.cluster import Cluster
from iart.upscaling.budget import film_bytes, plan_tiling
from iart.upscaling.film.plan import plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import run
from iart.upscaling.film.spread import Spread, describe

LITTLE = 500 * 10**6
"""Bytes; too few for whole pictures."""
LIMITS = (1700, 1500, 1300, 1100)
"""Megabytes of addresses; tried until one is too small for whole pictures, by whatever a machine's
threads take besides. From about 1500 MB on they are, from 1000 MB on tiles are, too."""
TOO_LITTLE = 600


def limited(more: int) -> nn.Module:
    """To so many bytes of addresses more than there are now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return Bicubic()


def partly_on_a_small_machine(folder: Path) -> nn.Module:
    """The worker that comes first has little memory, by what its system says."""
    with suppress(FileExistsError):
        (folder / "self").mkdir()
        (folder / "self" / "cgroup").touch()
        (folder / "meminfo").write_text(
            f"MemAvailable: {LITTLE * (os.cpu_count() or 1) // 1024} kB"
        )
        iart.device.PROC = folder
    return Bicubic()


def main() -> None:
    address, film, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    told: list[str] = []
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: told.append(record.getMessage()) or True)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    with Cluster(address, cpus=1) as cluster:
        with cluster.workers(partial(partly_on_a_small_machine, folder), describe) as workers:
            with plan_upscale(UpscaleRequest(film, folder / "planned")) as plan:
                tiling = Spread(workers).tiling(plan)
                size = plan.info.height, plan.info.width
            like = plan_tiling(
                Bicubic(), *size, beside=film_bytes(*size), at_most=workers.weakest()
            )
            assert tiling == like, (tiling, like)
            assert workers.weakest() in range(LITTLE - 2048, LITTLE + 1)
            assert not tiling.is_whole(*size) or tiling.window < 16
        for more in (*LIMITS, TOO_LITTLE):
            if more != TOO_LITTLE and any("that was in segment" in line for line in told):
                continue
            request = UpscaleRequest(film, folder / f"made-{more}", size="1x", window=64, tile=320)
            with cluster.workers(partial(limited, more * 2**20), describe) as workers:
                try:
                    run(request, Bicubic(), spread=Spread(workers))
                except IARTError as error:
                    logging.error("%d: error: %s", more, error)


if __name__ == "__main__":
    main()
