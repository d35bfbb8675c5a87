"""Flags that several commands share, and how their words are read.

Those of an upscale come from the fields of `UpscaleRequest`, see `with_options`.
"""

import inspect
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from typer import Argument, BadParameter, Option

from iart.files.shipped import shipped_models
from iart.upscaling.film.request import AUTO, GROUPS, NETWORK, OUTPUT, options_of_requests

if TYPE_CHECKING:
    from iart.video.frame import Crop


def _rate(text: str | Fraction) -> Fraction:
    if "e" in str(text).lower():  # 1e999999999 would take for ever
        raise BadParameter("a rate is a number or a fraction, such as 25 or 30000/1001")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise BadParameter("the denominator of a rate must not be 0") from None
    except ValueError:
        raise BadParameter("a rate is a number or a fraction, such as 25 or 30000/1001") from None
    if rate <= 0:
        raise BadParameter("a rate is above 0")
    return rate


def _seconds(text: str | Fraction) -> Fraction:
    """Seconds, or hours, minutes and seconds: 90, 1:30, 0:01:30.5."""
    parts = str(text).split(":")
    if len(parts) > 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
        raise BadParameter("a time is seconds or HH:MM:SS.mmm")
    seconds = Fraction(0)
    for part in parts:
        if len(parts) > 1 and part is not parts[0] and Fraction(part) >= 60:
            raise BadParameter(f"minutes and seconds after a colon are below 60, got {part}")
        seconds = 60 * seconds + Fraction(part)
    return seconds


def _crop(text: "str | Crop") -> "Crop | str | None":
    from iart.video.frame import Crop

    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    try:
        width, height, x, y = (int(number) for number in str(text).split(":"))
    except ValueError:
        raise BadParameter("a crop is WIDTH:HEIGHT:X:Y, auto or none") from None
    return Crop(width, height, x, y)


def _tile(text: str | int) -> int | str | None:
    """A side in pixels; auto; none."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    if not str(text).isdecimal():
        raise BadParameter("a tile is a number of pixels, auto or none")
    return int(text)


def split_names(text: str) -> list[str]:
    """Names that commas part."""
    return [name.strip() for name in text.split(",") if name.strip()]


def split_devices(text: str) -> list[str]:
    """Names of devices from "0,1" (the first two of CUDA) or "cuda:0,cpu"."""
    return [f"cuda:{name}" if name.isdecimal() else name for name in split_names(text)]


PARSERS: dict[str | None, Callable[[Any], Any]] = {
    "RATE": _rate,
    "TIME": _seconds,
    "W:H:X:Y": _crop,
    "PIXELS": _tile,
}
"""How the word of a flag is read, by its metavar."""

Command = TypeVar("Command", bound=Callable[..., None])


def with_options(*left_out: str) -> Callable[[Command], Command]:
    """Give a command flags for options of `UpscaleRequest`, after `model`, as its `**options`.

    Args:
        left_out: names of options that it does not have.
    """

    def add(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [flag for flag in _option_flags() if flag.name not in left_out]
        place = 1 + [parameter.name for parameter in own].index("model")
        command.__dict__["__signature__"] = signature.replace(
            parameters=[*own[:place], *options, *own[place:]]
        )
        return command

    return add


def _option_flags() -> list[inspect.Parameter]:
    flags = []
    fields = options_of_requests().items()
    for name, field in sorted(fields, key=lambda f: GROUPS.index(get_args(f[1].type)[1].group)):
        kind, flag = get_args(field.type)
        default = field.default
        if flag.metavar is not None:
            kind = Any
        elif kind == Collection[str]:
            kind, default = list[str] | None, None
        option = Option(
            flag.name or f"--{name.replace('_', '-')}",
            parser=PARSERS.get(flag.metavar),
            metavar=flag.metavar,
            help=flag.help,
            rich_help_panel=None if flag.group == OUTPUT else flag.group,
            autocompletion=one_of(*flag.choices) if flag.choices else None,
        )
        flags.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default,
                annotation=Annotated[kind, option],
            )
        )
    return flags


def examples(*commands: str) -> str:
    """What stands below the help of a command."""
    return "\n\n".join(["Examples:", *commands])


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Words for the completion of the shell."""

    def completed(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return completed


Sources = Annotated[
    list[str],
    Argument(
        metavar="INPUT",
        help="Videos, folders of videos or of images, patterns, images, or - for y4m.",
    ),
]
Devices = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Share the work of a video: 0,1 or cuda:0,cpu.",
        rich_help_panel=NETWORK,
    ),
]
Model = Annotated[
    str,
    Option(
        help="auto (by what the source is), a name (`iart models` lists them) or a .safetensors"
        " or .pth file.",
        autocompletion=one_of(AUTO, *shipped_models()),
    ),
]
Container = Annotated[
    str | None,
    Option(
        help="Kind of the videos in an output folder: mkv, mp4, mov or webm.",
        autocompletion=one_of("mkv", "mp4", "mov", "webm"),
    ),
]
Device = Annotated[
    str,
    Option(
        help="auto, cpu, cuda, cuda:N or mps.",
        rich_help_panel=NETWORK,
        autocompletion=one_of("auto", "cpu", "cuda", "mps"),
    ),
]
Precision = Annotated[
    str,
    Option(
        help="float32, bfloat16, float16 or auto: float16 on GPUs, where it is faster.",
        rich_help_panel=NETWORK,
        autocompletion=one_of("auto", "float32", "bfloat16", "float16"),
    ),
]
Backend = Annotated[
    str,
    Option(
        help="What computes attention: native (C++ on the CPU), torch, triton (GPUs) or auto: the"
        " fastest that works.",
        rich_help_panel=NETWORK,
        autocompletion=one_of("auto", "native", "torch", "triton"),
    ),
]
Overlap = Annotated[int, Option(help="Frames of context at either end of a window.")]
OptionalRate = Annotated[
    Fraction | None, Option(parser=_rate, metavar="RATE", help="Frames per second of images.")
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an output that exists.")]
Threads = Annotated[
    int | None,
    Option(min=1, max=1024, help="CPU threads of the network.", rich_help_panel=NETWORK),
]
Json = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, Option("--quiet", help="Show errors only.")]
Verbose = Annotated[bool, Option("--verbose", help="Show where an error comes from.")]
