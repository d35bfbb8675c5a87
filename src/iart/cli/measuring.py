"""Commands that measure: bench, test."""

import os
import shlex
import sys
from typing import Annotated

from typer import Argument, Option

from iart.cli.flags import (
    Device,
    Overlap,
    Overwrite,
    Precision,
    Quiet,
    Threads,
    Verbose,
    split_devices,
    split_names,
)
from iart.console import count_display, reported
from iart.inference.windows import OVERLAP


def bench(
    model: Annotated[
        str, Option(help="Name or file; full is the published configuration, random weights.")
    ] = "light",
    frames: Annotated[int, Option(min=1, help="Of the clip.")] = 3,
    height: Annotated[int, Option(min=1, help="Of the input, in pixels.")] = 96,
    width: Annotated[int, Option(min=1, help="Of the input, in pixels.")] = 128,
    repeats: Annotated[int, Option(min=1, help="Passes; the fastest counts.")] = 3,
    device: Device = "auto",
    precision: Precision = "float32",
    backend: Annotated[
        str,
        Option(help="native (in C++ on the CPU, by g++), torch; for GPUs triton, compile."),
    ] = "native",
    threads: Threads = None,
    growth: Annotated[
        str | None,
        Option(metavar="FOLDER", help="Measure many sizes from this one on; JSON and a plot here."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure speed and memory per stage, against the machine's matmul rate."""
    with reported(quiet=quiet, verbose=verbose):
        import torch

        from iart.model.kernels import chosen

        if threads is not None:
            torch.set_num_threads(threads)
        if growth is not None:
            from pathlib import Path

            from iart.bench.curves import format_growth, prepare_folder, write_growth
            from iart.bench.growth import measure_growth

            prepare_folder(Path(growth))  # before minutes of work
            with count_display("passes", quiet=quiet) as progress, chosen(backend):
                found = measure_growth(
                    model,
                    device,
                    frames=frames,
                    height=height,
                    width=width,
                    precision=precision,
                    repeats=repeats,
                    progress=progress,
                )
            files = write_growth(found, Path(growth))
            print(files[0].read_text(encoding="utf-8") if json else format_growth(found))
            return
        from iart.bench.measure import load_network, measure
        from iart.bench.table import format_result, to_json

        with chosen(backend):
            result = measure(
                load_network(model, device),
                frames,
                height,
                width,
                precision=precision,
                repeats=repeats,
                name=model,
            )
        print(to_json(result) if json else format_result(result))


def score(
    protocol: Annotated[
        str, Argument(metavar="PROTOCOL", help="A name (`list` shows all), or a .yml file.")
    ],
    weights: Annotated[
        str | None,
        Option(help="Name (light, bicubic) or file; by default the protocol's published file."),
    ] = None,
    key: Annotated[str | None, Option(help="params or params_ema of a published file.")] = None,
    data: Annotated[str, Option(help="Folder with the data sets, as BasicSR lays them out.")] = (
        "datasets"
    ),
    results: Annotated[
        str | None, Option(help="Score these frames of any tool: FOLDER/<clip>/<images>.")
    ] = None,
    make_lr: Annotated[
        bool, Option("--make-lr", help="Make the low-resolution frames if they are missing.")
    ] = False,
    limit: Annotated[
        int | None,
        Option(min=1, help="A quick look: first frames of each clip (vimeo90k-t: first clips)."),
    ] = None,
    output: Annotated[
        str | None, Option("--output", "-o", help="Folder for reports; by default in results/.")
    ] = None,
    overwrite: Overwrite = False,
    save_images: Annotated[bool, Option("--save-images", help="Keep the frames as PNG.")] = False,
    metrics: Annotated[
        list[str] | None,
        Option(help="Besides PSNR and SSIM: of tof,lpips,dists,vmaf. Repeatable."),
    ] = None,
    window: Annotated[
        int | None, Option(help="Frames at once; by default whole clips, if they fit in memory.")
    ] = None,
    overlap: Overlap = OVERLAP,
    device: Device = "auto",
    devices: Annotated[
        str | None, Option(help="Several, which share the clips: cuda:0,cuda:1.")
    ] = None,
    precision: Precision = "float32",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a model, or frames of any tool, by a published protocol; `test list` shows them.

    A stopped run goes on when started again. Several processes, or torchrun's, share the clips.
    """
    left = "the same command goes on with the clips that are not done"
    with reported(quiet=quiet, verbose=verbose, interrupted=left):
        from functools import partial

        if protocol == "list":
            from iart.evaluate.protocol import overview

            print(overview())
            return

        import torch

        from iart.evaluate.benchmark import run
        from iart.evaluate.crew import run_on
        from iart.evaluate.report import table

        if threads is not None:
            torch.set_num_threads(threads)
        job = partial(
            run,
            protocol,
            weights=weights,
            key=key,
            data=data,
            results=results,
            make_lr=make_lr,
            limit=limit,
            output=output,
            overwrite=overwrite,
            save_images=save_images,
            metrics=[name for names in metrics or () for name in split_names(names)],
            window=window,
            overlap=overlap,
            precision=precision,
            command=command_line(),
        )
        with count_display("frames", quiet=quiet) as progress:
            if devices is None:
                record = job(device=device, progress=progress)
            else:
                record = run_on(split_devices(devices), job, progress=progress)
        # of torchrun's processes, one prints; a rank alone is somebody else's
        if "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0":
            print(table(record))


def command_line() -> str:
    """How this process was started, for a shell."""
    return shlex.join(["iart", *sys.argv[1:]])
