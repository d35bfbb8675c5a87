"""What a run needs to go on as if it had not stopped, and the folder that keeps it.

    experiments/<name>/
      training_states/<step>.state   what a run needs to go on; the last few are kept
      models/net_g_<step>.pth        weights of the same steps
      models/net_g_best.pth          weights with the best validation
      training_states/flow.pt        the flow network's lessons, if it had some
      nonfinite-step<step>.pt        batches of a step whose loss or gradient was not finite
      options.json                   options of the last start
      preview/, preview.webp         see `iart.train.pictures`
      log.jsonl, curve.svg, …        see `iart.train.log`

Weights of the published network are in the published layout, `params` and, smoothed, `params_ema`.
Those of other configurations are files of ours (`.safetensors`), which say what they are and hold
the smoothed weights; the states hold both.
"""

import copy
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from iart.data.loader import Batch, Loader
from iart.data.samples import TrainingSet
from iart.errors import OptionsError, TrainingError, WeightsError, first_line
from iart.files.complete import complete_file, writing
from iart.model import IART, IARTConfig
from iart.train.adversary import Adversary, load_averages, new_adversaries
from iart.train.options.data import SceneOptions, TrainingSetOptions
from iart.train.options.run import TrainingOptions
from iart.weights import save_model
from iart.weights.published import to_published


