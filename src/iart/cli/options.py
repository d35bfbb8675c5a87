"""The command that shows the option files that ship: options."""

from typing import Annotated

from typer import Argument, Option

from iart.cli.console import reported, say
from iart.cli.flags import Overwrite, Verbose


def options(
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="File to copy (default: list all).")
    ] = None,
    folder: Annotated[str, Option("--output", "-o", help="Folder for the copy.")] = ".",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """List the option files for training that ship, or copy one to change it."""
    with reported(verbose=verbose):
        from pathlib import Path

        from iart.train.options.read import copy_options, shipped_options

        if name is None:
            print("\n".join(shipped_options()))
        else:
            say(f"{copy_options(name, Path(folder), overwrite=overwrite)}: written")
