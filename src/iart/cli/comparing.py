"""The command that compares videos: compare."""

from typing import Annotated

from typer import Argument, Option

from iart.cli.flags import OptionalRate, Overwrite, Quiet, Verbose
from iart.console import progress_display, reported


def compare(
    a: Annotated[str, Argument(metavar="A", help="Video, folder of images, or quoted pattern.")],
    b: Annotated[str, Argument(metavar="B", help="Likewise.")],
    reference: Annotated[
        str | None, Option(help="What both should look like: scores are against it.")
    ] = None,
    output: Annotated[
        str, Option("--output", "-o", help="A folder, or the name of the video to write.")
    ] = "compare",
    view: Annotated[str, Option(help="side (by side), or wipe (one over the other).")] = "side",
    divider: Annotated[
        float | None, Option(help="Where the wipe's line stands, 0 to 1; else it moves.")
    ] = None,
    rate: OptionalRate = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare two videos: a video to watch, details where they differ, PSNR and SSIM per frame."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.compare import compare, format_result

        with progress_display(quiet=quiet) as progress:
            result = compare(
                a,
                b,
                reference=reference,
                output=output,
                view=view,
                divider=divider,
                rate=rate,
                overwrite=overwrite,
                progress=progress,
            )
        print(format_result(result))
