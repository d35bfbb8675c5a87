"""The command that compares videos: compare."""

from typing import Annotated

from typer import Argument, Option

from iart.cli.console import as_json, progress_display, reported
from iart.cli.flags import Json, OptionalRate, Overwrite, Quiet, Verbose


def compare(
    a: Annotated[str, Argument(metavar="A", help="Video, folder of images, or quoted pattern.")],
    b: Annotated[str, Argument(metavar="B", help="The same kinds of input.")],
    reference: Annotated[
        str | None,
        Option(
            help="Ground truth to score both against (default: A against B); if it is smaller, "
            "their source: both are reduced to it."
        ),
    ] = None,
    output: Annotated[
        str, Option("--output", "-o", help="Folder, or name of the video to write.")
    ] = "compare",
    view: Annotated[str, Option(help="side (by side), or wipe (one over the other).")] = "side",
    divider: Annotated[
        float | None, Option(help="Position of the wipe's line, 0 (left) to 1 (default: it moves).")
    ] = None,
    rate: OptionalRate = None,
    json: Json = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare two videos: a video to watch, details where they differ, PSNR and SSIM per frame."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.compare import compare, format_result, result_values

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
        print(as_json(result_values(result)) if json else format_result(result))