@dataclass
class TrainState:
    """A training run between two steps.

    There is no generator of random numbers in it: every draw is made from (`seed`, index of the
    sample), so that `seed` and `samples` say where all of them are, on any number of processes.
    """

    model: IART
    average: IART
    """Exponential moving average of `model`; this one ships."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Keeps gradients of float16 in range; does nothing in other precisions."""
    seed: int
    adversaries: list[Adversary] = field(default_factory=list)
    step: int = 0
    samples: int = 0
    """Samples that all processes have used."""
    nonfinite: int = 0
    """Steps that were skipped for a loss that was not finite."""
    best: float = -math.inf
    """Highest score of a validation."""

    def loader(
        self, training_set: TrainingSet, options: TrainingOptions, rank: int, world_size: int
    ) -> Loader:
        """The samples of a process, from where the run goes on."""
        section, device = options.datasets.train, self.model.flow.mean.device
        return Loader(
            training_set,
            batch_size=section.batch_size_per_gpu,
            seed=self.seed,
            start=self.samples,
            rank=rank,
            world_size=world_size,
            accumulation=options.train.gradient_accumulation_steps,
            shuffle=section.use_shuffle,
            workers=section.num_worker_per_gpu,
            device=device,
            on_device=samples_on_device(section, device),
        )

    def make_capturable(self) -> None:
        """Let the optimiser do all that it does on a GPU, at fixed addresses, as CUDA graphs want.

        It must not have begun. What is saved is the same, and either kind takes over the other's.
        """
        for group in self.optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.tensor(group["lr"], device=self.model.flow.mean.device)
        # The first steps are made without graphs, of which PyTorch would warn.
        self.optimizer._warned_capturable_if_run_uncaptured = True  # pyright: ignore[reportAttributeAccessIssue]

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the network's groups of parameters."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def update_average(self, decay: float) -> None:
        """Average ← decay · average + (1 − decay) · model, from the first weights on (BasicSR)."""
        means: list[torch.Tensor] = list(self.average.parameters())
        values: list[torch.Tensor] = list(self.model.parameters())
        get_ema_multi_avg_fn(decay)(means, values, 0)

    def require_finite(self) -> None:
        """See that all weights can be used.

        Raises:
            TrainingError: a weight is not finite.
        """
        models = (self.model, *(adversary.model for adversary in self.adversaries))
        if not all(p.isfinite().all() for model in models for p in model.parameters()):
            raise TrainingError(
                f"weights are not finite after step {self.step}; what was saved last is as it was."
                " Go on from it with a lower learning rate"
            )

    def save(self, path: Path) -> None:
        """Write beside, then rename: a kill at any moment leaves the old file or the new one.

        Raises:
            OutputError: the operating system refuses; the old file stays.
        """
        tree: dict[str, Any] = {
            "step": self.step,
            "samples": self.samples,
            "seed": self.seed,
            "nonfinite": self.nonfinite,
            "best": self.best,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.adversaries:
            tree["discriminators"] = {a.name: a.state_dict() for a in self.adversaries}
        with complete_file(path) as file:
            torch.save(tree, file)

    def load(self, path: Path) -> None:
        """Take over a saved state, with its seed; how the optimiser works stays as it is.

        Raises:
            WeightsError: the file is missing, damaged or belongs to another network.
        """
        try:
            tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(tree["model"])
            self.average.load_state_dict(tree["average"])
            load_averages(self.optimizer, tree["optimizer"])
            if tree["scaler"]:  # empty if the run was not in float16 so far
                self.scaler.load_state_dict(tree["scaler"])
            self.seed, self.step, self.samples = tree["seed"], tree["step"], tree["samples"]
            self.nonfinite, self.best = tree["nonfinite"], tree["best"]
            saved = tree.get("discriminators", {})
            for adversary in self.adversaries:
                adversary.seed = self.seed
                if adversary.name in saved:  # else the run was without it so far
                    adversary.load_state_dict(saved[adversary.name])
        except Exception as error:  # torch raises many kinds for damaged files
            reason = first_line(error).rstrip(":")
            raise WeightsError(
                f"cannot resume from '{path}': {reason}. It must be a state saved by this run, with"
                " the same network; move it away to start anew"
            ) from error


def samples_on_device(section: TrainingSetOptions, device: torch.device) -> bool:
    """Whether a device computes samples of the training set; only those of scenes can be.

    Raises:
        OptionsError: it is asked for, and the device cannot.
    """
    if not isinstance(section, SceneOptions):
        return False
    if section.samples_on_device == "auto":
        return device.type == "cuda"
    if section.samples_on_device and device.type == "mps":
        raise OptionsError(
            "datasets.train.samples_on_device: MPS has no float64, which low resolution is "
            "computed in. Set it to false, or to auto"
        )
    return section.samples_on_device


def new_state(model: IART, options: TrainingOptions, precision: torch.dtype) -> TrainState:
    """The state before the first step of a model that is on its device."""
    rest = [p for name, p in model.named_parameters() if not name.startswith("flow.")]
    groups = [{"params": rest}, {"params": list(model.flow.parameters())}]
    optimizer = options.train.optim_g.optimizer(groups)
    scaler = torch.amp.GradScaler(model.flow.mean.device.type, enabled=precision == torch.float16)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    adversaries = new_adversaries(options, model.flow, precision)
    return TrainState(model, average, optimizer, scaler, options.manual_seed, adversaries)


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
        self.pictures, self.preview = self.path / "visualization", self.path / "preview"
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

    def changes(self, options: TrainingOptions, state: TrainState) -> list[str]:
        """Lines about options that differ from those of the last start; these are kept from now on.

        Args:
            options: of this start.
            state: that the run goes on from.

        Raises:
            OutputError: the operating system refuses.
        """
        path, new = self.path / "options.json", _flat(options.model_dump(mode="json"))
        try:
            old: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError):  # none yet
            old = new
        with complete_file(path) as file:
            file.write(json.dumps(new, indent=1).encode())
        changed = [
            f"{key} {json.dumps(old.get(key))} → {json.dumps(new.get(key))}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        lines, total = [], options.train.total_iter
        if changed:
            lines.append(f"options that changed since the last start: {'; '.join(changed)}")
        if changed and state.step >= total:
            lines.append(
                f"the run is finished (step {state.step} of {total}): changed options have no "
                "effect; raise train.total_iter, or give the run another name"
            )
        elif options.manual_seed != state.seed:
            lines.append(
                f"manual_seed {options.manual_seed} has no effect: the run keeps the seed with "
                f"which it began, {state.seed}"
            )
        return lines

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

    def save_batches(
        self, label: str, step: int, losses: Sequence[float], batches: Sequence[Batch]
    ) -> Path:
        """Keep what made a step not finite: of every micro-batch loss, clips, crops and pictures.

        The file opens with `torch.load(path, weights_only=True)`.
        """
        path = self.path / f"nonfinite-{label}.pt"
        parts = [
            {
                "loss": loss,
                "origins": [asdict(origin) for origin in batch.origins],
                "lq": batch.lq.cpu(),
                "gt": batch.gt.cpu(),
            }
            for loss, batch in zip(losses, batches, strict=True)
        ]
        with complete_file(path) as file:
            torch.save({"step": step, "batches": parts}, file)
        return path


def save_weights(state: TrainState, path: Path) -> None:
    """Write weights: both kinds in the published layout, the smoothed ones in ours."""
    if path.suffix == ".safetensors":
        save_model(state.average, path, metadata={"step": str(state.step)})
        return
    both = {"params": _on_cpu(state.model), "params_ema": _on_cpu(state.average)}
    with complete_file(path) as file:
        torch.save(both, file)


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Values of nested sections by their places, `train.optim_g.lr`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = _flat(value) if isinstance(value, dict) and value else None
        flat |= {key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()}
    return flat


def _on_cpu(model: IART) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in to_published(model).items()}


def _step(path: Path) -> int:
    """The step in a file's name, −1 if there is none."""
    found = re.fullmatch(r"(?:net_g_)?(\d+)\.(?:state|pth|safetensors)", path.name)
    return int(found[1]) if found else -1
