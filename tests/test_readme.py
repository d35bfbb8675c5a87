"""The code blocks of README.md work as they stand.

Each runs in a folder of its own that holds `in.mkv` (a made clip with sound and subtitles) and
`frames/` (images). Left out: blocks of `make`, which are how tests are run; blocks after a line
`<!-- needs data -->`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from iart.weights import model_names
from tests.video.clips import make_clip, pictures, save_image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"(<!-- needs data -->\s*)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"bash", "python"}
SHOWN_ONLY = {"text", "mermaid"}


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    code: str
    needs_data: bool

    @property
    def is_make(self) -> bool:
        lines = self.code.splitlines()
        return all(line.startswith(("make ", "#")) for line in lines if line.strip())

    @property
    def needs_light(self) -> bool:
        """Whether it uses the default model, which is trained and then added."""
        return "--model bicubic" not in self.code


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, m.start(2)) + 1, m[2], m[3], bool(m[1]))
        for m in FENCE.finditer(text)
    ]


BLOCKS = blocks(README)
RUNNABLE = [b for b in BLOCKS if b.language in LANGUAGES and not b.needs_data and not b.is_make]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_clip(tmp_path / "in.mkv", frames=5, audio=["eng"], subtitles=["eng"])
    (tmp_path / "frames").mkdir()
    for index, image in enumerate(pictures(3)):
        save_image(tmp_path / "frames" / f"{index}.png", image, pixel_format="rgb24")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"line-{block.line}")
def test_a_block_runs(block: Block, folder: Path):
    if block.needs_light and "light" not in model_names():
        pytest.skip("no trained model in the package yet")
    start = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*start[block.language], block.code],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_every_block_is_of_a_known_kind():
    assert len(RUNNABLE) >= 3
    assert {block.language for block in BLOCKS} <= LANGUAGES | SHOWN_ONLY
    assert README.count("\n```") == 2 * len(BLOCKS), "a fence that is not at the start of a line"


def test_the_two_commands_come_first():
    assert BLOCKS[0].is_make
    commands = [line.split("#")[0].strip() for line in BLOCKS[0].code.splitlines()]
    assert commands == ["make demo", "make test"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_marks_are_seen():
    text = (
        "a\n```bash\nmake test\n```\n<!-- needs data -->\n```bash\nls x\n```\n\n```python\n1\n```\n"
    )
    assert [(b.line, b.language, b.is_make, b.needs_data) for b in blocks(text)] == [
        (2, "bash", True, False),
        (6, "bash", False, True),
        (10, "python", False, False),
    ]
