"""A run that is killed at any moment goes on from its last save."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from iart.weights import read_model
from tests.processes import errors_at_end, start_iart, wait_until
from tests.train.tiny import folder_of, latest, options, run, state_of, tree

pytestmark = pytest.mark.usefixtures("folder")


ENDLESS = {
    "train__total_iter": 100_000, "logger__save_checkpoint_freq": 1, "logger__print_freq": 1000
}  # fmt: skip


def saved() -> int:
    """The step of the last save, −1 if there is none."""
    return max((int(p.stem) for p in folder_of().glob("training_states/*.state")), default=-1)


def start() -> subprocess.Popen[str]:
    """The run in a process of its own, once it has saved at least one more step."""
    Path("endless.yml").write_text(yaml.safe_dump(tree(**ENDLESS)))
    before = saved()
    child = start_iart("train", "endless.yml", "--device", "cpu")
    wait_until(lambda: saved() > before, child)
    return child


def kill_while_saving(delay_seconds: float) -> None:
    """Saving takes most of the time of this run: any moment is likely to be within a save."""
    child = start()
    time.sleep(delay_seconds)
    seen = saved()
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert saved() >= seen  # nothing that was saved is lost
    assert state_of()["step"] == saved()  # and it opens
    assert folder_of().joinpath(f"models/net_g_{saved()}.safetensors").exists()
    for path in folder_of().glob("models/*.safetensors"):
        assert read_model(path).config == options().network_g.config()


def kills(count: int) -> None:
    delays = random.Random(0)
    for _ in range(count):
        kill_while_saving(delays.uniform(0.0, 0.3))
    step = saved()
    assert step >= count
    lines = run(options(**ENDLESS), max_minutes=0.0)
    assert lines[0] == f"goes on from 'experiments/tiny/training_states/{step}.state'"
    assert state_of()["step"] == step + 1
    assert not list(folder_of().glob("*/.*.part"))  # halves of files are taken away
    assert len(list(folder_of().glob("training_states/*"))) == 3


@pytest.mark.slow
def test_twenty_kills_while_saving():
    kills(20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_with_130(number: signal.Signals):
    child = start()
    child.send_signal(number)
    said = errors_at_end(child)
    assert child.returncode == 130
    assert said.endswith("interrupted: all is saved, the same command goes on\n")
    assert state_of()["step"] == int(latest().stem)
    assert (folder_of() / "models" / f"net_g_{latest().stem}.safetensors").exists()
