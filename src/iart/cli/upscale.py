"""Commands on video: upscale, info, compare, demo."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from iart.cli.cluster import Cluster, ClusterCpus, ClusterGpus, Ship, enlarge_together, tell_failed
from iart.cli.console import (
    LINE_EVERY_SECONDS,
    as_json,
    print_labelled,
    progress_display,
    reported,
    say,
)
from iart.cli.flags import (
    Backend,
    Container,
    Device,
    Devices,
    Json,
    Model,
    OptionalRate,
    Overwrite,
    Precision,
    Quiet,
    Sources,
    Threads,
    Verbose,
    split_devices,
    with_options,
)
from iart.errors import IARTError, OptionsError
from iart.runtime import cpu_threads
from iart.upscaling.film.request import AUTO

if TYPE_CHECKING:
    from iart.upscaling.film.forecast import Forecast
    from iart.upscaling.film.request import UpscaleRequest, UpscaleResult


@with_options()
def upscale(
    source: Sources,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            help=".mp4, .mkv, .mov or .webm, a folder, images (out/f%03d.png), or - for y4m to"
            " standard output (default: INPUT_x4.mkv beside the input).",
        ),
    ] = None,
    model: Model = AUTO,
    container: Container = None,
    images: Annotated[
        bool, Option("--images", help="Write PNG images to the output folder, not videos.")
    ] = False,
    preview: Annotated[
        bool, Option("--preview", help="Enlarge a few short pieces only, with a sheet to compare.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Check everything, tell what would be done, write nothing.")
    ] = False,
    device: Device = "auto",
    devices: Devices = None,
    precision: Precision = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    cluster: Cluster = None,
    cluster_cpus: ClusterCpus = None,
    cluster_gpus: ClusterGpus = None,
    ship: Ship = False,
    progress_every: Annotated[
        float, Option(min=0.1, help="Seconds between lines of progress, where no terminal is.")
    ] = LINE_EVERY_SECONDS,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Enlarge videos four times; sound, subtitles and times are kept.

    Run the same command again to resume.
    """
    with reported(quiet=quiet, verbose=verbose), ExitStack() as scope:
        from iart.cli.inputs import make_folder, pair_up
        from iart.device import threads_per_process
        from iart.upscaling.film import forecast
        from iart.upscaling.film.choice import Models
        from iart.upscaling.film.preview import preview_video
        from iart.upscaling.film.request import UpscaleRequest
        from iart.upscaling.film.run import run
        from iart.upscaling.film.stream import STREAM, is_stream, run_stream

        if output is None and options["overwrite"]:
            raise OptionsError("name the output to replace: pass -o with --overwrite")
        options["drop"] = tuple(options["drop"] or ())
        if STREAM in (output, *source):
            several = devices or cluster or container or images or len(source) > 1
            if preview or dry_run or several:
                raise OptionsError(
                    "- stands for one stream, in one pass and on one device: leave other sources,"
                    " --preview, --dry-run, --devices, --cluster, --container and --images out"
                )
            pairs = [(source[0], output or STREAM)]
        else:
            pairs = pair_up(
                source, output, size=options["size"], container=container, images=images
            )
        requests = [UpscaleRequest(name, target, **options) for name, target in pairs]
        if cluster and (preview or dry_run or devices):
            raise OptionsError("leave --preview, --dry-run and --devices out with --cluster")
        if ship and not cluster:
            raise OptionsError("--ship is for --cluster, which has other machines")
        names = [device] if devices is None else split_devices(devices)
        asked = precision
        if cluster:  # here the model only tells which one it is
            names, precision = ["cpu"], "float32"
        scope.enter_context(cpu_threads(threads or threads_per_process(names)))
        models = Models(model, names, precision, backend)

        def tell(request: "UpscaleRequest", result: "UpscaleResult") -> None:
            if not quiet:
                took = f"{_frames(result.frames)} in {result.seconds:.1f} s"
                say(f"{request.output}: {took if result.is_new else 'done before'}")

        def enlarge(request: "UpscaleRequest") -> None:
            choice = models.choose(request)
            network, workers = models.load(choice)
            if choice is not None and not quiet:
                say(f"model: {choice}")
            if dry_run:
                print_labelled(forecast.dry_run(request, network, processes=len(names)))
                return
            with progress_display(quiet=quiet, every=progress_every) as progress:
                if is_stream(request):
                    result = run_stream(request, network, progress=progress)
                    told = f"{_frames(result.frames)} in {result.seconds:.1f} s"
                elif preview:
                    made = preview_video(request, network, progress=progress)
                    told = f"{made.video} and {made.sheet}: {_frames(made.frames)}"
                else:
                    result = run(
                        request, network, workers=workers, progress=progress, skip_finished=True
                    )
                    tell(request, result)
                    return
            if not quiet:
                say(told)

        def enlarge_on_cluster(address: str) -> None:
            from iart.files.names import frames_of
            from iart.parallel import cluster as ray
            from iart.upscaling.film.spread import Spread, describe, loader

            choices = [models.choose(request) for request in requests]
            wanted = sorted({model if each is None else each.model for each in choices})
            if len(wanted) > 1:
                raise OptionsError(
                    f"these sources call for several models, {', '.join(wanted)}, but workers of a"
                    " cluster load one: pass --model NAME, or enlarge them apart"
                )
            network, _ = models.load(choices[0])
            load = loader(wanted[0], asked, backend)
            output, _ = frames_of(requests[0].output)
            with (
                ray.Cluster(address, cpus=cluster_cpus, gpus=cluster_gpus, output=output) as joined,
                joined.workers(load, describe) as shared,
            ):
                enlarge_together(
                    requests,
                    lambda request, number, progress: run(
                        request,
                        network,
                        spread=Spread(shared, number, ship),
                        progress=progress,
                        skip_finished=True,
                    ),
                    every=progress_every,
                    quiet=quiet,
                    tell=tell,
                )

        folder = Path(requests[0].output).parent
        is_made = output is not None and folder == Path(output) and make_folder(output)
        try:
            if cluster is not None:
                enlarge_on_cluster(cluster)
            elif len(requests) == 1:
                enlarge(requests[0])
            else:
                _one_by_one(requests, enlarge, quiet=quiet)
        finally:
            if is_made and dry_run:  # made to see whether it can be
                folder.rmdir()


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"


