from pathlib import Path

import pytest
from typer.testing import CliRunner

from iart.cli.data import data
from tests.data.made import make_pairs


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pairs(tmp_path, {"000": 3, "001": 2})


def test_degrade(root: Path):
    assert run("degrade", root / "GT", root / "LR", "--kind", "bi")[0] == 0
    assert len(list((root / "LR").rglob("*.png"))) == 5
    code, text = run("degrade", root / "GT", root / "LR", "--kind", "bi")
    assert (code, text.split(": ")[-1]) == (0, "0 images written\n")
    code, text = run("degrade", root / "GT", root / "LR", "--kind", "bd", "--quiet")
    assert code == 1
    assert "pass --overwrite" in text
    again = ("degrade", root / "GT", root / "LR", "--kind", "bd", "--quiet", "--overwrite")
    assert run(*again) == (0, "")


def test_lmdb(root: Path):
    pytest.importorskip("lmdb")
    code, text = run("lmdb", root / "GT", root / "GT.lmdb")
    assert (code, text.split(": ")[-1]) == (0, "5 images written\n")
    assert (root / "GT.lmdb" / "data.mdb").exists()


def test_meta(root: Path):
    code, text = run("meta", root / "GT", root / "meta.txt")
    assert (code, text.split(": ")[-1]) == (0, "2 clips\n")
    assert (root / "meta.txt").read_text() == "000 3 (32,32,3)\n001 2 (32,32,3)\n"
    (root / "only.txt").write_text("001\n")
    again = ("meta", root / "GT", root / "meta.txt", "--only", root / "only.txt", "--quiet")
    assert run(*again)[0] == 1
    assert (root / "meta.txt").read_text() == "000 3 (32,32,3)\n001 2 (32,32,3)\n"
    assert run(*again, "--overwrite")[0] == 0
    assert (root / "meta.txt").read_text() == "001 2 (32,32,3)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("degrade", "GT", "GT/LR", "--kind", "bi"), "it lies in"),
        (
            ("degrade", "GT", "LR", "--kind", "other"),
            "kind must be one of bi, bd, mpeg2, dvd, tape, web",
        ),
        (("lmdb", "none", "none.lmdb"), "no images"),
        (("meta", "none", "meta.txt"), "no clips"),
    ],
)
def test_errors_are_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
):
    monkeypatch.chdir(root)
    code, text = run(*arguments)
    assert code == 1
    assert text.startswith("error: ")
    assert message in text
    assert "Traceback" not in text
