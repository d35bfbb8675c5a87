"""Scenes on disk → clips for training: random crops of consecutive frames, reduced and flipped.

Convention: a clip is `t 3 h w`, RGB float32 in [0, 1]; a scene in memory is uint8, `t h w 3`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.stores.folder import FolderFrames
from iart.device import send, staging
from iart.errors import DataError, InputError
from iart.files.images import clip_folders, image_names, opened, video_files
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize, imresize_matrix
from iart.video.read.reader import VideoReader

# Crops before reduction have sides that are multiples of this, so that few resizing matrices serve.
SIDE_STEP = 16


@dataclass(frozen=True)
class Scene:
    """Consecutive frames without a cut."""

    name: str
    frames: UInt8[np.ndarray, "t h w 3"]


def load_scenes(
    root: Path, *, include: tuple[str, ...] = ("*",), exclude: tuple[str, ...] = ()
) -> list[Scene]:
    """Every folder of images and every video below `root` as a scene, held in memory.

    Names are paths below `root`; `include` and `exclude` are patterns over them. Images follow in
    natural order: 2.png before 10.png.

    Raises:
        DataError: nothing to read under `root`, or a file that cannot be read.
    """
    videos = {p.relative_to(root).as_posix(): p for p in video_files(root)}
    scenes = []
    for name, path in {**clip_folders(root), **videos}.items():
        wanted = any(fnmatch(name, pattern) for pattern in include)
        if not wanted or any(fnmatch(name, pattern) for pattern in exclude):
            continue
        scenes.append(Scene(name, _read_video(path) if name in videos else _read_images(path)))
    if not scenes:
        raise DataError(
            f"no scenes in '{root}' (include {list(include)}, exclude {list(exclude)}): "
            "expected folders of images or videos below it"
        )
    return scenes


def load_stills(root: Path, *, exclude: tuple[str, ...] = ()) -> list[Scene]:
    """Every image below `root` as a scene of one frame, held in memory.

    Names are paths below `root`; `exclude` are patterns over them.

    Raises:
        DataError: no image under `root`, or one that cannot be read.
    """
    scenes = []
    for folder, place in clip_folders(root).items():
        for file in image_names(place):
            name = file if folder == "." else f"{folder}/{file}"
            if not any(fnmatch(name, pattern) for pattern in exclude):
                with opened(place / file, name) as image:
                    scenes.append(Scene(name, image.read()[None]))
    if not scenes:
        raise DataError(f"no images in '{root}' (exclude {list(exclude)})")
    return scenes


def _read_images(folder: Path) -> UInt8[np.ndarray, "t h w 3"]:
    frames = FolderFrames(folder, str(folder))
    return frames.read(range(frames.count), 0, 0, *frames.size)


def _read_video(path: Path) -> UInt8[np.ndarray, "t h w 3"]:
    """In the colours in which it is enlarged; damage is left as it is."""
    try:
        with VideoReader(path, scenes=False) as reader:
            frames = [rearrange(to_uint8(frame.data), "c h w -> h w c") for frame in reader]
    except InputError as error:
        raise DataError(f"cannot read training scene '{path}': {error}") from error
    return torch.stack(frames).numpy()


def to_clip(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "t 3 h w"]:
    """Frames of a scene as a clip."""
    return torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 255


def low_resolution(clip: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h2 w2"]:
    """MATLAB's bicubic ×1/4, rounded to 8 bits, as float32."""
    return to_uint8(imresize(clip, 0.25)).float() / 255


