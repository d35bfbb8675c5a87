"""Details of pictures as one sheet: a row per place, a column per picture."""

from collections.abc import Sequence

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABEL_HEIGHT = 36  # pixels
LABEL_SIZE = 20  # pixels
HEADING_HEIGHT = 26  # pixels, of a row's heading
HEADING_SIZE = 14  # pixels

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Row = tuple[str, Sequence[UInt8[Tensor, "3 h w"]]]


def sheet(labels: Sequence[str], rows: Sequence[Row], *, zoom: int) -> Image.Image:
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
