"""Flags that several commands share."""

from fractions import Fraction
from typing import Annotated

from typer import Argument, Option


def _rate(text: str | Fraction) -> Fraction:
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise ValueError("a rate has no 0 below the line") from None
    if rate <= 0:
        raise ValueError("a rate is above 0")
    return rate


Source = Annotated[
    str, Argument(metavar="INPUT", help="Video file, folder of images, or quoted pattern.")
]
Sources = Annotated[
    list[str],
    Argument(metavar="INPUT", help="Video file, folder of images, pattern, or several images."),
]
Model = Annotated[str, Option(help="Name (light, bicubic) or a .safetensors or .pth file.")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, Option(help="float32, bfloat16 or float16.")]
Window = Annotated[int, Option(help="Frames that the model sees at once.")]
Overlap = Annotated[int, Option(help="Frames of context at either end of a window.")]
Tile = Annotated[int | None, Option(help="Side in pixels of tiles, if memory is short.")]
Rate = Annotated[
    Fraction, Option(parser=_rate, metavar="RATE", help="Frames per second of images: 30000/1001.")
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an output that exists.")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="CPU threads of the network.")]
Quiet = Annotated[bool, Option("--quiet", help="Show errors only.")]
Verbose = Annotated[bool, Option("--verbose", help="Show where an error comes from.")]
