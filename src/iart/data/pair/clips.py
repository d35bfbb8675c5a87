"""Clips of pairs: which there are, which are written, and how: low resolution and ground truth."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.degrade_clips import write_ffv1
from iart.data.pair.check import KEPT, PairedSegment
from iart.data.pair.disc import Cursor, Disc, Thumbnails
from iart.data.pair.framing import Framing
from iart.data.stores.folder import FolderFrames, Frames
from iart.data.stores.video import VideoFrames
from iart.files.complete import PendingOutput, write_json
from iart.files.images import write_image
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import lanczos_at
from iart.video.frame import Crop

SHORTEST = 16
"""Frames of a clip, at least: a sample of training."""
_SMALLEST = 64  # pixels of the low resolution
_TOLD = 4  # frames of a clip that tell how colours differ
_UNTOLD = 1e-4  # of the pixels: weight of colours that stay


@dataclass(frozen=True)
class PairedClip:
    """Successive frames that go together.

    Attributes:
        scene: number of its shot on the DVD.
        first: its first frame on the DVD.
        partners: the frame on the Blu-ray of each.
        framing: of its segment.
        box: the part of the DVD's picture that both discs show, in pixels of the frame.
    """

    scene: int
    first: int
    partners: tuple[int, ...]
    framing: Framing
    box: Crop

    @property
    def name(self) -> str:
        """Of its folder or file, in order of the film."""
        return f"{self.scene:05d}_{self.first:07d}"

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.partners)


def find_clips(segments: Sequence[PairedSegment], active: Crop) -> list[PairedClip]:
    """All runs of kept frames that are long enough, and whose partners follow each other.

    Args:
        segments: of the DVD, checked.
        active: the DVD's picture without borders.
    """
    clips: list[PairedClip] = []
    for segment in segments:
        box = _box(segment.framing, active)
        if min(box.width, box.height) < _SMALLEST:
            continue
        run: list[int] = []
        for n in range(len(segment.partners) + 1):
            kept = n < len(segment.partners) and segment.verdicts[n] == KEPT
            if kept and (not run or segment.partners[n] > segment.partners[n - 1]):
                run.append(n)
                continue
            if len(run) >= SHORTEST:
                partners = tuple(segment.partners[i] for i in run)
                first = segment.first + run[0]
                clips.append(PairedClip(segment.scene, first, partners, segment.framing, box))
            run = [n] if kept else []
    return clips


def _box(framing: Framing, active: Crop) -> Crop:
    """Whole pixels of the DVD that both discs show, but for one at each edge that is not sure."""
    left, top, right, bottom = framing.limits()
    x, y = (int(np.ceil(v)) for v in (left * active.width + 1, top * active.height + 1))
    right, bottom = int(right * active.width - 1), int(bottom * active.height - 1)
    return Crop(right - x, bottom - y, active.x + x, active.y + y)


def spread_choice(clips: Sequence[PairedClip], count: int) -> list[PairedClip]:
    """So many clips, evenly over the film."""
    if count >= len(clips):
        return list(clips)
    return [clips[(2 * n + 1) * len(clips) // (2 * count)] for n in range(count)]


def validation_scenes(clips: Sequence[PairedClip], share: float) -> set[int]:
    """Scenes that are held out, evenly over the film: at least one if there are two and a share."""
    scenes = sorted({clip.scene for clip in clips})
    if not share or len(scenes) < 2:
        return set()
    count = min(max(1, round(share * len(scenes))), len(scenes) - 1)
    return {scenes[(2 * n + 1) * len(scenes) // (2 * count)] for n in range(count)}


class ClipWriter:
    """Writes clips as folders of PNG or as FFV1, below `GT` and `LQ`."""

    def __init__(
        self,
        root: Path,
        discs: tuple[Disc, Disc],
        thumbnails: tuple[Thumbnails, Thumbnails],
        *,
        scale: int,
        match_color: bool,
        ffv1: bool,
    ) -> None:
        """Write below a folder.

        Args:
            root: of the pairs.
            discs: DVD and Blu-ray.
            thumbnails: of both, for times.
            scale: of the ground truth over the low resolution.
            match_color: bring the ground truth to the DVD's colours.
            ffv1: write videos.
        """
        self._root, self._discs, self._thumbnails = root, discs, thumbnails
        self._scale, self._match_color, self._ffv1 = scale, match_color, ffv1
        self._cursors = [
            Cursor(disc, lambda start, disc=disc: disc.colors(start_seconds=start))
            for disc in discs
        ]

    def size(self, clip: PairedClip) -> tuple[int, int]:
        """(height, width) of the ground truth."""
        return self._scale * clip.box.height, self._scale * clip.box.width

    def write_low(self, clip: PairedClip) -> None:
        """Write the low resolution of a clip, complete or not at all; what is there stays.

        Colours are measured on the way. Do so for all clips, then write their ground truths: that
        goes through the Blu-ray twice, where clip by clip would go back twice for each; files that
        cannot be sought are decoded from their start then.

        Raises:
            InputError: a disc has changed.
            OutputError: the operating system refuses.
        """
        low = self._place("LQ", clip)
        if not low.exists():
            box = clip.box
            self._write(low, self._low_resolution(clip), (box.height, box.width))
        self.color(clip)

    def write_truth(self, clip: PairedClip) -> None:
        """Write the ground truth of a clip likewise."""
        truth = self._place("GT", clip)
        if not truth.exists():
            self._write(truth, self._ground_truth(clip, self.color(clip)), self.size(clip))

    def frames(self, side: str, clip: PairedClip) -> Frames:
        """What was written: of "LQ" or "GT"."""
        place = self._place(side, clip)
        return (VideoFrames if self._ffv1 else FolderFrames)(place, clip.name)

    def color(self, clip: PairedClip) -> Float[np.ndarray, "4 3"]:
        """The least-squares map from colours (R, G, B, 1) of the Blu-ray to those of the DVD.

        It is measured once the low resolution is written, and kept in a file.
        """
        path = self._root / "analysis" / f"{clip.name}.color.json"
        if path.exists():
            return np.array(json.loads(path.read_bytes()))
        chosen = sorted(set(np.linspace(0, len(clip) - 1, _TOLD).round().astype(int).tolist()))
        dvd = self.frames("LQ", clip).read(chosen, 0, 0, clip.box.height, clip.box.width)
        times = self._thumbnails[1].times[[clip.partners[n] for n in chosen]]
        normal, right = np.zeros((4, 4)), np.zeros((4, 3))
        for low, rgb in zip(dvd, self._cursors[1].read(times), strict=True):
            high = self._resampled(rgb(), clip, 1).flatten(1).double().numpy()
            high = np.concatenate((high, np.ones_like(high[:1])))
            normal += high @ high.T
            right += high @ (low.reshape(-1, 3) / 255)
        # grey scenes do not tell colours apart: what they leave open stays as it is
        weight = _UNTOLD * normal[3, 3]
        color = np.linalg.solve(normal + weight * np.eye(4), right + weight * np.eye(4, 3))
        color = color.round(5)
        write_json(path, color.tolist())
        return color

    def _place(self, side: str, clip: PairedClip) -> Path:
        return self._root / side / (f"{clip.name}.mkv" if self._ffv1 else clip.name)

    def _write(
        self, place: Path, frames: Iterator[Float[Tensor, "3 h w"]], size: tuple[int, int]
    ) -> None:
        pictures = (to_uint8(frame) for frame in frames)
        if self._ffv1:
            write_ffv1(place, pictures, size, "iart data pair")
            return
        pending = PendingOutput(place, folder=True)
        try:
            for number, picture in enumerate(pictures):
                write_image(pending.part / f"{number:08d}.png", picture)
            pending.commit()
        finally:
            pending.discard()

    def _low_resolution(self, clip: PairedClip) -> Iterator[Float[Tensor, "3 h w"]]:
        times = self._thumbnails[0].times[clip.first : clip.first + len(clip)]
        for rgb in self._cursors[0].read(times):
            yield clip.box.cut(rgb())

    def _ground_truth(
        self, clip: PairedClip, color: Float[np.ndarray, "4 3"]
    ) -> Iterator[Float[Tensor, "3 h w"]]:
        change = torch.from_numpy(color).float()
        for rgb in self._cursors[1].read(self._thumbnails[1].times[list(clip.partners)]):
            truth = self._resampled(rgb(), clip, self._scale)
            if self._match_color:
                truth = torch.einsum("chw,cd->dhw", truth, change[:3]) + change[3][:, None, None]
            yield truth.clamp(0, 1)

    def _resampled(
        self, frame: Float[Tensor, "3 h w"], clip: PairedClip, scale: int
    ) -> Float[Tensor, "3 h2 w2"]:
        """The Blu-ray's picture on the grid of the clip, `scale` times as fine as the DVD's."""
        dvd, bluray = (disc.active for disc in self._discs)
        x = _places(clip.box.x - dvd.x, dvd.width, bluray.x, bluray.width, *clip.framing[:2], scale)
        y = _places(
            clip.box.y - dvd.y, dvd.height, bluray.y, bluray.height, *clip.framing[2:], scale
        )
        height, width = scale * clip.box.height, scale * clip.box.width
        return lanczos_at(frame, height, width, y=y, x=x).clamp(0, 1)


def _places(
    first: int, dvd: int, offset: int, bluray: int, scale: float, shift: float, finer: int
) -> tuple[float, float]:
    """Start and step on an axis of the Blu-ray, for pixels of the DVD from `first` on."""
    step = scale * bluray / (dvd * finer)
    edge = offset + (scale * first / dvd + shift) * bluray
    return edge + step / 2 - 0.5, step
