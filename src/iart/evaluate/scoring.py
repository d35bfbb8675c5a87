"""One clip of a benchmark: its frames from the network or from disk, scored one by one."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from iart.errors import DeviceError, WeightsError
from iart.evaluate.clips import SCALE, Clip
from iart.evaluate.metrics.extra import ExtraMetrics, extra_metrics
from iart.evaluate.protocol import Protocol
from iart.evaluate.results import (
    FLICKER,
    TEMPORAL,
    TLP,
    ClipRecord,
    CropRecord,
    FinishedClip,
    FrameScore,
)
from iart.files.images import read_image, write_image
from iart.model import IART
from iart.parallel.pipeline import read_ahead
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize
from iart.pictures.scores import psnr, ssim
from iart.reports.details import Place, Places, png_of
from iart.upscaling.budget import device_of, plan_tiling
from iart.upscaling.clip import Step, enlarge_steps
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.windows import check_windows
from iart.video.frame import Frame
from iart.weights import load_model, model_names, weights_hash

READ_AHEAD = 4
"""Frames that are decoded while others are scored."""
EXAMINED = 8
"""Frames of a clip that crops are looked for in: neighbours are alike, and each costs a PSNR."""
HASH_DIGITS = 8
"""Of the weights, in names of folders."""


@dataclass(frozen=True)
class _Frame:
    """What is read for one frame; `made` only if it was made elsewhere."""

    lr: UInt8[Tensor, "3 h w"] | None
    gt: UInt8[Tensor, "3 h2 w2"]
    made: UInt8[Tensor, "3 h2 w2"] | None


@dataclass(frozen=True)
class ScoringTask:
    """What is measured; all that a process needs besides a device and a clip.

    Attributes:
        weights: name or file; None for frames made elsewhere.
        results: the folder of frames made elsewhere.
        metric_weights: see `extra_metrics`.
        images: where to keep the network's frames; None to keep none.
    """

    protocol: Protocol
    weights: str | Path | None
    key: str | None
    results: Path | None
    metrics: tuple[str, ...]
    metric_weights: Path | None
    precision: str
    backend: str
    window: int | None
    overlap: int
    images: Path | None


@dataclass(frozen=True)
class Scorer:
    """A task, loaded on a device.

    Attributes:
        name: of the model, or of the folder of frames made elsewhere.
        weights_hash: None for these, and for a model without weights.
        device: that the network runs on, in words.
        model: makes the frames; None for those made elsewhere.
        share: of the free memory, that it may take.
    """

    task: ScoringTask
    name: str
    weights_hash: str | None
    device: str
    extra: ExtraMetrics
    model: nn.Module | None
    share: float = 1.0

    @property
    def label(self) -> str:
        """For names of folders: different for different weights."""
        if self.model is None:
            return f"results-{self.name}"
        return f"{self.name}-{self.weights_hash[:HASH_DIGITS]}" if self.weights_hash else self.name

    def score(self, clip: Clip, crops: int, progress: Callable[[int], None]) -> FinishedClip:
        """Score a clip, in windows if the whole of it does not fit in memory.

        Args:
            clip: its images are read as they are needed.
            crops: how many details to show.
            progress: called with the number of frames scored, where they come one by one.

        Raises:
            DataError: an image cannot be read.
            DeviceError: not even a short window fits in memory.
            OutputError: an image cannot be written.
        """
        enlarger = frames = None
        if self.model is not None:
            enlarger = enlarger_for(
                self.model,
                clip,
                window=self.task.window,
                overlap=self.task.overlap,
                share=self.share,
            )
            frames = scored_frames(enlarger, clip)
        began = time.monotonic()
        luma, border = self.task.protocol.colour == "y", self.task.protocol.border
        picker = CropPicker(len(clip.scored), count=crops)
        scores: list[dict[str, float]] = []
        extra = self.extra.clip()
        with read_ahead(_read(clip), READ_AHEAD) as pictures:
            for path, picture in zip(clip.gt, pictures, strict=True):
                result = picture.made if frames is None else next(frames)
                assert result is not None
                scores.append(
                    {
                        "psnr": psnr(result, picture.gt, crop=border, luma=luma),
                        "ssim": ssim(result, picture.gt, crop=border, luma=luma),
                    }
                )
                extra.add(result, picture.gt)
                picker.add(path.name, picture.lr, result, picture.gt)
                if self.task.images is not None:
                    write_image(self.task.images / clip.name / f"{path.stem}.png", result)
                if enlarger is None or enlarger.tiling.window < len(clip.lq):
                    progress(len(scores))  # else they come all at once
        windowed = None
        if enlarger is not None and enlarger.tiling.window < len(clip.lq):
            window, overlap = enlarger.tiling.window, enlarger.tiling.overlap
            windowed = f"windows of {window} frames, {overlap} of context"
        record = ClipRecord(
            clip.name,
            tuple(
                FrameScore(path.name, values | more)
                for path, values, more in zip(clip.gt, scores, extra.frames, strict=True)
            ),
            extra.over_time(TEMPORAL),
            time.monotonic() - began,
            windowed=windowed,
            crops=picker.crops(),
            lr_made=clip.lr_made,
            flicker=extra.over_time(FLICKER),
            tlp=extra.over_time(TLP),
        )
        return FinishedClip(record, self.device, extra.notes)


def load_scorer(task: ScoringTask, device: str, *, share: float = 1.0) -> Scorer:
    """Load what a task needs.

    Args:
        task: what is measured.
        device: where the network and the metrics run.
        share: of the free memory, that the network may take.

    Raises:
        WeightsError: the weights are missing or cannot be used.
        DeviceError: this machine lacks the device or the precision.
        OptionsError: no such metric, or no such window.
    """
    if task.weights is None:
        assert task.results is not None
        cpu = torch.device("cpu")
        name, words = task.results.resolve().name, device_name(cpu)
        return Scorer(
            task, name, None, words, extra_metrics(task.metrics, cpu, task.metric_weights), None
        )
    overlap = task.overlap
    check_windows(max(1, 2 * overlap + 1) if task.window is None else task.window, overlap)
    model = load_model(task.weights, device, task.precision, backend=task.backend, key=task.key)
    place = device_of(model)
    weights = str(task.weights)
    return Scorer(
        task,
        weights if weights in model_names() else Path(weights).stem,
        None if next(model.parameters(), None) is None else weights_hash(model),
        device_name(place),
        extra_metrics(task.metrics, place, task.metric_weights),
        ThereAndBack(model) if task.protocol.flip_seq else model,
        share,
    )


def published_weights(protocol: Protocol) -> Path:
    """The file that the protocol names.

    Raises:
        WeightsError: it is not there.
    """
    weights = protocol.weights
    if weights is None or not weights.is_file():
        missing = f"there is no '{weights}'" if weights else "it names none"
        raise WeightsError(
            f"no weights for {protocol.name}: {missing}. Put the published file there, or pass "
            "others (--weights light, or a file)"
        )
    return weights


def device_name(device: torch.device) -> str:
    """What people call a device: the GPU's name; the processor's, with the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    pairs = (line.partition(":") for line in lines)
    names = (text.strip() for key, _, text in pairs if key.strip() == "model name")
    name = next(names, platform.processor() or platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


def _read(clip: Clip) -> Iterator[_Frame]:
    height, width = clip.size
    for position, index in enumerate(clip.scored):
        yield _Frame(
            read_image(clip.lq[index]) if clip.lq else None,
            read_image(clip.gt[position])[:, :height, :width],
            read_image(clip.results[position])[:, :height, :width] if clip.results else None,
        )


class CropPicker:
    """The best places of one clip so far; sees one frame at a time and keeps only the places.

    Places do not overlap, whatever their frames, so that they show different things.

    Args:
        frames: how many frames the clip has; at most 8 of them, evenly spread, are looked at.
        count: places to find.
        size: side of a crop in pixels of the ground truth, a multiple of 4; less in small frames.
    """

    def __init__(self, frames: int, *, count: int = 3, size: int = 64) -> None:
        self._examined = {(2 * i + 1) * frames // (2 * EXAMINED) for i in range(EXAMINED)}
        self._places = Places(count=count, size=size)
        self._seen = 0

    def add(
        self,
        name: str,
        lr: UInt8[Tensor, "3 h w"] | None,
        result: UInt8[Tensor, "3 h2 w2"],
        gt: UInt8[Tensor, "3 h2 w2"],
    ) -> None:
        """Look at the clip's next frame; every frame is passed, most return at once.

        Args:
            name: the frame's name.
            lr: the input, None if there is none (frames made elsewhere, without their input).
            result: the frame that is scored.
            gt: the ground truth.
        """
        index, self._seen = self._seen, self._seen + 1
        if index not in self._examined:
            return
        pictures = {"result": result, "gt": gt}
        enlarged = {}
        if lr is not None:
            pictures["bicubic"] = to_uint8(imresize(lr.float() / 255, SCALE))
            enlarged["lr"] = lr.repeat_interleave(SCALE, dim=1).repeat_interleave(SCALE, dim=2)
        self._places.add(name, pictures, enlarged)

    def crops(self) -> tuple[CropRecord, ...]:
        """The places found, those that differ most first."""
        return tuple(map(_crop, self._places.found))


def _crop(place: Place) -> CropRecord:
    images = {
        key: picture.permute(1, 2, 0).cpu().numpy() for key, picture in place.pictures.items()
    }
    png = {key: png_of(Image.fromarray(image)) for key, image in images.items()}
    return CropRecord(
        *(place.frame, place.y, place.x, place.difference),
        lr=png.get("lr"),
        bicubic=png.get("bicubic"),
        result=png["result"],
        gt=png["gt"],
    )


def limit_crops(clips: Iterable[ClipRecord], most: int = 24) -> tuple[ClipRecord, ...]:
    """The same clips with at most `most` crops among them: a set may have thousands of clips."""
    clips = tuple(clips)
    places = [(i, crop) for i, clip in enumerate(clips) for crop in clip.crops]
    places = sorted(places, key=lambda place: -place[1].difference)[:most]
    return tuple(
        replace(clip, crops=tuple(crop for j, crop in places if j == i))
        for i, clip in enumerate(clips)
    )


# ---- frames from a network: whole clips at once, in windows if it must be


class ThereAndBack(nn.Module):
    """BasicSR's `flip_seq`: a clip and its reverse in one pass, and the mean of the two outputs.

    Attributes:
        config: that of the network, if it has one.
        precision: that the network computes in.
        widens: see `IART.widens`.
        passes: how often the network sees each frame at once.
    """

    passes = 2

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config = getattr(network, "config", None)
        self.widens = getattr(network, "widens", False)

    @property
    def precision(self) -> str:
        """See `IART.precision`."""
        return getattr(self.network, "precision", "float32")

    def in_precision(self, name: str) -> "ThereAndBack":
        """The same network, of the same tensors, in another precision."""
        assert isinstance(self.network, IART)
        return ThereAndBack(self.network.in_precision(name))

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 4*h 4*w"]:
        """Enlarge a clip."""
        t = frames.shape[1]
        known = {"mirrored": True} if isinstance(self.network, IART) else {}
        both = self.network(torch.cat([frames, frames.flip(1)], dim=1), **known)
        return (both[:, :t] + both[:, t:].flip(1)) / 2


def enlarger_for(
    model: nn.Module, clip: Clip, *, window: int | None, overlap: int, share: float = 1.0
) -> Enlarger:
    """What shows a model the whole of a clip, or windows of it where the memory is short.

    Args:
        model: enlarges `b t 3 h w`.
        clip: what it will be shown.
        window: frames that it sees at once; None for as many as fit in memory.
        overlap: frames of context in a window.
        share: of the free memory, that it may take.

    Raises:
        DeviceError: not even the shortest window fits.
    """
    count = len(clip.lq)
    at_once = count if window is None else min(window, count)
    try:
        tiling = plan_tiling(
            model,
            *(side // SCALE for side in clip.size),
            window=at_once,
            overlap=min(overlap, (at_once - 1) // 2),
            tile="whole" if window is None else None,
            frames=count,
            share=share,
        )
    except DeviceError as error:
        raise DeviceError(f"clip '{clip.name}': {error}") from error
    return Enlarger(model, tiling)


def scored_frames(enlarger: Enlarger, clip: Clip) -> Iterator[UInt8[Tensor, "3 h w"]]:
    """The frames of a clip that are scored, in order, on the CPU.

    Raises:
        DataError: a low-resolution frame cannot be read.
        WeightsError: the network gives NaN.
        DeviceError: the memory does not suffice.
    """
    steps = (
        Step(Frame(read_image(path).float() / 255, i, Fraction(1)), i in clip.scored)
        for i, path in enumerate(clip.lq)
    )
    for frame, _ in enlarge_steps(steps, enlarger):
        if frame.data.isnan().any():
            precision = getattr(enlarger.model, "precision", "float32")
            raise WeightsError(
                f"the network's frames of clip '{clip.name}' hold NaN: its weights are broken, or"
                f" too large for {precision}. Try --precision float32"
            )
        yield to_uint8(frame.data)
