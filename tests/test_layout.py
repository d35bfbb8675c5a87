"""The tree keeps its order: who may import whom, how long a file may be, and no print."""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOT = PROJECT / "src" / "iart"
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 450
CORE = (
    *("model/**/*", "weights/**/*"),
    *(f"upscaling/{name}.py" for name in ("windows", "tiles", "budget", "enlarge", "clip")),
)
"""What a researcher reads."""
OTHER_WAYS = "model/kernels/gpu*.py"
"""Triton's kernels and their operators: what they compute stands in `model` in PyTorch, too."""
MAX_CORE_LINES = 5000

# From the ground up: a room may import from the floors below its own, and from itself.
FLOORS = (
    {"errors", "runtime", "version"},
    {"files", "pictures", "device", "graphs"},
    {"parallel", "reports"},
    {"video", "model"},
    {"weights", "data", "upscaling"},
    {"evaluate", "train", "bench"},
    {"compare", "demo"},
    {"web"},
    {"cli"},
)
BESIDES = {
    "files": {"pictures"},
    "pictures": {"device"},
    "data": {"weights"},
    "upscaling": {"weights"},
    "train": {"evaluate"},
    "demo": {"compare"},
}
"""Rooms on the same floor that a room may import."""
PUBLIC = {
    "__init__": {"errors", "runtime", "version", "model", "video", "weights", "upscaling"},
    "__main__": {"cli"},
}
MAY_PRINT = {"cli"}
SHIPPED = re.compile(
    r"(\w+/)*\w+\.py|py\.typed|model/kernels/\w+\.(cpp|h)|assets/\w+\.(mp4|safetensors)"
    r"|assets/photos/[\w-]+\.webp"
)
"""Files of the package; `.ci/run` looks at the wheel."""


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name; packages by their own."""
    named = {}
    for file in FILES:
        parts = ("iart", *file.relative_to(ROOT).with_suffix("").parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


def imports(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Every module of ours that is imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "iart")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            if module.split(".")[0] == "iart":
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    yield inner if inner in known else module


def room_of(module: str) -> str:
    """The package below `iart`, or the module."""
    return module.split(".")[1] if "." in module else "__init__"


def may_import(room: str) -> set[str]:
    for level, floor in enumerate(FLOORS):
        if room in floor:
            below = set().union(*FLOORS[:level])
            return below | {room} | BESIDES.get(room, set())
    raise AssertionError(f"a new room: say on which floor of {Path(__file__).name} it stands")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_in_order(file: Path):
    text = file.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree), "says what it is for"
    room = file.relative_to(ROOT).parts[0].removesuffix(".py")
    known = set(modules())
    allowed = PUBLIC[room] if room in PUBLIC else may_import(room)
    foreign = {name for name in imports(tree, known) if room_of(name) not in allowed}
    assert not foreign, f"{room} must not import {foreign}"
    if room not in MAY_PRINT:
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]


def test_the_core_can_be_read():
    files = {file for pattern in CORE for file in ROOT.glob(pattern)} - set(ROOT.glob(OTHER_WAYS))
    code = [file for file in files if file.suffix in (".py", ".cpp", ".h")]
    assert all(any(ROOT.glob(pattern)) for pattern in CORE)
    assert sum(len(file.read_text().splitlines()) for file in code) < MAX_CORE_LINES


def test_no_two_classes_have_one_name():
    nodes = (node for file in FILES for node in ast.parse(file.read_text()).body)
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert not [name for name, times in names.items() if times > 1]


def test_no_module_needs_itself():
    known = modules()
    needs = {
        name: {other for other in imports(ast.parse(file.read_text()), set(known)) if other != name}
        for name, file in known.items()
        if name != "iart"
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' → '.join(error.args[1])}")


def test_the_walk_sees_what_it_should():
    known = {"iart.cli", "iart.model", "iart.video.frame"}
    source = "import iart.video.frame\nfrom iart import cli\nfrom iart.model import IART\nimport os"
    assert list(imports(ast.parse(source), known)) == ["iart.video.frame", "iart.cli", "iart.model"]


def test_no_file_for_leftovers():
    names = {file.stem for file in FILES}
    assert not names & {"utils", "util", "common", "misc", "helpers"}
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines()
    assert not [name for name in names if name.endswith((".orig", ".rej", ".bak", "~"))]
    inside = [name for name in names if name.startswith("src/iart/")]
    assert not [name for name in inside if not SHIPPED.fullmatch(name.removeprefix("src/iart/"))]
