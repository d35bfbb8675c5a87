"""A film as a Blu-ray and as DVDs of three kinds, of which the truth is known."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch

from iart.data.clips import to_clip
from iart.data.drawn import drawn_still
from iart.data.pair.framing import Framing
from iart.files.images import read_image
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import bicubic, lanczos_at
from tests.video import fielded
from tests.video.fielded import FILM, Moment

PHOTOS = Path(__file__).parents[3] / "src/iart/assets/photos"
SCENES = 14
STILL, FADES, REPEATED = 4, 6, 3
"""Scenes of a kind; scene REPEATED is shown again after scene 8."""
MISSING = (5, 10)
"""Not on the DVD; a foreign scene stands in place of the second."""
FOREIGN = 15
SCALE, SHIFT = 0.993, 1.3
"""How much of the Blu-ray's picture the DVD shows, and how far off its middle, in DVD pixels."""
GAMMA, GAIN, LEVEL = 1.1, 0.92, 0.02


@dataclass(frozen=True)
class Size:
    """Of the pictures, in pixels, and of the scenes, in frames."""

    bluray: tuple[int, int]
    dvd: tuple[int, int]
    frames: int

    @property
    def framing(self) -> Framing:
        """The truth."""
        shifts = [(1 - SCALE) / 2 + SHIFT * SCALE / side for side in self.dvd]
        return Framing(SCALE, shifts[0], SCALE, shifts[1])

    @property
    def sample_aspect(self) -> Fraction:
        """Of the DVD, whose picture is as wide as the Blu-ray's."""
        return Fraction(self.bluray[0] * self.dvd[1], self.bluray[1] * self.dvd[0])


TINY = Size((256, 144), (128, 80), 18)
LARGE = Size((1280, 720), (720, 480), 103)  # a minute


@dataclass(frozen=True)
class Discs:
    """What was made.

    Attributes:
        size: of pictures and scenes.
        bluray: the file.
        dvds: the files, by kind.
        film: of the DVD, one moment a frame; in a file, as a minute of it is 750 MB.
        partners: on the Blu-ray, of each frame of the DVD's film: all that are the same; none in a
            foreign scene.
    """

    size: Size
    bluray: Path
    dvds: dict[str, Path]
    film: list[Moment]
    partners: list[set[int]]