def _one_by_one(
    requests: "list[UpscaleRequest]", enlarge: "Callable[[UpscaleRequest], None]", *, quiet: bool
) -> None:
    """Each of many files; those that fail are told at once, and again at the end."""
    failed = []
    for number, request in enumerate(requests, 1):
        if not quiet:
            say(f"{number} of {len(requests)}: {request.name}")
        try:
            enlarge(request)
        except IARTError as error:
            say(f"error: {error}")
            failed.append((request, error))
    tell_failed(failed)


@with_options("overwrite")
def info(
    source: Sources,
    model: Model = AUTO,
    container: Container = None,
    json: Json = False,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Tell what `iart upscale` would do: sizes, tracks, memory and time."""
    with reported(verbose=verbose):
        from iart.cli.inputs import works_of
        from iart.upscaling.film.choice import Models
        from iart.upscaling.film.forecast import forecast
        from iart.upscaling.film.request import UpscaleRequest

        options["drop"] = tuple(options["drop"] or ())
        models = Models(model, [device], precision, backend)
        found = []
        for number, work in enumerate(works_of(source)):
            choice = models.choose(UpscaleRequest(work, "output", **options))
            network, _ = models.load(choice)
            told = forecast(work, network, container=container, **options)
            if choice is not None:
                told.lines.append(("model", str(choice)))
            found.append(told)
            if not json:
                if number:
                    print()
                print_labelled(told.lines)
        if json:
            print(as_json([_by_label(told) for told in found]))
        if any(label == "problem" for told in found for label, _ in told.lines):
            raise Exit(1)


def _by_label(told: "Forecast") -> dict[str, Any]:
    """One text for each label; what there may be several of is a list."""
    several = {"note", "problem"}
    values: dict[str, Any] = {}
    for label, text in told.lines:
        if label in several:
            values.setdefault(f"{label}s", []).append(text)
        else:
            values[label] = text
    if told.preview_seconds is not None:
        values["preview_seconds"] = told.preview_seconds
    return values


def demo(
    folder: Annotated[
        str, Option("--output", "-o", help="Folder for the videos and the picture.")
    ] = "demo",
    model: Model = AUTO,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore what a DVD has of a clip that ships, beside interpolation and the original."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.demo import format_result, run

        with progress_display(quiet=quiet) as progress:
            result = run(folder, model, device, overwrite=overwrite, progress=progress)
        if not quiet:
            print(format_result(result))


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
