"""The command on weights: convert."""

from typing import Annotated

from typer import Argument, Option

from iart.cli.flags import Overwrite, Verbose
from iart.console import reported


def convert(
    source: Annotated[str, Argument(metavar="IN", help="Name or file of weights.")],
    target: Annotated[
        str, Argument(metavar="OUT", help=".safetensors (ours) or .pth (published layout).")
    ],
    key: Annotated[str | None, Option(help="params or params_ema of a published file.")] = None,
    dtype: Annotated[str, Option(help="Of the tensors on disk.")] = "float32",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Rewrite weights in our layout or the published one."""
    with reported(verbose=verbose):
        from iart.weights import convert as convert_weights

        convert_weights(source, target, key=key, dtype=dtype, overwrite=overwrite)