def make_discs(
    folder: Path, size: Size, seed: int = 0, *, kinds: Collection[str] = ("hard", "soft", "pal")
) -> Discs:
    """Write a Blu-ray and its DVDs."""
    order = list(range(SCENES))
    order.insert(9, REPEATED)
    partners: list[set[int]] = []
    shown: dict[int, list[set[int]]] = {}

    width, height = size.dvd
    count = (len(order) - len(MISSING) + 1) * size.frames
    stored = np.memmap(folder / "film.yuv", np.uint8, "w+", shape=(count, width * height * 3 // 2))
    film = [_planes(each, width, height) for each in stored]
    empty = iter(film)

    def keep(frame: torch.Tensor) -> None:
        for plane, values in zip(next(empty), _moment(_on_dvd(frame, size)), strict=True):
            plane[:] = values

    def bluray() -> Iterator[Moment]:
        """All pictures; those of the DVD are made on the way."""
        for scene, number in enumerate(order):
            same = shown.setdefault(number, [set() for _ in range(size.frames)])
            places = range(scene * size.frames, (scene + 1) * size.frames)
            for place, frame, known in zip(places, _scene(number, size, seed), same, strict=True):
                known |= set(places) if number == STILL else {place}
                if number not in MISSING:
                    keep(frame)
                yield _moment(frame)
            if number not in MISSING:
                partners.extend(same)
            elif number == MISSING[1]:
                for frame in _scene(FOREIGN, size, seed):
                    keep(frame)
                partners.extend(set() for _ in places)

    path = fielded.write(
        folder / "bluray.mkv",
        bluray(),
        rate=FILM,
        codec="libx264",
        options={"crf": "16", "preset": "ultrafast"},
    )
    dvds = {kind: KINDS[kind](folder / kind, film, size.sample_aspect) for kind in kinds}
    return Discs(size, path, dvds, film, partners)


def make_other_film(path: Path, size: Size, scenes: int) -> Path:
    """A DVD of none of the film's scenes, which are of the same kinds."""
    numbers = range(FOREIGN + 1, FOREIGN + 1 + 2 * scenes, 2)  # drawn ones: there are few photos
    film = [_moment(_on_dvd(each, size)) for number in numbers for each in _scene(number, size, 0)]
    return _pal(path, film, size.sample_aspect)


@lru_cache(maxsize=1)  # scenes are made one after the other
def _still(number: int, side: int) -> torch.Tensor:
    """Each another: photographs, also mirrored, and drawn ones."""
    if number % 2:
        photos = sorted(PHOTOS.glob("*.webp"))
        photo = read_image(photos[number // 2 % len(photos)]).float() / 255
        photo = photo.flip(2) if number // 2 >= len(photos) else photo
        return bicubic(photo, side * 3 // 4, side).clamp(0, 1)
    return to_clip(drawn_still(number, number, side).frames)[0, :, : side * 3 // 4]


def _scene(number: int, size: Size, seed: int) -> Iterator[torch.Tensor]:
    """A camera that moves over a still at a speed of its own, and comes nearer."""
    rng = np.random.default_rng((seed, number))
    width, height = size.bluray
    still = _still(number, width * 5 // 4)
    room = still.shape[1] - height, still.shape[2] - width
    # mostly sideways: what goes straight up looks like fields
    start = rng.uniform(0.4, 0.6, 2) * room
    way = rng.uniform((-0.05, 0.3), (0.05, 0.8)) * room * rng.choice((-1, 1))
    start -= way / 2
    for t in np.linspace(0, 1, size.frames) * (number != STILL):
        step = 1 - 0.03 * t
        y, x = start + way * t + (1 - step) / 2 * np.array((height, width))
        top, left = max(0, int(y) - 8), max(0, int(x) - 8)
        part = still[:, top : top + height + 24, left : left + width + 24]
        places = {"y": (float(y - top), float(step)), "x": (float(x - left), float(step))}
        frame = lanczos_at(part, height, width, **places).clamp(0, 1)
        yield frame * float(1 - 0.9 * t) if number == FADES else frame


def _on_dvd(frame: torch.Tensor, size: Size) -> torch.Tensor:
    (width, height), framing = size.dvd, size.framing
    wide, high = size.bluray
    steps = framing.scale_y * high / height, framing.scale_x * wide / width
    starts = (
        framing.shift_y * high + steps[0] / 2 - 0.5,
        framing.shift_x * wide + steps[1] / 2 - 0.5,
    )
    low = lanczos_at(frame, height, width, y=(starts[0], steps[0]), x=(starts[1], steps[1]))
    return GAIN * low.clamp(0, 1) ** GAMMA + LEVEL


def _moment(frame: torch.Tensor) -> Moment:
    array = to_uint8(frame).permute(1, 2, 0).contiguous().numpy()
    planes = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p")
    height, width = array.shape[:2]
    luma, chroma = planes.to_ndarray().reshape(-1)[: height * width], planes.planes[1:]
    blue, red = (
        np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1)[:, : p.width] for p in chroma
    )
    return luma.reshape(height, width), blue.copy(), red.copy()


def _planes(stored: np.ndarray, width: int, height: int) -> Moment:
    """Parts of an array of bytes."""
    luma, *chroma = np.split(stored, [width * height, width * height * 5 // 4])
    blue, red = (plane.reshape(height // 2, width // 2) for plane in chroma)
    return luma.reshape(height, width), blue, red


def _hard(path: Path, film: list[Moment], aspect: Fraction) -> Path:
    return fielded.write(
        path.with_suffix(".mpg"),
        fielded.telecined(film),
        codec="mpeg2video",
        options=fielded.MPEG2_INTERLACED | _QUALITY,
        sample_aspect=aspect,
    )


def _soft(path: Path, film: list[Moment], aspect: Fraction) -> Path:
    return fielded.soft_telecined(path.with_suffix(".mpg"), film, sample_aspect=aspect)


def _pal(path: Path, film: list[Moment], aspect: Fraction) -> Path:
    return fielded.write(
        path.with_suffix(".mpg"),
        film,
        rate=Fraction(25),
        codec="mpeg2video",
        options=fielded.MPEG2 | _QUALITY,
        sample_aspect=aspect,
    )


_QUALITY = {"qscale": "3"}
KINDS: dict[str, Callable[[Path, list[Moment], Fraction], Path]] = {
    "hard": _hard,
    "soft": _soft,
    "pal": _pal,
}
