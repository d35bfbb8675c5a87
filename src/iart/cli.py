"""The command line: one thin function per command, whose flags are keywords of the library's.

PyTorch and FFmpeg are imported by the commands that use them, so that help comes at once.
"""

import io
import signal
import sys
from fractions import Fraction
from typing import Annotated

import typer
from typer import Argument, Option

from iart.console import progress_display, reported, say
from iart.inference.windows import OVERLAP, WINDOW

app = typer.Typer(
    name="iart",
    help="Make video four times larger and restore it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry of the `iart` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # file names and tracks may hold what a terminal or a pipe has no character for
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):  # a job that is stopped cleans up as after Ctrl-C
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, signal.default_int_handler)
    app()


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


@app.command()
def upscale(
    source: Sources,
    output: Annotated[
        str, Option("--output", "-o", help=".mp4, .mkv, .mov, .webm, or a folder for PNG images.")
    ],
    model: Model = "light",
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    tile: Tile = None,
    codec: Annotated[str | None, Option(help="x264, x265, svt-av1, ffv1 or prores.")] = None,
    crf: Annotated[int | None, Option(help="Quality of the codec; smaller is better.")] = None,
    preset: Annotated[str | None, Option(help="Speed of the encoder, in its words.")] = None,
    pixel_format: Annotated[str | None, Option(help="FFmpeg's name: yuv420p10le.")] = None,
    drop: Annotated[
        list[str] | None,
        Option(help="Leave out audio, subtitle, attachment, data or a track's number. Repeatable."),
    ] = None,
    overwrite: Overwrite = False,
    rate: Rate = Fraction(25),
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Enlarge a video four times; sound, subtitles and times are kept."""
    with reported(quiet=quiet, verbose=verbose):
        import torch

        from iart.inference.upscale import upscale_video
        from iart.weights import load_model

        if threads is not None:
            torch.set_num_threads(threads)
        network = load_model(model, device, precision)
        with progress_display(quiet=quiet) as progress:
            result = upscale_video(
                source[0] if len(source) == 1 else source,
                output,
                network,
                window=window,
                overlap=overlap,
                tile=tile,
                codec=codec,
                crf=crf,
                preset=preset,
                pixel_format=pixel_format,
                drop=drop or (),
                overwrite=overwrite,
                rate=rate,
                progress=progress,
            )
        if not quiet:
            say(f"{output}: {result.frames} frames in {result.seconds:.1f} s")


@app.command()
def info(
    source: Source,
    model: Model = "light",
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    tile: Tile = None,
    rate: Rate = Fraction(25),
    device: Device = "auto",
    precision: Precision = "float32",
    verbose: Verbose = False,
) -> None:
    """Tell what `iart upscale` would do: sizes, tracks, memory and time."""
    with reported(verbose=verbose):
        from iart.inference.outlook import foresee
        from iart.weights import load_model

        network = load_model(model, device, precision)
        lines = foresee(
            source,
            network,
            window=window,
            overlap=overlap,
            tile=tile,
            rate=rate,
            precision=precision,
        )
        for label, text in lines:
            print(f"{label:<11} {text}")


@app.command()
def demo(
    folder: Annotated[
        str, Option("--output", "-o", help="Folder for the videos and the picture.")
    ] = "demo",
    model: Model = "light",
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Enlarge a clip that ships, and compare it with bicubic interpolation and the original."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.demo import format_result, run

        with progress_display(quiet=quiet) as progress:
            result = run(folder, model, device, progress=progress)
        print(format_result(result))


@app.command()
def convert(
    source: Annotated[str, Argument(metavar="IN", help="Name or file of weights.")],
    target: Annotated[
        str, Argument(metavar="OUT", help=".safetensors (ours) or .pth (published layout).")
    ],
    key: Annotated[str | None, Option(help="params or params_ema of a published file.")] = None,
    dtype: Annotated[str, Option(help="Of the tensors on disk.")] = "float32",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Rewrite weights in our layout or the published one."""
    with reported(verbose=verbose):
        from iart.weights import convert as convert_weights

        convert_weights(source, target, key=key, dtype=dtype, overwrite=overwrite)


@app.command()
def train(
    options_file: Annotated[str, Argument(metavar="FILE", help="Options, in YAML.")],
    overrides: Annotated[
        list[str] | None, Argument(metavar="KEY=VALUE", help="Such as train.total_iter=1000.")
    ] = None,
    max_minutes: Annotated[
        float | None, Option(min=0, help="Save and stop after so long; the same command goes on.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network; a run that stopped goes on where it was saved last."""
    left = "the same command goes on from the last save"
    with reported(quiet=quiet, verbose=verbose, interrupted=left):
        from pathlib import Path

        from iart.device import pick_device
        from iart.train.loop import train as run
        from iart.train.options import read_options

        options = read_options(Path(options_file), tuple(overrides or ()))

        def report(entry: dict[str, object]) -> None:
            if not quiet:
                say("  ".join(f"{key} {value}" for key, value in entry.items()))

        weights = run(options, pick_device(device), report, max_minutes=max_minutes)
        if not quiet:
            say(f"weights: {weights}")


@app.command()
def bench(
    model: Annotated[
        str, Option(help="Name or file; full is the published configuration, random weights.")
    ] = "light",
    frames: Annotated[int, Option(min=1, help="Of the clip.")] = 3,
    height: Annotated[int, Option(min=1, help="Of the input, in pixels.")] = 96,
    width: Annotated[int, Option(min=1, help="Of the input, in pixels.")] = 128,
    repeats: Annotated[int, Option(min=1, help="Passes; the fastest counts.")] = 3,
    device: Device = "auto",
    threads: Threads = None,
    json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Measure speed and memory per stage, against the machine's matmul rate."""
    with reported(verbose=verbose):
        import torch

        from iart.bench import format_result, load_network, measure, to_json

        if threads is not None:
            torch.set_num_threads(threads)
        result = measure(load_network(model, device), frames, height, width, repeats=repeats)
        print(to_json(result) if json else format_result(result))
