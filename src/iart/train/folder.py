"""The folder of a run, `experiments/<name>`: states to go on from, weights to use.

    training_states/<step>.state   what a run needs to go on; the last few are kept
    models/net_g_<step>.pth        weights of the same steps
    models/net_g_best.pth          weights with the best validation
    training_states/flow.pt        the flow network's lessons, if it had some
    log.jsonl, curve.png, …        see `iart.train.log`

Weights of the published network are in the published layout, `params` and, smoothed, `params_ema`.
Those of other configurations are files of ours (`.safetensors`), which say what they are and hold
the smoothed weights; the states hold both.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch

from iart.evaluate.sharing import writing
from iart.model import IART, IARTConfig
from iart.train.state import TrainState
from iart.weights import save_model
from iart.weights.published import to_published
from iart.weights.tensorfile import atomic_file


class RunFolder:
    """Saves states and weights, and finds the last ones."""

    def __init__(self, name: str, config: IARTConfig, *, keep: int) -> None:
        """Nothing is made before `prepare`.

        Args:
            name: of the run.
            config: of its network.
            keep: states that are kept, at least 1.
        """
        self.path = Path("experiments") / name
        self.states, self.models = self.path / "training_states", self.path / "models"
        self.pictures = self.path / "visualization"
        self.lessons = self.states / "flow.pt"
        self._keep = keep
        published = replace(config, drop_path=IARTConfig.drop_path) == IARTConfig()
        self._suffix = ".pth" if published else ".safetensors"

    def prepare(self) -> None:
        """Make the folders; take away what a killed run left half-written.

        Raises:
            OutputError: the operating system refuses.
        """
        for folder in (self.states, self.models):
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for part in folder.glob(".*.part"):
                    part.unlink()

    def latest_state(self) -> Path | None:
        """The state with the highest step."""
        paths = {step: path for path in self.states.glob("*.state") if (step := _step(path)) >= 0}
        return paths[max(paths)] if paths else None

    def weights(self, label: int | str) -> Path:
        """Where the weights of a step, or the best, are."""
        return self.models / f"net_g_{label}{self._suffix}"

    def save_best(self, state: TrainState) -> None:
        """Keep the weights as the best so far."""
        save_weights(state, self.weights("best"))

    def save(self, state: TrainState) -> Path:
        """Save weights and state, then let go of old ones; returns the file of weights.

        Weights come first: a run that is killed in between makes them again, while one that went on
        from a state at its end would not make weights that are missing.

        Raises:
            TrainingError: a weight is not finite; nothing is written.
            OutputError: the operating system refuses.
        """
        state.require_finite()
        weights = self.weights(state.step)
        save_weights(state, weights)
        state.save(self.states / f"{state.step}.state")
        for folder in (self.states, self.models):
            saved = sorted((p for p in folder.iterdir() if _step(p) >= 0), key=_step)
            past = [path for path in saved if _step(path) <= state.step]
            # What lies ahead was left by a run that has been taken back to an earlier state.
            for path in set(saved) - set(past[-self._keep :]):
                with writing(path):
                    path.unlink(missing_ok=True)
        return weights


def save_weights(state: TrainState, path: Path) -> None:
    """Write weights: both kinds in the published layout, the smoothed ones in ours."""
    if path.suffix == ".safetensors":
        save_model(state.average, path, metadata={"step": str(state.step)})
        return
    both = {"params": _on_cpu(state.model), "params_ema": _on_cpu(state.average)}
    with atomic_file(path) as file:
        torch.save(both, file)


def _on_cpu(model: IART) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in to_published(model).items()}


def _step(path: Path) -> int:
    """The step in a file's name, −1 if there is none."""
    found = re.fullmatch(r"(?:net_g_)?(\d+)\.(?:state|pth|safetensors)", path.name)
    return int(found[1]) if found else -1
