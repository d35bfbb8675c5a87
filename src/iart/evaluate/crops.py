"""Picks the places to look at: where bicubic, result and ground truth differ most.

Convention: frames are uint8 RGB `3 h w`; places are (y, x) of the top left corner in pixels of
the ground truth, multiples of 4, so that the same place is whole pixels of the input.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from einops import reduce
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iart.data.degrade import to_uint8
from iart.evaluate.record import ClipRecord, Crop
from iart.resize import imresize

SCALE = 4
# Frames of a clip that are looked at: neighbours are alike, and each costs as much as its PSNR.
EXAMINED = 8


@dataclass(frozen=True, slots=True)
class Place:
    """The same part of several pictures of one frame.

    Attributes:
        frame: the frame's name.
        y: the top row, a multiple of 4.
        x: the left column, likewise.
        difference: mean over the place of largest minus smallest value, 0 … 255.
        pictures: the part of each.
    """

    frame: str
    y: int
    x: int
    difference: float
    pictures: dict[str, UInt8[Tensor, "3 y x"]]


class Places:
    """The places where pictures differ most, over all frames that are added.

    They do not overlap, whatever their frames, so that they show different things.

    Attributes:
        found: those that differ most first.
    """

    def __init__(self, *, count: int, size: int) -> None:
        """Look for places.

        Args:
            count: how many.
            size: their side in pixels, a multiple of 4; less in small frames.
        """
        self.found: list[Place] = []
        self._count, self._size = count, size

    def add(
        self,
        name: str,
        pictures: Mapping[str, UInt8[Tensor, "3 h w"]],
        more: Mapping[str, UInt8[Tensor, "3 h w"]] | None = None,
    ) -> None:
        """Look at one more frame.

        Args:
            name: the frame's name.
            pictures: those that are compared.
            more: cut like the others, but not compared.
        """
        if self._count < 1:
            return
        spread, size = _spread(list(pictures.values())), self._size
        shown = {**pictures, **(more or {})}
        for y, x, difference in _best(spread, size, self._count):
            if len(self.found) == self._count and difference <= self.found[-1].difference:
                break
            parts = {key: p[:, y : y + size, x : x + size].clone() for key, p in shown.items()}
            self.found.append(Place(name, y, x, difference, parts))
        self.found = _apart(self.found, size)[: self._count]


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

    def crops(self) -> tuple[Crop, ...]:
        """The places found, those that differ most first."""
        return tuple(map(_crop, self._places.found))


def _crop(place: Place) -> Crop:
    png = {key: _png(picture) for key, picture in place.pictures.items()}
    return Crop(
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


def _spread(pictures: list[UInt8[Tensor, "3 h w"]]) -> Float[Tensor, "rows columns"]:
    """Largest minus smallest value of the pictures, mean over each 4×4 pixels."""
    stack = torch.stack(pictures)
    spread = (stack.amax(dim=0) - stack.amin(dim=0)).float().mean(dim=0)
    height, width = (side - side % SCALE for side in spread.shape)
    return reduce(spread[:height, :width], "(h y) (w x) -> h w", "mean", y=SCALE, x=SCALE)


def _best(spread: Float[Tensor, "h w"], size: int, count: int) -> Iterator[tuple[int, int, float]]:
    """Up to `count` squares (y, x, mean) that do not overlap, the highest mean first."""
    window = [min(size // SCALE, side) for side in spread.shape]
    if 0 in window:  # less than 4 pixels
        return
    means = F.avg_pool2d(spread[None], window, stride=1)[0]
    for _ in range(count):
        value, place = means.flatten().max(dim=0)
        if value < 0:
            return
        y, x = divmod(int(place), means.shape[1])
        yield y * SCALE, x * SCALE, value.item()
        top, left = max(0, y - window[0] + 1), max(0, x - window[1] + 1)
        means[top : y + window[0], left : x + window[1]] = -1


def _apart(places: list[Place], size: int) -> list[Place]:
    """Highest first, without those that overlap a higher one."""
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: -place.difference):
        if all(max(abs(place.y - other.y), abs(place.x - other.x)) >= size for other in kept):
            kept.append(place)
    return kept


def _png(picture: UInt8[Tensor, "3 h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, "PNG")
    return buffer.getvalue()
