"""Option files as they are written: YAML and overrides, before anything is checked."""

import re
from pathlib import Path
from typing import Any

import yaml

from iart.errors import OptionsError


class _Loader(yaml.SafeLoader):
    """Reads 2e-4 as a number, as YAML 1.2 has it and people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def read_tree(path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Keys and values of an option file.

    Raises:
        OptionsError: not readable, not YAML, no keys, or an override that cannot be applied.
    """
    try:
        tree = _load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise OptionsError(f"cannot read option file '{path}': {_line(error)}") from error
    if not isinstance(tree, dict):
        raise OptionsError(f"option file '{path}' holds no options (expected `key: value` lines)")
    for override in overrides:
        _apply(tree, override)
    return tree


def _load(text: str) -> Any:
    return yaml.load(text, _Loader)


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())


def _apply(tree: dict[str, Any], override: str) -> None:
    place, equals, value = override.partition("=")
    if not equals or not place:
        raise OptionsError(
            f"override '{override}' has no place or no '=': expected place.in.file=value"
        )
    *parents, key = place.split(".")
    node: Any = tree
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise OptionsError(f"override '{override}': '{parent}' is a value, not a section")
    try:
        node[key] = _load(value)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise OptionsError(f"override '{override}' has no valid value: {_line(error)}") from error