def reduced_side(side: int, factor: float, limit: int) -> int:
    """Side of the crop that becomes `side` after a reduction by about `factor` ≥ 1, ≤ `limit`."""
    wanted = min(round(side * factor / SIDE_STEP), limit // SIDE_STEP) * SIDE_STEP
    return max(wanted, min(side, limit))


def there_and_back(places: Iterable[int], count: int) -> list[int]:
    """Frames of a clip of `count`, from 0, by their places in one that runs on for ever.

    Time runs back at either end, as a border is mirrored: … 2 1 0 1 2 … n−1 n−2 …
    """
    period = max(2 * count - 2, 1)
    return [min(place % period, -place % period) for place in places]


@dataclass(frozen=True)
class DrawnCrop:
    """All that a clip of a scene is made of, drawn; nothing is computed yet.

    Attributes:
        frames: a square of the scene.
        size: side of the clip, in pixels.
        mirrored: axes of the clip, `t 3 s s`, along which it is mirrored.
        transposed: whether height and width are swapped then.
    """

    frames: UInt8[np.ndarray, "t n n 3"]
    size: int
    mirrored: tuple[int, ...]
    transposed: bool

    @property
    def scale(self) -> float:
        """By which the square becomes the clip, at most 1."""
        return self.size / self.frames.shape[1]

    def clip(self) -> Float[Tensor, "t 3 s s"]:
        """The clip in [0, 1], computed on the CPU."""
        clip = imresize(to_clip(self.frames), self.scale)[..., : self.size, : self.size]
        return self.turned(clip.clamp(0, 1))

    def turned(self, clip: Float[Tensor, "t 3 s s"]) -> Float[Tensor, "t 3 s s"]:
        """A clip mirrored, transposed and reversed."""
        clip = clip.flip(self.mirrored) if self.mirrored else clip
        return clip.transpose(2, 3) if self.transposed else clip


def draw_crop(
    scene: Scene,
    frames: int,
    size: int,
    reduce: tuple[float, float],
    rng: np.random.Generator,
) -> DrawnCrop:
    """Draw a clip of `frames` frames and `size` × `size` pixels.

    The crop is reduced by a random factor in `reduce`, so that the compression of the source is
    not learnt; then mirrored in x, in y, reversed in time and transposed, each with probability ½.
    Where the scene is shorter than `frames`, time runs back at its ends.

    Raises:
        DataError: the scene is smaller than `size`.
    """
    count, h, w, _ = scene.frames.shape
    side = reduced_side(size, rng.uniform(*reduce), min(h, w))
    if side < size:
        raise DataError(f"scene '{scene.name}' is {w}×{h}: too small for crops of {size} pixels")
    start = int(rng.integers(max(count - frames, 0) + 1))
    y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
    chosen = there_and_back(range(start, start + frames), count)
    crop = scene.frames[chosen, y : y + side, x : x + side]
    mirrored = tuple(axis for axis in (3, 2, 0) if rng.random() < 0.5)
    return DrawnCrop(crop, size, mirrored, bool(rng.random() < 0.5))


def crop_batch(crops: Sequence[DrawnCrop], device: torch.device) -> Float[Tensor, "b t 3 s s"]:
    """The clips of crops of one size and length, computed at once on a device.

    They are those of `Crop.clip` within rounding.
    """
    frames, reduction = send_crops(crops, device)
    frames = frames.permute(0, 1, 4, 2, 3).float() / 255
    clips = (reduction @ frames @ reduction.mT).clamp(0, 1)
    return torch.stack([crop.turned(clip) for crop, clip in zip(crops, clips, strict=True)])


def send_crops(crops: Sequence[DrawnCrop], device: torch.device) -> tuple[Tensor, Tensor]:
    """What `crop_batch` computes with, on its device.

    Returns:
        Frames as bytes, in squares that hold the largest of the batch; and the matrices of the
        reduction, whose weights are 0 beyond each crop.
    """
    size, count = crops[0].size, len(crops[0].frames)
    most = max(crop.frames.shape[1] for crop in crops)
    frames = staging((len(crops), count, most, most, 3), torch.uint8, device)
    reduction = staging((len(crops), 1, 1, size, most), torch.float32, device).zero_()
    for i, crop in enumerate(crops):
        side = crop.frames.shape[1]
        frames.numpy()[i, :, :side, :side] = crop.frames
        matrix = imresize_matrix(side, crop.scale)[:size]
        reduction[i, ..., : matrix.shape[1]] = matrix
    return send(frames, device), send(reduction, device)
