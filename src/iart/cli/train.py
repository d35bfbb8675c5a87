"""Commands that train: train, options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from iart.cli.console import count_display, print_labelled, reported, say
from iart.cli.flags import Device, Overwrite, Quiet, Verbose

if TYPE_CHECKING:
    from iart.train.options.run import TrainingOptions


# Of problems, so many are shown.
_SHOWN = 20


def train(
    options_file: Annotated[str, Argument(metavar="FILE", help="Options, in YAML.")],
    overrides: Annotated[
        list[str] | None, Argument(metavar="KEY=VALUE", help="Such as train.total_iter=1000.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Look at data and files and estimate a step; do not train.")
    ] = False,
    device: Device = "auto",
    devices: Annotated[
        int | None, Option(min=1, help="Processes on this machine, one per device.")
    ] = None,
    max_minutes: Annotated[
        float | None, Option(min=0, help="Save and stop after so long; the same command goes on.")
    ] = None,
    preview_every: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Save a picture of validation crops every N steps: bicubic, result, ground truth;"
            " preview.webp shows them in turn.",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network; run the same command again to resume from the last checkpoint."""
    left = "all is saved, the same command goes on"
    with reported(quiet=quiet, verbose=verbose, interrupted=left):
        import logging

        from iart.train.options.read import read_options
        from iart.train.processes import is_first_process

        if not is_first_process():  # what all would say alike is said once
            logging.getLogger("iart").setLevel(logging.WARNING)
        options = read_options(Path(options_file), tuple(overrides or ()))
        if check:
            _check(options, device, devices, quiet=quiet)
            return
        from iart.train.loop import train as run

        run(
            options,
            device=device,
            devices=devices,
            max_minutes=max_minutes,
            preview_every=preview_every,
            report=(lambda line: None) if quiet else say,
        )


def _check(options: "TrainingOptions", device: str, devices: int | None, *, quiet: bool) -> None:
    """Print what `iart.train.check.check` finds; exit code 1 if anything is wrong."""
    from iart.train.check import check

    with count_display("clips", quiet=quiet) as progress:
        report = check(options, device=device, devices=devices, progress=progress)
    print_labelled(report.lines)
    for problem in report.problems[:_SHOWN]:
        say(f"problem: {problem}")
    if more := len(report.problems[_SHOWN:]):
        say(f"{more} more problems")
    if report.problems:
        raise Exit(1)
    say("check passed: no problems found")


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
        from iart.train.options.read import copy_options, shipped_options

        if name is None:
            print("\n".join(shipped_options()))
        else:
            say(f"{copy_options(name, Path(folder), overwrite=overwrite)}: written")
