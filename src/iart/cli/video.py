"""Commands on video: upscale, info, demo."""

from fractions import Fraction
from typing import Annotated

from typer import Option

from iart.cli.flags import (
    Device,
    Model,
    Overlap,
    Overwrite,
    Precision,
    Quiet,
    Rate,
    Source,
    Sources,
    Threads,
    Tile,
    Verbose,
    Window,
)
from iart.console import progress_display, reported, say
from iart.inference.windows import OVERLAP, WINDOW


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
