"""Text and YAML that people write or other programs export, read strictly and in one way."""

import codecs
import re
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from iart.errors import IARTError, OptionsError


def read_text(path: Path | Traversable, what: str, error: type[IARTError]) -> str:
    r"""Text of a UTF-8 file, or of one in UTF-16 that says so; lines end in "\n".

    A byte order mark is no part of the text: Windows programs put one in front.

    Args:
        path: of the file.
        what: name of the file in messages, such as "option file 'run.yml'".
        error: class of the error raised.

    Raises:
        IARTError: of the class `error`; the file cannot be read, or is not text.
    """
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise error(f"cannot read {what}: {reason}") from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Loader(yaml.SafeLoader):
    """Reads 2e-4 as a number, as YAML 1.2 has it and people write it; names repeated keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A section as it is written, before keys are merged into it from others (`<<`)."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], list[int]] = defaultdict(list)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                lines[key.tag, key.value].append(key.start_mark.line + 1)
        for (_, name), found in lines.items():
            if len(found) > 1:
                *others, last = map(str, found)
                self.repeated.append(
                    f"key '{name}' is given {len(found)} times, in lines {', '.join(others)} and"
                    f" {last}: leave one"
                )
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    """A Python tuple, of plain values like everything else."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple must be a sequence")
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def parse_yaml(text: str) -> Any:
    """Values of a text.

    Raises:
        ValueError: the text is not YAML, or a section names keys twice; the message is one line
            and names all of them.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if loader.repeated:
        raise ValueError(numbered(loader.repeated))
    return value


def read_yaml(path: Path | Traversable, what: str, holds: str) -> dict[str, Any]:
    """Keys and values of a file.

    Args:
        path: of the file.
        what: name of the file in messages, such as "option file 'run.yml'".
        holds: what a file without keys lacks, in messages.

    Raises:
        OptionsError: the file cannot be read, is not YAML, names a key twice or has no keys.
    """
    text = read_text(path, what, OptionsError)
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise OptionsError(f"cannot read {what}: {error}") from error
    if not isinstance(tree, dict):
        raise OptionsError(f"{what} holds {holds} (expected `key: value` lines)")
    return tree


def numbered(problems: Sequence[str]) -> str:
    """Several problems of a file in one line; a single one as it is."""
    if len(problems) == 1:
        return problems[0]
    return "; ".join(f"({number}) {problem}" for number, problem in enumerate(problems, 1))
