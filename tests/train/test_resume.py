"""A run that is stopped goes on bit for bit; only from a state of its own."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from iart.data.scenes import SceneSet
from iart.errors import OptionsError, WeightsError
from iart.train.log import Log
from iart.train.state import samples_on_device
from iart.weights import read_model
from tests.train.tiny import (
    SCENES,
    assert_same,
    folder_of,
    latest,
    make_scenes,
    options,
    run,
    state_of,
)

pytestmark = pytest.mark.usefixtures("folder")


def test_a_run_in_pieces_is_a_straight_run():
    """Stopped after every step, with stochastic depth and moving flow: the same bit for bit."""
    changes = {"train__fix_flow": 2, "train__gradient_accumulation_steps": 2}
    run(options(name="straight", **changes))
    for step in range(1, 5):
        lines = run(options(name="pieces", **changes), max_minutes=0.0)
        assert state_of("pieces")["step"] == step
        assert any(line.startswith("goes on from") for line in lines) == (step > 1)
    assert_same(state_of("pieces"), state_of("straight"))
    a, b = (
        read_model(folder_of(n) / "models" / "net_g_4.safetensors") for n in ("pieces", "straight")
    )
    assert_same(dict(a.state_dict()), dict(b.state_dict()))


def test_scenes_that_the_device_computes_in_pieces_are_a_straight_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Bit for bit; and a run whose threads compute them learns the same within rounding."""
    drawn: list[int] = []
    begin = SceneSet.begin

    def counted(self: SceneSet, item: int, index: int, seed: int, **more: Any) -> Any:
        drawn.append(index)
        return begin(self, item, index, seed, **more)

    monkeypatch.setattr(SceneSet, "begin", counted)
    make_scenes(folder / "scenes")

    def learn(name: str, on_device: bool, **keywords: Any) -> None:
        section = {**SCENES, "still_share": 0.5, "samples_on_device": on_device}
        run(options(name=name, datasets__train=section, train__total_iter=2), **keywords)

    learn("straight", True)
    learn("pieces", True, max_minutes=0.0)
    learn("pieces", True)
    assert drawn == [0, 1, 0, 1]
    assert_same(state_of("pieces"), state_of("straight"))
    learn("threads", False)
    assert len(drawn) == 4
    ours, theirs = (state_of(name)["model"] for name in ("straight", "threads"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-4)


def test_who_computes_samples():
    def asked(value: bool | str, device: str) -> bool:
        section = options(datasets__train={**SCENES, "samples_on_device": value}).datasets.train
        return samples_on_device(section, torch.device(device))

    assert [asked("auto", device) for device in ("cuda", "cpu", "mps")] == [True, False, False]
    assert [asked(True, device) for device in ("cuda", "cpu")] == [True, True]
    assert not asked(False, "cuda")
    with pytest.raises(OptionsError, match="MPS has no float64"):
        asked(True, "mps")
    assert not samples_on_device(options().datasets.train, torch.device("cuda"))


def test_a_finished_run_stays_as_it_is():
    run(options())
    before = latest().read_bytes()
    assert run(options()) == [
        "goes on from 'experiments/tiny/training_states/4.state'",
        "weights: experiments/tiny/models/net_g_4.safetensors",
    ]
    assert latest().read_bytes() == before


def test_a_finished_run_can_be_made_longer():
    run(options())
    run(options(train__total_iter=6))
    assert state_of()["step"] == 6


def test_the_last_checkpoints_are_kept():
    run(options(train__total_iter=5, logger__save_checkpoint_freq=1, logger__keep_checkpoints=2))
    assert sorted(p.name for p in (folder_of() / "training_states").iterdir()) == [
        "4.state",
        "5.state",
    ]
    weights = sorted(p.name for p in (folder_of() / "models").iterdir())
    assert weights == ["net_g_4.safetensors", "net_g_5.safetensors"]


def test_a_state_can_be_named_to_go_on_from():
    run(options(logger__save_checkpoint_freq=1, logger__keep_checkpoints=9))
    straight = state_of()
    earlier = folder_of() / "training_states" / "2.state"
    run(options(path__resume_state=str(earlier)), max_minutes=0.0)
    # What lay ahead is gone, so that the same command without the state goes on from there.
    assert latest().stem == "3"
    run(options())
    assert_same(state_of(), straight)


def test_the_seed_of_a_run_stays():
    """Going on with another seed in the file keeps the order of samples."""
    run(options(name="straight"))
    run(options(), max_minutes=0.0)
    run(options(manual_seed=5))
    assert_same(state_of(), state_of("straight"))


def test_the_optimiser_of_the_file_counts():
    """A stopped run goes on with the kind, betas and weight decay that the file has now."""
    run(options(), max_minutes=0.0)
    optim = {"type": "AdamW", "lr": 1e-3, "betas": [0.5, 0.9], "weight_decay": 0.25}
    lines = run(options(train__optim_g=optim, manual_seed=7), max_minutes=0.0)
    assert "manual_seed 7 has no effect: the run keeps the seed with which it began, 0" in lines
    (said,) = (line for line in lines if line.startswith("options that changed since"))
    for change in (
        'train.optim_g.type "Adam" → "AdamW"',
        "train.optim_g.betas [0.9, 0.99] → [0.5, 0.9]",
        "train.optim_g.weight_decay 0.0 → 0.25",
        "manual_seed 0 → 7",
    ):
        assert change in said
    for group in state_of()["optimizer"]["param_groups"]:
        assert (tuple(group["betas"]), group["weight_decay"]) == ((0.5, 0.9), 0.25)
        assert group["decoupled_weight_decay"]
    assert state_of()["optimizer"]["state"][0]["step"] == 2  # the averages go on


def test_changed_options_of_a_finished_run():
    run(options())
    lines = run(options(train__optim_g={"type": "Adam", "lr": 5e-4}))
    assert lines[1:3] == [
        "options that changed since the last start: train.optim_g.lr 0.001 → 0.0005",
        "the run is finished (step 4 of 4): changed options have no effect; raise "
        "train.total_iter, or give the run another name",
    ]


def test_another_network_is_not_resumed():
    run(options(), max_minutes=0.0)
    with pytest.raises(WeightsError, match=r"cannot resume from '.*1\.state': .*; move it away"):
        run(options(network_g__embed_dim=16))


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_damaged_state_is_not_resumed(keep: int):
    run(options(), max_minutes=0.0)
    latest().write_bytes(latest().read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cannot resume from") as caught:
        run(options())
    assert "\n" not in str(caught.value)


def test_a_signal_saves_and_stops(monkeypatch: pytest.MonkeyPatch):
    run(options(name="straight"))
    before = signal.getsignal(signal.SIGTERM)
    step = Log.step

    def stopped(self: Log, number: int, *rest: float, **more: float) -> None:
        step(self, number, *rest, **more)
        if number == 1:  # comes while the next step is under way
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(options())
    assert state_of()["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == before
    run(options())
    assert_same(state_of(), state_of("straight"))
