"""Flags that several commands share, and how their words are read."""

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from iart.video.frame import Crop


def _rate(text: str | Fraction) -> Fraction:
    if "e" in str(text).lower():  # 1e999999999 would take for ever
        raise ValueError("a rate is a number or a fraction, such as 25 or 30000/1001")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise ValueError("a rate has no 0 below the line") from None
    if rate <= 0:
        raise ValueError("a rate is above 0")
    return rate


def _seconds(text: str | Fraction) -> Fraction:
    """Seconds, or hours, minutes and seconds: 90, 1:30, 0:01:30.5."""
    parts = str(text).split(":")
    if len(parts) > 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
        raise ValueError("a time is seconds or HH:MM:SS.mmm")
    seconds = Fraction(0)
    for part in parts:
        seconds = 60 * seconds + Fraction(part)
    return seconds


def _crop(text: "str | Crop") -> "Crop | str | None":
    from iart.video.frame import Crop

    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    try:
        width, height, x, y = (int(number) for number in str(text).split(":"))
    except ValueError:
        raise ValueError("a crop is WIDTH:HEIGHT:X:Y, auto or none") from None
    return Crop(width, height, x, y)


def _tile(text: str | int) -> int | str | None:
    """A side in pixels; auto; none."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    if not str(text).isdecimal():
        raise ValueError("a tile is a number of pixels, auto or none")
    return int(text)


def split_names(text: str) -> list[str]:
    """Names that commas part."""
    return [name.strip() for name in text.split(",") if name.strip()]


def split_devices(text: str) -> list[str]:
    """Names of devices from "0,1" (the first two of CUDA) or "cuda:0,cpu"."""
    return [f"cuda:{name}" if name.isdecimal() else name for name in split_names(text)]


Source = Annotated[
    str, Argument(metavar="INPUT", help="Video file, folder of images, or quoted pattern.")
]
Sources = Annotated[
    list[str],
    Argument(metavar="INPUT", help="Videos, folders of videos or of images, patterns, or images."),
]
Deinterlace = Annotated[str, Option(help="auto, off, bwdif or bwdif-field.")]
CropTo = Annotated[
    Any,
    Option(
        parser=_crop,
        metavar="W:H:X:Y",
        help="Part of the picture to enlarge; auto leaves black borders out.",
    ),
]
Size = Annotated[
    str | None, Option(help="1080p, 1440p, 2160p, 2x, 3x or WIDTHxHEIGHT, instead of 4x.")
]
SquarePixels = Annotated[
    bool, Option("--square-pixels", help="Square pixels; else a film's shape is kept by theirs.")
]
Color = Annotated[
    str, Option(help="auto (BT.709 for SD that becomes HD), keep, bt709, bt601 or bt2020.")
]
Hdr = Annotated[str, Option(help="What to do with PQ and HLG: refuse or passthrough.")]
Start = Annotated[
    Any, Option("--start", parser=_seconds, metavar="TIME", help="Where to start: 90 or 0:01:30.")
]
End = Annotated[Any, Option("--end", parser=_seconds, metavar="TIME", help="Where to stop.")]
Devices = Annotated[
    str | None, Option(metavar="LIST", help="Share the work of a video: 0,1 or cuda:0,cpu.")
]
Model = Annotated[str, Option(help="Name (light, bicubic) or a .safetensors or .pth file.")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, Option(help="float32, bfloat16 or float16.")]
Window = Annotated[int, Option(help="Frames that the model sees at once.")]
Overlap = Annotated[int, Option(help="Frames of context at either end of a window.")]
Tile = Annotated[
    Any,
    Option(
        parser=_tile,
        metavar="PIXELS",
        help="Side of tiles if memory is short; auto plans by what is free; none for none.",
    ),
]
Rate = Annotated[
    Fraction, Option(parser=_rate, metavar="RATE", help="Frames per second of images: 30000/1001.")
]
OptionalRate = Annotated[
    Fraction | None, Option(parser=_rate, metavar="RATE", help="Frames per second of images.")
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an output that exists.")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="CPU threads of the network.")]
Quiet = Annotated[bool, Option("--quiet", help="Show errors only.")]
Verbose = Annotated[bool, Option("--verbose", help="Show where an error comes from.")]
