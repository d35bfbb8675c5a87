"""Files that ship beside the code: weights, protocols, option files. Nothing slow is imported."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped_files(kind: str, suffix: str) -> dict[str, Traversable]:
    """Files by their names without ending, in order.

    Args:
        kind: folder of the package's assets, or of a checkout: "benchmarks"; "" for the assets
            themselves.
        suffix: ending of the names, with its dot.
    """
    package = resources.files("iart")
    places = [package.joinpath("assets", kind)]
    if kind and isinstance(package, Path):
        places.append(package.parents[1] / kind)
    found = next((place for place in places if place.is_dir()), None)
    files = [] if found is None else sorted(found.iterdir(), key=lambda file: file.name)
    return {f.name.removesuffix(suffix): f for f in files if f.name.endswith(suffix)}


def shipped_models() -> list[str]:
    """Names of models: "bicubic", and the weights that ship."""
    return ["bicubic", *shipped_files("", ".safetensors")]
