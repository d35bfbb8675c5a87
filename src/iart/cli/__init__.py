"""The command line: one thin function per command, whose flags are keywords of the library's.

PyTorch and FFmpeg are imported by the commands that use them, so that help comes at once. What
commands share is in `flags` and `console`; `inputs` pairs sources with outputs.
"""

import io
import signal
import sys
from typing import Annotated

import typer

from iart.cli.data import data
from iart.cli.flags import examples
from iart.cli.measure import bench, score
from iart.cli.serve import serve
from iart.cli.train import options, train
from iart.cli.upscale import compare, demo, info, upscale
from iart.cli.weights import convert, models
from iart.runtime import keep_freed_memory
from iart.version import __version__

_VIDEO, _WEIGHTS, _RESEARCH = "Restore video", "Weights", "Train and measure"
COMMANDS = (
    (
        *("upscale", upscale, _VIDEO),
        "iart upscale in.mkv",
        "iart upscale VIDEO_TS/ -o film.mkv --size 1080p --crop auto",
        "iart upscale in.mkv -o look.mkv --preview",
    ),
    (
        *("info", info, _VIDEO),
        "iart info in.mkv",
        "iart info tapes/*.mkv --size 1080p --deinterlace bwdif",
    ),
    (*("demo", demo, _VIDEO), "iart demo", "iart demo -o look --overwrite"),
    (
        *("compare", compare, _VIDEO),
        "iart compare bicubic.mp4 iart.mp4 --reference original.mkv",
        "iart compare a.mp4 b.mp4 --view wipe -o wipe.mp4",
    ),
    (
        *("serve", serve, _VIDEO),
        "iart serve videos/",
        "iart serve videos/ --host 0.0.0.0 --certificate cert.pem --key key.pem",
    ),
    (*("models", models, _WEIGHTS), "iart models"),
    (
        *("convert", convert, _WEIGHTS),
        "iart convert IART_REDS_BI_N16.pth IART.safetensors",
        "iart convert light light.pth",
    ),
    (
        *("train", train, _RESEARCH),
        "iart train IART_light.yml --check",
        "iart train IART_light.yml train.total_iter=1000",
    ),
    (*("options", options, _RESEARCH), "iart options", "iart options IART_light.yml -o ."),
    (
        *("test", score, _RESEARCH),
        "iart test list",
        "iart test reds4-n16 --weights IART_REDS_BI_N16.pth --data datasets",
        "iart test vid4-n16 --results frames/",
    ),
    (
        *("bench", bench, _RESEARCH),
        "iart bench",
        "iart bench --model full --device cuda --precision bfloat16",
    ),
)
"""Name, function, heading and examples of each command."""

app = typer.Typer(
    name="iart",
    help="Make video four times larger and restore it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=examples("iart demo", "iart info in.mkv", "iart upscale in.mkv"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, function, heading, *lines in COMMANDS:
    app.command(name, epilog=examples(*lines), rich_help_panel=heading)(function)
app.add_typer(data, rich_help_panel=_RESEARCH)


def _version(asked: bool) -> bool:
    if asked:
        print(f"iart {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make video four times larger and restore it."""


def main() -> None:
    """Entry of the `iart` command."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # file names and tracks may hold what a terminal or a pipe has no character for
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):  # a job that is stopped cleans up as after Ctrl-C
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, signal.default_int_handler)
    app()
