"""The command that serves a page: serve."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from iart.cli.console import reported, say
from iart.cli.flags import Verbose


def serve(
    folder: Annotated[str, Argument(metavar="FOLDER", help="Videos to show; results go there.")],
    host: Annotated[
        str, Option(help="Address to listen on; any but this machine's own needs a password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, Option(min=0, max=65535, help="Port (default: the first free one from 7860).")
    ] = None,
    certificate: Annotated[
        str | None, Option(metavar="FILE", help="Certificate for HTTPS, in PEM.")
    ] = None,
    key: Annotated[str | None, Option(metavar="FILE", help="Its private key, in PEM.")] = None,
    jobs: Annotated[int, Option(min=1, max=16, help="Videos to enlarge at the same time.")] = 1,
    verbose: Verbose = False,
) -> None:
    """Serve a page in the browser for a folder of videos: preview, enlarge, compare.

    Jobs go on after a reload, a closed browser and a new start of the server.
    """
    with reported(verbose=verbose, interrupted="jobs go on when it is started again"):
        from iart.errors import MissingExtraError, OptionsError

        try:
            from iart.web.folder import Folder
            from iart.web.server import Password, is_local, run
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"iart serve needs {error.name}: pip install 'iart-vsr[web]'"
            ) from error
        if (certificate is None) != (key is None):
            raise OptionsError("pass --certificate and --key together")
        place = Folder(Path(folder))
        password = None
        if not is_local(host):
            password = Password(_ask())
            if certificate is None:
                say("note: not encrypted: others on the way can read along (--certificate, --key)")
        run(
            place,
            host=host,
            port=port,
            password=password,
            certificate=certificate,
            key=key,
            jobs_at_once=jobs,
            ready=lambda address: say(f"open {address} in a browser; Ctrl-C stops"),
        )


def _ask() -> str:
    """The password: asked for on a terminal, else the first line of stdin."""
    from iart.errors import OptionsError

    if sys.stdin.isatty():
        from getpass import getpass

        text = getpass("Password for the page: ")
    else:
        text = sys.stdin.readline().rstrip("\n")
    if not text:
        raise OptionsError("an address that others reach needs a password, which is asked for")
    return text
