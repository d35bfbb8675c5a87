"""Commands that measure: bench."""

from typing import Annotated

from typer import Option

from iart.cli.flags import Device, Threads, Verbose
from iart.console import reported


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
