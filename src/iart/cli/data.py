"""Commands that prepare training and benchmark data: data degrade, data lmdb, data meta."""

from typing import Annotated

import typer
from typer import Argument, Option

from iart.cli.flags import Quiet, Verbose
from iart.console import count_display, reported, say

data = typer.Typer(name="data", help="Prepare training and benchmark data.", no_args_is_help=True)
_GOES_ON = "the same command goes on from here"


@data.command()
def degrade(
    source: Annotated[str, Argument(metavar="SRC", help="Folder of images, or of clips.")],
    target: Annotated[str, Argument(metavar="OUT", help="Folder for PNG at a quarter.")],
    kind: Annotated[str, Option(help="bi (MATLAB's bicubic) or bd (blur and decimation).")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make low-resolution images as the published data were made; what is done is skipped."""
    with reported(quiet=quiet, verbose=verbose, interrupted=_GOES_ON):
        from pathlib import Path

        from iart.data.prepare import degrade_folder

        with count_display("images", quiet=quiet) as progress:
            count = degrade_folder(Path(source), Path(target), kind, progress=progress)
        if not quiet:
            say(f"{target}: {count} images written")


@data.command()
def lmdb(
    source: Annotated[str, Argument(metavar="SRC", help="Folder of clips.")],
    target: Annotated[str, Argument(metavar="OUT", help="Database, such as GT.lmdb.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put clips into one LMDB with its meta_info.txt, as BasicSR reads it."""
    with reported(quiet=quiet, verbose=verbose, interrupted=_GOES_ON):
        from pathlib import Path

        from iart.data.lmdb_write import make_lmdb

        with count_display("images", quiet=quiet) as progress:
            count = make_lmdb(Path(source), Path(target), progress=progress)
        if not quiet:
            say(f"{target}: {count} images written")


@data.command()
def meta(
    folder: Annotated[str, Argument(metavar="FOLDER", help="Ground truth: a folder of clips.")],
    target: Annotated[str, Argument(metavar="OUT", help="Text file, for meta_info_file.")],
    only: Annotated[
        str | None, Option(help="List of the clips to take, such as Vimeo's sep_trainlist.txt.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List clips with their frames and size, as training reads it."""
    with reported(quiet=quiet, verbose=verbose):
        from pathlib import Path

        from iart.data.prepare import make_meta

        with count_display("clips", quiet=quiet) as progress:
            chosen = None if only is None else Path(only)
            count = make_meta(Path(folder), Path(target), only=chosen, progress=progress)
        if not quiet:
            say(f"{target}: {count} clips")
