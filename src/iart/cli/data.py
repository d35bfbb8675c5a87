"""Commands that prepare training and benchmark data: data degrade, lmdb, meta, pair."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from iart.cli.console import count_display, reported, say
from iart.cli.flags import Overwrite, Quiet, Verbose, examples

data = typer.Typer(name="data", help="Prepare training and benchmark data.", no_args_is_help=True)
_RESUME = "run the same command again to resume"


@data.command(
    epilog=examples(
        "iart data degrade GT/ LQ/ --kind bi",
        "iart data degrade films/ dvds/ --kind dvd --seed 1 --ffv1",
    )
)
def degrade(
    source: Annotated[str, Argument(metavar="SRC", help="Folder of images, or of clips.")],
    target: Annotated[str, Argument(metavar="OUT", help="Folder for PNG, a quarter as large.")],
    kind: Annotated[
        str,
        Option(
            help="bi (MATLAB's), bd (blur, decimation); of real footage: mpeg2, dvd, tape, web."
        ),
    ],
    seed: Annotated[int, Option(min=0, help="Seed of the parameters of real footage.")] = 0,
    ffv1: Annotated[
        bool, Option("--ffv1", help="Write lossless videos instead (real footage).")
    ] = False,
    sheet: Annotated[
        str | None, Option(help="Also write a PNG that shows each kind beside the reduction alone.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make low-resolution images as the published data were made, or as real footage is.

    What an earlier run of the same command has made is skipped.
    """
    with reported(quiet=quiet, verbose=verbose, interrupted=_RESUME):
        from iart.data.degrade_clips import CHAINS, degradation_sheet, degrade_clips
        from iart.data.prepare import KINDS, degrade_folder
        from iart.errors import OptionsError
        from iart.files.complete import PendingOutput

        if kind not in (*KINDS, *CHAINS):
            known = ", ".join((*KINDS, *CHAINS))
            raise OptionsError(f"kind must be one of {known}, got {kind!r}")
        if ffv1 and kind in KINDS:
            raise OptionsError(f"--ffv1 goes with {', '.join(CHAINS)}; {kind} writes images")
        if sheet is not None:
            pending = PendingOutput(Path(sheet), suffix=".png", overwrite=overwrite)
            try:
                degradation_sheet(Path(source), seed).save(pending.part, "png")
                pending.commit()
            finally:
                pending.discard()
        with count_display("images", quiet=quiet) as progress:
            places = Path(source), Path(target)
            if kind in KINDS:
                count = degrade_folder(*places, kind, overwrite=overwrite, progress=progress)
            else:
                count = degrade_clips(
                    *places,
                    next(chain for chain in CHAINS if chain == kind),
                    seed=seed,
                    ffv1=ffv1,
                    overwrite=overwrite,
                    progress=progress,
                )
        if not quiet:
            say(f"{target}: {count} images written")


@data.command(epilog=examples("iart data lmdb GT/ GT.lmdb"))
def lmdb(
    source: Annotated[str, Argument(metavar="SRC", help="Folder of clips.")],
    target: Annotated[str, Argument(metavar="OUT", help="Database, such as GT.lmdb.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put clips into one LMDB with its meta_info.txt, as BasicSR reads it."""
    with reported(quiet=quiet, verbose=verbose, interrupted=_RESUME):
        from iart.data.stores.lmdb import make_lmdb

        with count_display("images", quiet=quiet) as progress:
            count = make_lmdb(Path(source), Path(target), progress=progress)
        if not quiet:
            say(f"{target}: {count} images written")


@data.command(
    epilog=examples(
        "iart data meta GT/ meta_info.txt",
        "iart data meta vimeo/GT/ meta_info.txt --only sep_trainlist.txt",
    )
)
def meta(
    folder: Annotated[str, Argument(metavar="FOLDER", help="Folder of clips: the ground truth.")],
    target: Annotated[str, Argument(metavar="OUT", help="Text file to write, for meta_info_file.")],
    only: Annotated[
        str | None, Option(help="Text file of clips to include, such as Vimeo's sep_trainlist.txt.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List clips with their frames and size, as training reads it."""
    with reported(quiet=quiet, verbose=verbose):
        from iart.data.prepare import make_meta

        with count_display("clips", quiet=quiet) as progress:
            chosen = None if only is None else Path(only)
            count = make_meta(
                Path(folder), Path(target), only=chosen, overwrite=overwrite, progress=progress
            )
        if not quiet:
            say(f"{target}: {count} clips")


@data.command(
    epilog=examples(
        "iart data pair VIDEO_TS/ bluray.mkv -o datasets/dvd_bluray",
        "iart data pair dvd.mkv bluray.mkv -o pairs --clips 40 --match-color",
    )
)
def pair(
    dvd: Annotated[str, Argument(metavar="DVD", help="Video, or VIDEO_TS folder.")],
    bluray: Annotated[str, Argument(metavar="BLURAY", help="Video of the same film, larger.")],
    target: Annotated[
        str, Option("--output", "-o", metavar="PAIRS", help="Folder, such as datasets/dvd_bluray.")
    ],
    scale: Annotated[int, Option(help="Size of the ground truth over the DVD's: 4 or 2.")] = 4,
    clips: Annotated[
        int | None, Option(metavar="N", help="Write at most N clips, evenly over the film.")
    ] = None,
    share: Annotated[
        float | None, Option(metavar="SHARE", help="Write this share of the clips, such as 0.1.")
    ] = None,
    validation: Annotated[float, Option(help="Share of the scenes that is held out.")] = 0.1,
    match_color: Annotated[
        bool, Option("--match-color", help="Bring the ground truth to the DVD's colours.")
    ] = False,
    ffv1: Annotated[
        bool, Option("--ffv1", help="Write videos and JSON lists instead of folders of PNG.")
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Begin again in a folder that holds other pairs.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make pairs to train on from a DVD and the Blu-ray of the same film.

    Frames are matched in time, registered to parts of a pixel, and checked one by one; report.html
    tells what was left out and why. Without --clips or --share, all clips are written: a frame of
    a DVD takes about 8 MB.
    """
    with reported(quiet=quiet, verbose=verbose, interrupted=_RESUME):
        from contextlib import ExitStack

        from iart.data.pair.build import make_pairs

        with ExitStack() as stack:
            shown: dict[str, Callable[[int, int], None]] = {}

            def progress(stage: str, done: int, total: int) -> None:
                if stage not in shown:
                    stack.close()
                    shown[stage] = stack.enter_context(count_display(stage, quiet=quiet))
                shown[stage](done, total)

            result = make_pairs(
                Path(dvd),
                Path(bluray),
                Path(target),
                scale=scale,
                clips=clips,
                share=share,
                validation=validation,
                match_color=match_color,
                ffv1=ffv1,
                overwrite=overwrite,
                progress=progress,
            )
        if not quiet:
            say(
                f"{target}: {result.kept} of {result.frames} frames fit; {result.clips} clips with"
                f" {result.written} frames written, {result.validation} of them held out;"
                f" {Path(target) / 'report.html'} has the details"
            )
