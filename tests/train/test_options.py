import re
from pathlib import Path

import pytest
import yaml

from iart.errors import OptionsError
from iart.model import IARTConfig
from iart.train.options import NetworkOptions, Options, read_options

SHIPPED = Path(__file__).parents[2] / "options"
MINIMAL = {
    "name": "run",
    "network_g": {},
    "datasets": {"train": {"dataroot_gt": "t"}, "val": {"dataroot_gt": "v"}},
    "train": {
        "total_iter": 10,
        "optim_g": {"lr": 1e-3},
        "flow": {"total_iter": 5, "lr": 1e-4, "size": 64},
    },
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yml")), ids=lambda path: path.name)
def test_shipped_options_are_read(path: Path):
    options = read_options(path)
    assert options.name == path.stem
    assert options.network_g.config().channels > 0
    assert "shared" not in path.read_text()


def test_defaults_are_the_published_network(path: Path):
    assert read_options(path).network_g.config() == IARTConfig()
    assert NetworkOptions().config() == IARTConfig()


def test_overrides(path: Path):
    options = read_options(
        path,
        (
            "train.total_iter=1000",
            "train.optim_g.lr=2e-4",  # YAML 1.1 calls this text
            "datasets.train.dataroot_gt=/data/a=b",
            "network_g.depths=[2, 2, 2]",
            "val.val_freq=7",  # a section that the file does not have
        ),
    )
    assert options.train.total_iter == 1000
    assert options.train.optim_g.lr == 2e-4
    assert options.datasets.train.dataroot_gt == Path("/data/a=b")
    assert options.network_g.depths == (2, 2, 2)
    assert options.val.val_freq == 7


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(OptionsError) as caught:
        read_options(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_iters=5", "train.total_iters: Extra inputs are not permitted (got 5)"),
        ("train.total_iter=soon", "train.total_iter: Input should be a valid integer"),
        ("train.total_iter=-1", "train.total_iter: Input should be greater than or equal to 0"),
        ("train.optim_g.lr=0", "train.optim_g.lr: Input should be greater than 0 (got 0)"),
        ("train.optim_g.type=SGD", "train.optim_g.type: Input should be 'Adam' (got 'SGD')"),
        ("network_g.type=EDVR", "network_g.type: Input should be 'IART' (got 'EDVR')"),
        ("network_g.embed_dim=122", "network_g: channels (122) must be divisible by 4 and by"),
        ("network_g.window_size=[1, 8, 8]", "network_g: a window spans 3 frames"),
        ("datasets.train.gt_size=66", "datasets.train.gt_size: Input should be a multiple of 4"),
        ("datasets.train.reduce=[2, 1]", "datasets.train: reduce must be two factors"),
        ("datasets.train.still_share=1.5", "datasets.train.still_share: Input should be less"),
        ("train.flow.size=48", "train.flow.size (48) must be a multiple of 32, at least 64"),
        ("logger.print_freq=0", "logger.print_freq: Input should be greater than 0"),
        ("name=../elsewhere", "name: String should match pattern"),
    ],
)
def test_values_that_cannot_work(path: Path, override: str, message: str):
    text = refused(path, override)
    assert text.startswith(f"'{path}': ")
    assert message in text


def test_missing_value(path: Path):
    path.write_text(yaml.safe_dump({**MINIMAL, "train": {"total_iter": 1}}))
    assert "train.optim_g: Field required" in refused(path)


@pytest.mark.parametrize("override", ["train.total_iter", "", "=5"])
def test_override_that_sets_nothing(path: Path, override: str):
    assert f"override '{override}' has no place or no '='" in refused(path, override)


def test_override_below_a_value(path: Path):
    expected = "override 'name.first=x': 'name' is a value, not a section"
    assert refused(path, "name.first=x") == expected


def test_override_with_broken_yaml(path: Path):
    assert "override 'name=[' has no valid value" in refused(path, "name=[")


def test_files_that_cannot_be_read(tmp_path: Path):
    assert "cannot read option file" in refused(tmp_path / "missing.yml")
    broken = tmp_path / "broken.yml"
    broken.write_text("name: [")
    assert "cannot read option file" in refused(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    assert "cannot read option file" in refused(broken)
    broken.write_text("just text")
    assert re.search("holds no options", refused(broken))


def test_no_flow_stage_needs_no_size(path: Path):
    options = read_options(path, ("train.flow.size=48", "train.flow.total_iter=0"))
    assert isinstance(options, Options)
