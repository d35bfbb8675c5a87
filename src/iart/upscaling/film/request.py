"""What is asked for when a video is enlarged, every option with its help; and what is told of it.

`UpscaleRequest` is what the keywords of `iart.upscale_video`, the flags of `iart upscale` and the
identity of a job come from. Nothing here needs PyTorch or FFmpeg, so that `--help` comes at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, Field, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args, get_origin

from iart.upscaling.windows import WINDOW, check_windows, usual_overlap

if TYPE_CHECKING:
    from iart.video.frame import Crop


Source = str | Path | Sequence[str | Path]
"""A file that FFmpeg reads, a folder of images, a pattern such as "shot/*.png", or a list of
images."""

AUTO = "auto"
"""In place of a model's name: the one that suits the source, see `iart.upscaling.film.choice`."""


@dataclass(frozen=True)
class Flag:
    """How an option appears on the command line.

    Attributes:
        help: its documentation, here as there.
        group: which of `GROUPS` it belongs to.
        metavar: what stands for its value; also says how that is read, see `iart.cli.flags`.
        name: if it is not that of the option.
        choices: what it takes, if that are few words.
    """

    help: str
    group: str
    metavar: str | None = None
    name: str | None = None
    choices: tuple[str, ...] = ()


GROUPS = INPUT, PICTURE, TRACKS, ENCODING, NETWORK, OUTPUT = (
    *("Input", "Picture", "Sound and other tracks", "Encoding", "Network, speed and memory"),
    "Output",
)
"""Under which headings options are shown."""

DEINTERLACE = ("auto", "off", "bwdif", "bwdif-field")
SIZES = ("480p", "576p", "720p", "1080p", "1440p", "2160p", "4K", "1x", "2x", "3x", "4x")
COLORS = ("auto", "keep", "bt709", "bt601", "bt2020")
HDR = ("refuse", "passthrough")
CODECS = (
    *("x264", "x265", "svt-av1", "ffv1", "prores"),
    *("nvenc-h264", "nvenc-hevc", "nvenc-av1"),
)


class UpscaleOptions(TypedDict, total=False):
    """Types of the options of `UpscaleRequest`, for keyword arguments."""

    window: int
    overlap: int | None
    tile: int | Literal["auto"] | None
    deinterlace: str
    crop: "Crop | Literal['auto'] | None"
    start_seconds: Fraction | None
    end_seconds: Fraction | None
    size: str | None
    square_pixels: bool
    color: str
    hdr: str
    codec: str | None
    crf: int | None
    preset: str | None
    pixel_format: str | None
    drop: Collection[str]
    overwrite: bool
    rate: Fraction


