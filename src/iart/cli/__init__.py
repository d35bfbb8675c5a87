"""The command line: one thin function per command, whose flags are keywords of the library's.

PyTorch and FFmpeg are imported by the commands that use them, so that help comes at once.

flags.py      what several commands share       training.py    train
video.py      upscale, info, demo               measuring.py   bench, test
weights.py    convert                           data.py        data degrade, lmdb, meta
comparing.py  compare
"""

import io
import signal
import sys

import typer

from iart.allocator import keep_freed_memory
from iart.cli.comparing import compare
from iart.cli.data import data
from iart.cli.measuring import bench, score
from iart.cli.training import train
from iart.cli.video import demo, info, upscale
from iart.cli.weights import convert
from iart.threads import rest_while_waiting

app = typer.Typer(
    name="iart",
    help="Make video four times larger and restore it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (upscale, info, demo, compare, convert, train, bench):
    app.command()(command)
app.command("test")(score)
app.add_typer(data)


def main() -> None:
    """Entry of the `iart` command."""
    keep_freed_memory()
    rest_while_waiting()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # file names and tracks may hold what a terminal or a pipe has no character for
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):  # a job that is stopped cleans up as after Ctrl-C
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, signal.default_int_handler)
    app()
