"""Scores beyond PSNR and SSIM: each is used if this machine can compute it, else one line says why.

```python
extra = extra_metrics(("tof", "lpips"), device)      # extra.notes: what is missing
with extra.clip() as scorer:
    for result, gt in frames:
        scorer.add(result, gt)
    found = scorer.finish()                          # values per frame, tOF, more notes
```
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import DataError, MissingExtraError, OptionsError
from iart.evaluate.perceptual import LIBRARIES, FrameMetric, load_perceptual
from iart.evaluate.temporal import TemporalFlow
from iart.evaluate.vmaf import VmafClip, VmafProgram, find_vmaf

EXTRA = ("tof", *LIBRARIES, "vmaf")


@dataclass(frozen=True)
class ClipExtras:
    """One clip's extra scores.

    Attributes:
        frames: for each frame its values by metric, to be joined with PSNR and SSIM.
        temporal: tOF in pixels, None if not asked for or there is one frame.
        notes: what failed on this clip, one line each.
    """

    frames: tuple[dict[str, float], ...]
    temporal: float | None
    notes: tuple[str, ...]


class ExtraClip:
    """Scores one clip; a context manager, since VMAF keeps temporary files.

    What fails on the way (a frame too small for a network, a full disk) is left out and noted.
    """

    def __init__(
        self, metrics: dict[str, FrameMetric], *, tof: bool, vmaf: VmafProgram | None
    ) -> None:
        self._metrics = metrics
        self._tof = TemporalFlow() if tof else None
        self._vmaf_program = vmaf
        self._vmaf: VmafClip | None = None
        self._frames: list[dict[str, float]] = []
        self._failed: dict[str, str] = {}

    def __enter__(self) -> "ExtraClip":
        with self._or_note("vmaf"):
            self._vmaf = VmafClip(self._vmaf_program) if self._vmaf_program else None
        return self

    def __exit__(self, *error: object) -> None:
        with self._or_note("vmaf"):
            if self._vmaf:
                self._vmaf.close()

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the clip's next frame, as scored by PSNR: 8 bits, one size."""
        values: dict[str, float] = {}
        self._frames.append(values)
        for name, metric in self._metrics.items():
            if name not in self._failed:
                with self._or_note(name):
                    values[name] = metric(result, gt)
        if self._tof:
            self._tof.add(result, gt)
        if self._vmaf and "vmaf" not in self._failed:
            with self._or_note("vmaf"):
                self._vmaf.add(result, gt)

    def finish(self) -> ClipExtras:
        """All scores, once the last frame was added; runs the VMAF program."""
        if self._vmaf and self._frames and "vmaf" not in self._failed:
            with self._or_note("vmaf"):
                for values, score in zip(self._frames, self._vmaf.scores(), strict=True):
                    values["vmaf"] = score
        temporal = self._tof.mean() if self._tof else None
        return ClipExtras(tuple(self._frames), temporal, tuple(self._failed.values()))

    @contextmanager
    def _or_note(self, name: str) -> Iterator[None]:
        try:
            yield
        except (DataError, OSError, RuntimeError, ValueError) as failure:
            reason = (str(failure).splitlines() or [type(failure).__name__])[0]
            self._failed[name] = f"{name} is not computed: {reason}"


@dataclass(frozen=True)
class ExtraMetrics:
    """What this machine can compute of what was asked for.

    Attributes:
        names: the metrics that are computed.
        notes: one line for each that is not: why, and what would change it.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]
    _frame: dict[str, FrameMetric]
    _vmaf: VmafProgram | None

    def clip(self) -> ExtraClip:
        """A scorer for the next clip."""
        return ExtraClip(self._frame, tof="tof" in self.names, vmaf=self._vmaf)


def extra_metrics(names: Sequence[str], device: torch.device) -> ExtraMetrics:
    """Load the metrics that can be had.

    Args:
        names: of EXTRA; one that cannot be had becomes a note, not an error.
        device: where networks run.

    Raises:
        OptionsError: a name is not of EXTRA.
    """
    if unknown := [name for name in names if name not in EXTRA]:
        raise OptionsError(f"there is no metric '{unknown[0]}' (there are {', '.join(EXTRA)})")
    frame: dict[str, FrameMetric] = {}
    program: VmafProgram | None = None
    usable: list[str] = []
    notes: list[str] = []
    for name in dict.fromkeys(names):
        try:
            if name == "vmaf":
                program = find_vmaf()
            elif name == "tof":
                TemporalFlow()
            else:
                frame[name] = load_perceptual(name, device)
            usable.append(name)
        except MissingExtraError as missing:
            notes.append(str(missing))
    return ExtraMetrics(tuple(usable), tuple(notes), frame, program)
