"""`iart train`, as a user calls it."""

import inspect
import signal
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from iart.cli import app
from iart.cli.train import train as command
from iart.train.loop import train
from tests.train.tiny import folder_of, make_pairs, state_of, tree


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_pairs(tmp_path / "pairs")
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tree()))
    return tmp_path


def iart(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments, "--device", "cpu"])


def test_flags_are_keywords_of_the_function():
    flags = inspect.signature(command).parameters
    keywords = inspect.signature(train).parameters
    shared = keywords.keys() - {"options", "report"}
    assert shared == flags.keys() - {"options_file", "overrides", "check", "quiet", "verbose"}
    assert all(flags[name].default == keywords[name].default for name in shared)


def test_a_run_in_two_parts():
    first = iart("tiny.yml", "train.total_iter=2", "--max-minutes", "0")
    assert first.exit_code == 0
    assert "step 1 of 2  loss 0." in first.stderr
    assert first.stderr.endswith("weights: experiments/tiny/models/net_g_1.safetensors\n")
    second = iart("tiny.yml", "train.total_iter=2")
    assert second.exit_code == 0
    assert second.stderr.startswith("goes on from 'experiments/tiny/training_states/1.state'\n")
    assert state_of()["step"] == 2
    assert first.stdout == second.stdout == ""


def test_quiet():
    result = iart("tiny.yml", "train.total_iter=1", "num_gpu=8", "--quiet")
    assert result.exit_code == 0
    assert result.output == ""


def test_an_error_is_one_line():
    result = iart("tiny.yml", "datasets.train.num_frame=9")
    assert result.exit_code == 1
    assert result.output.startswith("error: clip '001' has 4 frames, too short for samples of 9")
    assert result.output.count("\n") == 1
    assert not folder_of().exists()


def test_a_signal_says_that_all_is_saved(monkeypatch: pytest.MonkeyPatch):
    from iart.train.log import Log

    def step(log: Log, number: int, *_: float, **__: float) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "step", step)
    result = iart("tiny.yml")
    assert result.exit_code == 130
    assert result.output.endswith("interrupted: all is saved, the same command goes on\n")
    assert state_of()["step"] == 2  # the step that was under way when the signal came


def test_other_processes_repeat_no_notes(monkeypatch: pytest.MonkeyPatch):
    notes = iart("tiny.yml", "train.total_iter=0", "use_static_graph=true")
    assert "note: use_static_graph is not needed" in notes.stderr
    monkeypatch.setenv("RANK", "1")
    silent = iart("tiny.yml", "train.total_iter=0", "use_static_graph=true")
    assert "use_static_graph" not in silent.stderr
