"""Commands on video: upscale, info, demo."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from iart.cli.flags import (
    Color,
    CropTo,
    Deinterlace,
    Device,
    Devices,
    End,
    Hdr,
    Model,
    Overlap,
    Precision,
    Quiet,
    Rate,
    Size,
    Source,
    Sources,
    SquarePixels,
    Start,
    Threads,
    Tile,
    Verbose,
    Window,
    split_devices,
)
from iart.console import progress_display, reported, say
from iart.errors import IARTError
from iart.inference.windows import OVERLAP, WINDOW

if TYPE_CHECKING:
    from iart.inference.order import Order


def upscale(
    source: Sources,
    output: Annotated[
        str,
        Option("--output", "-o", help=".mp4, .mkv, .mov, .webm, or a folder for PNG or videos."),
    ],
    model: Model = "light",
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    tile: Tile = "auto",
    deinterlace: Deinterlace = "auto",
    crop: CropTo = None,
    start_seconds: Start = None,
    end_seconds: End = None,
    size: Size = None,
    square_pixels: SquarePixels = False,
    color: Color = "auto",
    hdr: Hdr = "refuse",
    codec: Annotated[str | None, Option(help="x264, x265, svt-av1, ffv1 or prores.")] = None,
    crf: Annotated[int | None, Option(help="Quality of the codec; smaller is better.")] = None,
    preset: Annotated[str | None, Option(help="Speed of the encoder, in its words.")] = None,
    pixel_format: Annotated[str | None, Option(help="FFmpeg's name: yuv420p10le.")] = None,
    drop: Annotated[
        list[str] | None,
        Option(help="Leave out audio, subtitle, attachment, data or a track's number. Repeatable."),
    ] = None,
    container: Annotated[
        str | None, Option(help="Kind of the videos in an output folder: mkv, mp4, mov or webm.")
    ] = None,
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Replace an output that exists, or that another command began."),
    ] = False,
    preview: Annotated[
        bool, Option("--preview", help="Enlarge a few short pieces only, with a sheet to compare.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Check everything, tell what would be done, write nothing.")
    ] = False,
    rate: Rate = Fraction(25),
    device: Device = "auto",
    devices: Devices = None,
    precision: Precision = "float32",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Enlarge videos four times; sound, subtitles and times are kept. Goes on where it stopped."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.inference.crew import hire
        from iart.inference.dry_run import dry_run as rehearsed
        from iart.inference.files import make_folder, pair_up
        from iart.inference.order import Order
        from iart.inference.preview import preview_video
        from iart.inference.reading import Reading
        from iart.inference.video import fulfil
        from iart.video.film import EncodingOptions

        orders = [
            Order.to(
                target,
                Reading(name, rate, deinterlace, crop, start_seconds, end_seconds),
                window=window,
                overlap=overlap,
                tile=tile,
                drop=tuple(drop or ()),
                encoding=EncodingOptions(
                    codec=codec, crf=crf, preset=preset, pixel_format=pixel_format
                ),
                precision=precision,
                size=size,
                square_pixels=square_pixels,
                color=color,
                hdr=hdr,
            )
            for name, target in pair_up(source, output, container=container)
        ]
        names = [device] if devices is None else split_devices(devices)
        network, crew = hire(model, names, precision, threads)

        def enlarge(order: "Order") -> None:
            if dry_run:
                for label, text in rehearsed(
                    order, network, overwrite=overwrite, processes=len(names)
                ):
                    print(f"{label:<11} {text}")
                return
            with progress_display(quiet=quiet) as progress:
                if preview:
                    made = preview_video(order, network, progress=progress)
                    told = f"{made.video} and {made.sheet}: {made.frames} frames"
                else:
                    result = fulfil(
                        order, network, overwrite=overwrite, crew=crew, progress=progress
                    )
                    told = f"{order.output}: {result.frames} frames in {result.seconds:.1f} s"
            if not quiet:
                say(told)

        if not dry_run and orders[0].output.parent == Path(output):
            make_folder(output)
        if len(orders) == 1:
            enlarge(orders[0])
        else:
            _one_by_one(orders, enlarge, quiet=quiet)


def _one_by_one(orders: "list[Order]", enlarge: "Callable[[Order], None]", *, quiet: bool) -> None:
    """Each of many files; those that fail are told at once, and again at the end."""
    failed = []
    for number, order in enumerate(orders, 1):
        if not quiet:
            say(f"{number} of {len(orders)}: {order.reading.name}")
        try:
            enlarge(order)
        except IARTError as error:
            say(f"error: {error}")
            failed.append((order, error))
    for order, error in failed:
        say(f"failed: {order.reading.name}: {error}")
    if failed:
        raise Exit(1)


def info(
    source: Source,
    model: Model = "light",
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    tile: Tile = "auto",
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
