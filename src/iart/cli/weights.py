"""Commands on weights: models, convert."""

from typing import Annotated

from typer import Argument, BadParameter, Option

from iart.cli.console import as_json, print_labelled, reported
from iart.cli.flags import Json, Overwrite, Verbose


def models(json: Json = False, verbose: Verbose = False) -> None:
    """List the models: what each is for, licence, size, cost, and scores on data that ship."""
    with reported(verbose=verbose):
        from iart.bench.models import describe_models

        found = describe_models()
        if json:
            print(as_json(found))
            return
        for name, facts in found.items():
            print(name)
            print_labelled(facts.items(), indent="    ")
        print(
            "\nFiles of published weights work too: --model FILE (https://github.com/kai422/IART)"
        )


def convert(
    source: Annotated[str, Argument(metavar="IN", help="Name or file of weights.")],
    target: Annotated[
        str,
        Argument(
            metavar="OUT",
            help=".safetensors (ours) or .pth (published layout); with --blend the second model.",
        ),
    ],
    blend: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Blend two models of one shape: (1 - SHARE) of the first, SHARE of the second.",
        ),
    ] = None,
    output: Annotated[
        str | None, Option("--output", "-o", help="File of the blended weights (with --blend).")
    ] = None,
    key: Annotated[str | None, Option(help="Key in a published file: params, params_ema.")] = None,
    dtype: Annotated[str, Option(help="Data type of the saved tensors.")] = "float32",
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Convert weights between this package's layout and the published one, or blend two models.

    iart convert psnr.safetensors gan.safetensors --blend 0.7 -o between.safetensors
    """
    if (blend is None) != (output is None):
        raise BadParameter("--blend and --output go together: iart convert A B --blend 0.7 -o OUT")
    with reported(verbose=verbose):
        from iart import weights

        if blend is not None and output is not None:
            weights.blend(source, target, blend, output, key=key, dtype=dtype, overwrite=overwrite)
        else:
            weights.convert(source, target, key=key, dtype=dtype, overwrite=overwrite)
