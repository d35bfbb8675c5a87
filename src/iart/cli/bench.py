"""The command that measures speed and memory: bench."""

from typing import Annotated

from typer import Option

from iart.cli.console import count_display, reported
from iart.cli.flags import Backend, Device, Json, Precision, Quiet, Threads, Verbose
from iart.runtime import cpu_threads


def bench(
    model: Annotated[
        str, Option(help="Name or file; `full`: the published configuration with random weights.")
    ] = "light",
    frames: Annotated[int, Option(min=1, help="Frames in the test clip.")] = 3,
    height: Annotated[int, Option(min=1, help="Height of the input, in pixels.")] = 96,
    width: Annotated[int, Option(min=1, help="Width of the input, in pixels.")] = 128,
    repeats: Annotated[int, Option(min=1, help="Passes to measure; the fastest counts.")] = 3,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    growth: Annotated[
        str | None,
        Option(metavar="FOLDER", help="Measure growing sizes; write JSON and a plot to FOLDER."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure speed and memory per stage, against the machine's matmul rate."""
    with reported(quiet=quiet, verbose=verbose), cpu_threads(threads):
        if growth is not None:
            from pathlib import Path

            from iart.bench.growth import (
                format_growth,
                measure_growth,
                prepare_folder,
                write_growth,
            )

            prepare_folder(Path(growth))  # before minutes of work
            with count_display("passes", quiet=quiet) as progress:
                found = measure_growth(
                    model,
                    device,
                    frames=frames,
                    height=height,
                    width=width,
                    precision=precision,
                    backend=backend,
                    repeats=repeats,
                    progress=progress,
                )
            files = write_growth(found, Path(growth))
            print(files[0].read_text(encoding="utf-8") if json else format_growth(found))
            return
        from iart.bench.measure import format_result, load_network, measure, to_json

        network = load_network(model, device, precision, backend)
        result = measure(network, frames, height, width, repeats=repeats, name=model)
        print(to_json(result) if json else format_result(result))
