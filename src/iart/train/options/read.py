"""Reading option files: YAML in BasicSR's vocabulary, read strictly; some ship with the package.

An override is `place.in.the.file=value`, the value in YAML: `train.total_iter=1000`.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from iart.errors import OptionsError
from iart.files.complete import Destination, complete_file
from iart.files.shipped import shipped_files
from iart.files.text import numbered, parse_yaml, read_yaml
from iart.train.options.run import TrainingOptions
from iart.train.options.section import WrongKey

_log = logging.getLogger(__name__)


def read_options(path: Path, overrides: tuple[str, ...] = ()) -> TrainingOptions:
    """Read an option file and apply overrides; keys that are not needed are logged.

    The name alone of a file that ships finds it from everywhere.

    Raises:
        OptionsError: not readable, not YAML, keys that are unknown or given twice, or values that
            do not fit; all of the kind are named.
    """
    path = find_options(path)
    tree = read_yaml(path, f"option file '{path}'", "no options")
    for override in overrides:
        _apply(tree, override)
    try:
        options = TrainingOptions.model_validate(tree)
    except ValidationError as error:
        raise OptionsError(f"'{path}': {_problems(error.errors(), tree)}") from error
    for note in options.notes(tree):
        _log.info(note)
    return options


def write_schema(path: Path) -> None:
    """Write the JSON schema that editors complete and check option files by."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= TrainingOptions.model_json_schema(mode="validation")
    path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _problems(errors: list[ErrorDetails], tree: dict[str, Any]) -> str:
    """All errors in one line: of each its place, what is wrong, what came."""
    texts: dict[str, list[str]] = defaultdict(list)
    # A key that is spelt wrong explains the one that is missing.
    for error in sorted(errors, key=lambda e: not isinstance(e["input"], WrongKey)):
        context, came = error.get("ctx", {}), error["input"]
        place = _place([*error["loc"], *([context["key"]] if "key" in context else [])], tree)
        text = error["msg"].removeprefix("Value error, ")
        if isinstance(came, WrongKey):
            text = came.text
        elif error["type"] == "union_tag_invalid":
            place = f"{place}.type"
            text = f"expected one of {context['expected_tags']} (got '{context['tag']}')"
        elif error["type"] == "union_tag_not_found":
            place, text = f"{place}.type", "Field required"
        elif not isinstance(came, Mapping):
            text += f" (got {came!r})"
        texts[place].append(text)
    # A value of which several kinds are allowed has an error for each.
    return numbered([f"{place}: {' or '.join(said)}" for place, said in texts.items()])


def _place(location: list[int | str], tree: Any) -> str:
    """Where in the file an error is, without the kinds of values that pydantic adds."""
    parts = []
    for part in location:
        if isinstance(tree, Mapping):
            if part not in tree and part == tree.get("type"):
                continue
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
        else:
            continue
        parts.append(str(part))
    return ".".join(parts) or "options"


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set a value in the file as it is written.

    Raises:
        OptionsError: the override has no place or no value, or its place lies in a value.
    """
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
        node[key] = parse_yaml(value)
    except ValueError as error:
        raise OptionsError(f"override '{override}' has no valid value: {error}") from error


# ---- files that ship: found by their names, wherever the package lies


def shipped_options() -> dict[str, Path]:
    """The files by their names, in order."""
    files = shipped_files("options", ".yml")
    return {f"{name}.yml": Path(str(file)) for name, file in files.items()}


def find_options(path: Path) -> Path:
    """A file as it is named; else the one of that name that ships, with or without `.yml`."""
    if path.exists() or path.parent != Path():
        return path
    return _shipped(path.name) or path


def copy_options(name: str, folder: Path, *, overwrite: bool = False) -> Path:
    """Copy a file that ships into a folder, to change it there; its path comes back.

    Raises:
        OptionsError: no file of that name ships.
        OutputError: the copy exists, or cannot be written.
    """
    source = _shipped(name)
    if source is None:
        known = ", ".join(shipped_options())
        raise OptionsError(f"no options '{name}' ship; known are {known}")
    target = folder / source.name
    Destination(target, overwrite=overwrite)  # raises for one that exists
    with complete_file(target) as file:
        file.write(source.read_bytes())
    return target


def _shipped(name: str) -> Path | None:
    shipped = shipped_options()
    return shipped.get(name) or shipped.get(f"{name}.yml")
