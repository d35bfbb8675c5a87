"""The tree keeps its order: who may import whom, how long a file may be, and no print."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "iart"
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 350

EVERYBODY = {"errors", "resize"}
ALLOWED: dict[str, set[str]] = {
    "__init__": {"model", "video", "weights", "inference"},
    "errors": set(),
    "resize": set(),
    "device": set(),
    "plot": set(),
    "allocator": set(),
    "threads": set(),
    "model": set(),
    "video": set(),
    "weights": {"model", "device"},
    "inference": {"model", "weights", "video", "device"},
    "data": {"video"},
    "evaluate": {"inference", "video", "data", "weights", "device", "plot"},
    "train": {"model", "weights", "data", "evaluate", "inference", "device"},
    "bench": {"model", "weights", "device", "inference", "plot"},
    "compare": {"inference", "evaluate", "video", "data", "plot"},
    "demo": {"compare", "inference", "evaluate", "video", "data", "weights", "device"},
}
ANYTHING = {"cli", "console", "__main__"}
MAY_PRINT = {"cli"}


def part_of(file: Path) -> str:
    """The package below `iart`, or the module."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported, below `iart`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [node.module or ""]
            if node.module == "iart":
                names = [f"iart.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("iart."))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_in_order(file: Path):
    part = part_of(file)
    text = file.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree), "says what it is for"
    if part not in ANYTHING:
        assert part in ALLOWED, f"a new part of the package: say in {Path(__file__).name} what for"
        foreign = set(imports(tree)) - ALLOWED[part] - EVERYBODY - {part}
        assert not foreign, f"{part} must not import {foreign}"
    if part not in MAY_PRINT:
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]


def test_the_walk_sees_what_it_should():
    source = "import iart.video.frame\nfrom iart import cli\nfrom iart.model import IART\nimport os"
    assert list(imports(ast.parse(source))) == ["video", "cli", "model"]


def test_no_file_for_leftovers():
    names = {file.stem for file in FILES}
    assert not names & {"utils", "util", "common", "misc", "helpers"}
