"""Commands that score and measure networks: test, bench."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from iart.cli.cluster import Cluster, ClusterCpus, ClusterGpus
from iart.cli.console import as_json, count_display, reported
from iart.cli.flags import (
    Backend,
    Device,
    Json,
    Overlap,
    Overwrite,
    Precision,
    Quiet,
    Threads,
    Verbose,
    one_of,
    split_devices,
    split_names,
)
from iart.files.shipped import shipped_files, shipped_models
from iart.runtime import cpu_threads
from iart.upscaling.windows import OVERLAP


def score(
    protocol: Annotated[
        str,
        Argument(
            metavar="PROTOCOL",
            help="Name (`list` shows all) or .yml file.",
            autocompletion=one_of("list", *shipped_files("benchmarks", ".yml")),
        ),
    ],
    weights: Annotated[
        str | None,
        Option(
            help="Name (light, bicubic) or file (default: the protocol's published file).",
            autocompletion=one_of(*shipped_models()),
        ),
    ] = None,
    key: Annotated[str | None, Option(help="Key in a published file: params, params_ema.")] = None,
    data: Annotated[
        str | None,
        Option(
            help="Folder with the data sets, as BasicSR lays them out (default: datasets); "
            "dvd, tape, web, mpeg2: own clips to degrade.",
        ),
    ] = None,
    results: Annotated[
        str | None, Option(help="Score frames made by another tool: FOLDER/<clip>/<images>.")
    ] = None,
    make_lr: Annotated[
        bool, Option("--make-lr", help="Make the low-resolution frames if they are missing.")
    ] = False,
    limit: Annotated[
        int | None,
        Option(
            min=1,
            help="Score the first N frames of each clip only (vimeo90k-t: N clips).",
        ),
    ] = None,
    output: Annotated[
        str | None, Option("--output", "-o", help="Folder for reports (default: in results/).")
    ] = None,
    overwrite: Overwrite = False,
    save_images: Annotated[bool, Option("--save-images", help="Save the frames as PNG.")] = False,
    metrics: Annotated[
        list[str] | None,
        Option(help="More metrics than PSNR and SSIM: tof,lpips,tlp,dists. Repeatable."),
    ] = None,
    metric_weights: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="Weights of lpips and tlp (alexnet.pth, lpips_alex.pth) and of dists (vgg16.pth, "
            "dists.pth) in torchvision's and their authors' layout (default: their libraries).",
        ),
    ] = None,
    window: Annotated[
        int | None, Option(help="Frames per window (default: whole clips, if they fit in memory).")
    ] = None,
    overlap: Overlap = OVERLAP,
    device: Device = "auto",
    devices: Annotated[
        str | None, Option(help="Devices that share the clips, a process each: cuda:0,cuda:1.")
    ] = None,
    precision: Precision = "float32",
    backend: Backend = "auto",
    threads: Threads = None,
    cluster: Cluster = None,
    cluster_cpus: ClusterCpus = None,
    cluster_gpus: ClusterGpus = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a model, or frames of any tool, by a published protocol; `test list` shows them.

    Run the same command again to resume a run that was stopped.
    """
    left = "run the same command again to resume"
    with reported(quiet=quiet, verbose=verbose, interrupted=left), cpu_threads(threads):
        if protocol == "list":
            from iart.evaluate.protocol import overview, protocol_names, read_protocol

            shown = (read_protocol(name).model_dump(mode="json") for name in protocol_names())
            print(as_json(list(shown)) if json else overview())
            return

        from iart.evaluate.benchmark import run
        from iart.evaluate.report import table
        from iart.evaluate.results import to_json

        with count_display("frames", quiet=quiet) as progress:
            record = run(
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
                metric_weights=metric_weights,
                window=window,
                overlap=overlap,
                device=device,
                devices=None if devices is None else split_devices(devices),
                precision=precision,
                backend=backend,
                cluster=cluster,
                cluster_cpus=cluster_cpus,
                cluster_gpus=cluster_gpus,
                command=command_line(),
                progress=progress,
            )
        if not json:
            print(table(record))
            return
        clips = tuple(replace(clip, crops=()) for clip in record.clips)
        print(to_json(replace(record, clips=clips)))


def command_line() -> str:
    """How this process was started, for a shell."""
    return shlex.join(["iart", *sys.argv[1:]])


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