@dataclass(frozen=True)
class UpscaleRequest:
    """A source, an output, and every option of an upscale.

    Attributes:
        source: see `Source`.
        output: a file (.mp4, .mkv, .mov, .webm), or a folder for PNG images.
    """

    source: Source
    output: str | Path
    _: KW_ONLY
    window: Annotated[int, Flag("Frames that the model sees at once.", NETWORK)] = WINDOW
    overlap: Annotated[
        int | None,
        Flag(
            "Frames of context at either end of a window (default: 3, fewer in short windows).",
            NETWORK,
        ),
    ] = None
    tile: Annotated[
        int | Literal["auto"] | None,
        Flag(
            "Side of tiles in pixels; auto picks window and tiles from free memory, none shows"
            " whole pictures.",
            NETWORK,
            metavar="PIXELS",
        ),
    ] = "auto"
    deinterlace: Annotated[
        str, Flag("auto, off, bwdif or bwdif-field.", INPUT, choices=DEINTERLACE)
    ] = "auto"
    crop: Annotated[
        "Crop | Literal['auto'] | None",
        Flag(
            "Part of the picture to enlarge, in pixels of the source as shown; auto leaves black"
            " borders out.",
            INPUT,
            metavar="W:H:X:Y",
        ),
    ] = None
    start_seconds: Annotated[
        Fraction | None,
        Flag("Where to start: 90 or 0:01:30.", INPUT, metavar="TIME", name="--start"),
    ] = None
    end_seconds: Annotated[
        Fraction | None, Flag("Where to stop.", INPUT, metavar="TIME", name="--end")
    ] = None
    size: Annotated[
        str | None,
        Flag(
            "480p, 576p, 720p, 1080p, 1440p, 2160p (4K), 1x to 4x, or WIDTHxHEIGHT (default: 4x).",
            PICTURE,
            choices=SIZES,
        ),
    ] = None
    square_pixels: Annotated[
        bool, Flag("Write square pixels (default: keep the source's pixel aspect ratio).", PICTURE)
    ] = False
    color: Annotated[
        str,
        Flag(
            "auto (BT.709 for SD that becomes HD), keep, bt709, bt601 or bt2020.",
            PICTURE,
            choices=COLORS,
        ),
    ] = "auto"
    hdr: Annotated[
        str, Flag("What to do with PQ and HLG: refuse or passthrough.", PICTURE, choices=HDR)
    ] = "refuse"
    codec: Annotated[
        str | None,
        Flag(
            "x264, x265, svt-av1, ffv1 or prores; on NVIDIA's GPUs nvenc-h264, -hevc or -av1.",
            ENCODING,
            choices=CODECS,
        ),
    ] = None
    crf: Annotated[int | None, Flag("Quality of the codec; smaller is better.", ENCODING)] = None
    preset: Annotated[str | None, Flag("Encoder preset, such as medium (x264).", ENCODING)] = None
    pixel_format: Annotated[str | None, Flag("FFmpeg's name: yuv420p10le.", ENCODING)] = None
    drop: Annotated[
        Collection[str],
        Flag(
            "Leave out audio, subtitle, attachment, data or a track's number. Repeatable.", TRACKS
        ),
    ] = ()
    overwrite: Annotated[
        bool, Flag("Replace an output that exists, or that another command began.", OUTPUT)
    ] = False
    rate: Annotated[
        Fraction, Flag("Frames per second of images: 30000/1001.", INPUT, metavar="RATE")
    ] = Fraction(25)

    def __post_init__(self) -> None:
        """Check what can be checked without the source.

        Raises:
            OptionsError: the window keeps no frame.
        """
        if self.overlap is None:
            object.__setattr__(self, "overlap", usual_overlap(self.window))
        check_windows(self.window, self.overlap or 0)

    @property
    def name(self) -> str:
        """Name of the source, for messages."""
        return str(self.source) if isinstance(self.source, str | Path) else "the images"

    @property
    def has_range(self) -> bool:
        """Whether only a part of the source's time is asked for."""
        return self.start_seconds is not None or self.end_seconds is not None

    @property
    def bytes_depend_on(self) -> dict[str, str]:
        """Every option that the bytes of the output depend on, as text by name."""
        options = {name: getattr(self, name) for name in options_of_requests()}
        del options["overwrite"]
        return {name: str(value) for name, value in (options | {"drop": tuple(self.drop)}).items()}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upscale has come.

    Attributes:
        frames_done: frames handed to the writer, by this run and those that it goes on from.
        frame_count: frames expected in all, an estimate; None if nothing tells.
        elapsed_seconds: since this run began.
        frames_before: those of `frames_done` that runs before this one have done.
    """

    frames_done: int
    frame_count: int | None
    elapsed_seconds: float
    frames_before: int = 0


@dataclass(frozen=True, slots=True)
class UpscaleResult:
    """What an upscale has written.

    Attributes:
        output: the file or folder written.
        frames: number of frames written, as many as were read.
        seconds: that this run took.
        notes: what had to be converted on the way, one line each.
        is_new: whether this run made it; False if it was finished before.
    """

    output: Path
    frames: int
    seconds: float
    notes: tuple[str, ...] = ()
    is_new: bool = True


def absolute(source: Source) -> Source:
    """The same from any folder."""
    if isinstance(source, str | Path):
        return Path(source).absolute()
    return [Path(name).absolute() for name in source]


def options_of_requests() -> dict[str, Field[Any]]:
    """The options among the fields of `UpscaleRequest`; their types are `Annotated[…, Flag]`."""
    return {f.name: f for f in fields(UpscaleRequest) if get_origin(f.type) is Annotated}


def _described() -> str:
    """Lines for the docstring of `UpscaleRequest`."""
    flags = {name: get_args(field.type)[1] for name, field in options_of_requests().items()}
    return "".join(f"\n        {name}: {flag.help}" for name, flag in flags.items())


UpscaleRequest.__doc__ = f"{(UpscaleRequest.__doc__ or '').rstrip()}{_described()}\n    "
