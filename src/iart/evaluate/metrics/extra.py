"""Scores beyond PSNR and SSIM: each is used if this machine can compute it, else one line says why.

```python
extra = extra_metrics(("tof", "lpips"), device)      # extra.notes: what is missing
clip = extra.clip()
for result, gt in frames:
    clip.add(result, gt)
clip.frames, clip.over_time("tof"), clip.notes       # values per frame, tOF, what failed
```
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import DataError, MissingExtraError, OptionsError, first_line
from iart.evaluate.metrics.luma import Flicker, OverTime, TemporalFlow, blockiness, sharpness
from iart.evaluate.metrics.perceptual import LIBRARIES, FrameMetric, TemporalLPIPS, load_perceptual

EXTRA = ("tof", "flicker", "blockiness", "sharpness", *LIBRARIES, "tlp")
_PLAIN: dict[str, FrameMetric] = {"blockiness": blockiness, "sharpness": sharpness}


class ExtraClip:
    """Extra scores of one clip.

    A metric that fails on the way (a frame too small for a network) is left out from there and
    noted.

    Attributes:
        frames: for each frame its values by metric, to be joined with PSNR and SSIM.
    """

    def __init__(self, metrics: dict[str, FrameMetric], over_time: dict[str, OverTime]) -> None:
        """Start a clip.

        Args:
            metrics: of frames, by name.
            over_time: of the clip, by name.
        """
        self.frames: list[dict[str, float]] = []
        self._metrics, self._over_time = metrics, over_time
        self._failed: dict[str, str] = {}

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Take the clip's next frame, as scored by PSNR: 8 bits, one size."""
        values: dict[str, float] = {}
        self.frames.append(values)
        for name in [*self._metrics, *self._over_time]:
            if name in self._failed:
                continue
            try:
                if name in self._metrics:
                    values[name] = self._metrics[name](result, gt)
                else:
                    self._over_time[name].add(result, gt)
            except (DataError, OSError, RuntimeError, ValueError) as failure:
                reason = first_line(failure)
                self._failed[name] = f"{name} is not computed: {reason}"

    def over_time(self, name: str) -> float | None:
        """Value of "tof", "tlp" or "flicker".

        None if it is not asked for, has failed, or the clip has fewer than two frames.
        """
        metric = None if name in self._failed else self._over_time.get(name)
        return None if metric is None else metric.mean()

    @property
    def notes(self) -> tuple[str, ...]:
        """Metrics that failed on this clip, one line each."""
        return tuple(self._failed.values())


@dataclass(frozen=True)
class ExtraMetrics:
    """Metrics that were asked for and can be computed here.

    Attributes:
        names: of these metrics.
        notes: one line for each of the others: why, and what would change it.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]
    _frame: dict[str, FrameMetric]
    _over_time: dict[str, Callable[[], OverTime]]

    def clip(self) -> ExtraClip:
        """A scorer for the next clip."""
        return ExtraClip(self._frame, {name: new() for name, new in self._over_time.items()})


def extra_metrics(
    names: Sequence[str], device: torch.device, weights: Path | None = None
) -> ExtraMetrics:
    """Load the metrics that can be had.

    Args:
        names: of EXTRA; one that cannot be had becomes a note, not an error.
        device: where networks run.
        weights: folder of files of weights for LPIPS, tLP and DISTS; None to use libraries.

    Raises:
        OptionsError: a name is not of EXTRA, or a file of weights is missing or cannot be used.
    """
    if unknown := [name for name in names if name not in EXTRA]:
        raise OptionsError(f"there is no metric '{unknown[0]}' (there are {', '.join(EXTRA)})")
    frame: dict[str, FrameMetric] = {}
    over_time: dict[str, Callable[[], OverTime]] = {}
    notes: list[str] = []
    for name in dict.fromkeys(names):
        try:
            if name == "tof":
                TemporalFlow()  # which needs a library
                over_time[name] = TemporalFlow
            elif name == "flicker":
                over_time[name] = Flicker
            elif name == "tlp":
                lpips = frame.get("lpips") or load_perceptual("lpips", device, weights)
                over_time[name] = partial(TemporalLPIPS, lpips)
            elif name in _PLAIN:
                frame[name] = _PLAIN[name]
            else:
                frame[name] = load_perceptual(name, device, weights)
        except MissingExtraError as missing:
            notes.append(str(missing))
    usable = tuple(name for name in dict.fromkeys(names) if name in frame or name in over_time)
    return ExtraMetrics(usable, tuple(notes), frame, over_time)
