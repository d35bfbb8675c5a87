"""The command that trains."""

from typing import Annotated

from typer import Argument, Option

from iart.cli.flags import Device, Quiet, Verbose
from iart.console import reported, say


def train(
    options_file: Annotated[str, Argument(metavar="FILE", help="Options, in YAML.")],
    overrides: Annotated[
        list[str] | None, Argument(metavar="KEY=VALUE", help="Such as train.total_iter=1000.")
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int | None, Option(min=1, help="Processes on this machine, one per device.")
    ] = None,
    max_minutes: Annotated[
        float | None, Option(min=0, help="Save and stop after so long; the same command goes on.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network; a run that stopped goes on where it was saved last."""
    left = "all is saved, the same command goes on"
    with reported(quiet=quiet, verbose=verbose, interrupted=left):
        import logging
        from pathlib import Path

        from iart.train.loop import train as run
        from iart.train.options import read_options
        from iart.train.processes import is_first_process

        if not is_first_process():  # what all would say alike is said once
            logging.getLogger("iart").setLevel(logging.WARNING)
        options = read_options(Path(options_file), tuple(overrides or ()))
        run(
            options,
            device=device,
            devices=devices,
            max_minutes=max_minutes,
            report=(lambda line: None) if quiet else say,
        )
