"""The places to look at, where several pictures of one frame differ most; and sheets of them.

Convention: frames are uint8 RGB `3 h w`; places are (y, x) of the top left corner in pixels of
the ground truth, multiples of 4, so that the same place is whole pixels of the input.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import reduce
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

SCALE = 4

LABEL_HEIGHT = 36  # pixels
LABEL_SIZE = 20  # pixels
HEADING_HEIGHT = 26  # pixels, of a row's heading
HEADING_SIZE = 14  # pixels

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


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


def sheet(
    labels: Sequence[str],
    rows: Sequence[tuple[str, Sequence[UInt8[Tensor, "3 h w"]]]],
    *,
    zoom: int,
) -> Image.Image:
    """Details below the labels of their columns, every pixel shown as it is.

    Args:
        labels: of the columns.
        rows: heading (may be empty) and one detail per column, all of one size.
        zoom: pixels of the sheet per pixel of a detail.
    """
    _, high, wide = rows[0][1][0].shape
    width, height = wide * zoom, high * zoom
    heading = HEADING_HEIGHT if any(text for text, _ in rows) else 0
    picture = Image.new(
        "RGB", (width * len(labels), LABEL_HEIGHT + len(rows) * (height + heading)), "white"
    )
    draw, font = ImageDraw.Draw(picture), font_of(LABEL_SIZE)
    for column, label in enumerate(labels):
        middle = (column * width + width // 2, LABEL_HEIGHT // 2)
        text = fitted(label, font, width - 8)
        draw.text(middle, text, fill="black", font=font, anchor="mm")
    small = font_of(HEADING_SIZE)
    for number, (text, details) in enumerate(rows):
        top = LABEL_HEIGHT + number * (height + heading)
        if text:
            told = fitted(text, small, picture.width - 12)
            draw.text((6, top + heading // 2), told, fill="black", font=small, anchor="lm")
        for column, detail in enumerate(details):
            image = Image.fromarray(detail.permute(1, 2, 0).contiguous().cpu().numpy())
            image = image.resize((width, height), Image.Resampling.NEAREST)
            picture.paste(image, (column * width, top + heading))
    return picture


def png_of(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def font_of(size: int) -> Font:
    """Letters of a height in pixels."""
    return ImageFont.load_default(size)


def fitted(text: str, font: Font, width: int) -> str:
    """The text, or as much of its beginning as has room, in pixels."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 1 and font.getlength(text[:kept] + "…") > width:
        kept -= 1
    return text[:kept] + "…"
