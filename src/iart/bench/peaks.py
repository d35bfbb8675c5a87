"""Most memory in use during passes over clips of given sizes.

On a CPU only the process tells, and it keeps much of what it has freed for later. So a process of
its own measures there (`python -m iart.bench.peaks`), in which glibc gives back what is freed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from iart.bench.measure import load_network, made_clip
from iart.bench.probes import peak_memory, reset_peak_memory
from iart.errors import DeviceError
from iart.model import IART
from iart.upscaling.budget import Tiling
from iart.upscaling.enlarge import Enlarger

GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_ARENA_MAX": "1"}
"""Environment in which glibc takes blocks above 16 KiB from the system one by one."""


@dataclass(frozen=True)
class ClipSize:
    """What is shown to the network: whole pictures, or tiles of at most `tile` pixels a side."""

    frames: int
    height: int
    width: int
    tile: int | None = None

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.frames * self.height * self.width


def enlarge(
    model: IART, clip: Float[Tensor, "1 t 3 h w"], size: ClipSize
) -> Float[Tensor, "t 3 4*h 4*w"]:
    """One pass, in one piece or in tiles."""
    enlarger = Enlarger(model, Tiling(size.frames, 0, size.tile))
    return enlarger.enlarge(clip[0], slice(0, size.frames))[0]


def peaks_on_device(
    name: str, device: str, sizes: Sequence[ClipSize], precision: str, backend: str = "native"
) -> list[int]:
    """Bytes for each size, the clip and its enlargement included, the weights not."""
    model = load_network(name, device, precision, backend)
    place = model.extract.weight.device
    peaks: list[int] = []
    for size in sizes:
        held = 0
        for _ in range(2):  # the first time, libraries take what they keep
            anew = reset_peak_memory(place)
            before = peak_memory(place)
            clip = made_clip(size.frames, size.height, size.width).to(place)
            enlarge(model, clip, size)
            more = peak_memory(place) - before
            held = more if anew else max(held, more)  # a peak that stays grows the first time
            del clip
        peaks.append(held)
    return peaks


def peaks_of_a_process(
    name: str, device: str, sizes: Sequence[ClipSize], precision: str, backend: str = "native"
) -> list[int]:
    """The same, measured in a process of its own; where peaks stay, in one for every size."""
    peaks: list[int] = []
    anew = reset_peak_memory(torch.device("cpu"))
    for some in [sizes] if anew else [[size] for size in sizes]:
        task = {"name": name, "device": device, "precision": precision, "backend": backend}
        words = json.dumps({**task, "sizes": [asdict(size) for size in some]})
        done = subprocess.run(
            [sys.executable, "-m", "iart.bench.peaks"],
            input=words,
            env={**os.environ, **GIVES_BACK},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            raise DeviceError(f"memory could not be measured: {last}")
        peaks += json.loads(done.stdout)
    return peaks


if __name__ == "__main__":
    task = json.load(sys.stdin)
    sizes = [ClipSize(**size) for size in task.pop("sizes")]
    json.dump(peaks_on_device(sizes=sizes, **task), sys.stdout)
