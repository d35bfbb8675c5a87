"""The command that shows what there is to enlarge with: models."""

from iart.cli.console import as_json, print_labelled, reported
from iart.cli.flags import Json, Verbose


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
