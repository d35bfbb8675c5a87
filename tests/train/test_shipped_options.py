from pathlib import Path

import pytest

from iart.train.options.read import read_options
from tests.cli.test_cli import assert_fails, iart


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without option files."""
    monkeypatch.chdir(tmp_path)


def test_they_are_listed_and_each_is_found_by_its_name():
    names = iart("options").stdout.split()
    assert {"IART_light.yml", "IART_dvd.yml", "train_dvd_bluray.yml"} <= set(names)
    for name in names:
        assert read_options(Path(name)).name == read_options(Path(name).with_suffix("")).name


def test_a_file_of_that_name_comes_first():
    iart("options", "IART_light.yml")
    copy = Path("IART_light.yml")
    copy.write_text(copy.read_text().replace("name: ", "name: mine_", 1))
    assert read_options(copy).name.startswith("mine_")


def test_one_is_copied_and_replaces_nothing(tmp_path: Path):
    result = iart("options", "IART_light")
    assert (result.exit_code, result.stdout) == (0, "")
    (copy := tmp_path / "IART_light.yml").write_text("mine")
    assert_fails(iart("options", "IART_light.yml"), "it exists")
    assert copy.read_text() == "mine"
    assert iart("options", "IART_light.yml", "--overwrite").exit_code == 0
    assert copy.read_text() != "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["IART_light.yml"]
    assert_fails(iart("options", "other.yml"), "no options 'other.yml' ship; known are IART_")
