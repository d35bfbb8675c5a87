"""One training run, from an option file to weights. Read `train` first, then `_Run.learn`.

The same command goes on where the last one stopped: the folder of the run holds its last states
(`iart.train.state`), and all random choices follow from the seed and the number of samples used.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.loader import Batch
from iart.data.samples import TrainingSet
from iart.data.scenes import SceneSet
from iart.data.sets import open_training_set
from iart.device import pick_device
from iart.errors import TrainingError
from iart.train.adversary import learn
from iart.train.captured import CapturedUpdate, obstacle
from iart.train.check import batch_warning, require_files
from iart.train.flow_lessons import teach_flow
from iart.train.initial_weights import new_network
from iart.train.log import Log, opened_log
from iart.train.options.run import TrainingOptions
from iart.train.pictures import TrainingPreview, save_high_loss
from iart.train.processes import StopSignals, choose_precision, connected, gathered, stop_signals
from iart.train.state import RunFolder, new_state, samples_on_device
from iart.train.step import Objective, Update, inputs_of
from iart.train.validate import Watched, main_score, open_watched, validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule

_log = logging.getLogger(__name__)


def train(
    options: TrainingOptions,
    *,
    device: str = "auto",
    devices: int | None = None,
    max_minutes: float | None = None,
    preview_every: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train until `total_iter`, a signal or `max_minutes`; returns the folder of the run.

    With several devices this runs in as many processes, of which the first reports and saves.

    Args:
        options: see `iart.train.options.read.read_options`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        devices: processes on this machine, see `iart.train.processes`.
        max_minutes: save and return after so long.
        preview_every: steps between pictures of validation crops, see `iart.train.pictures`.
        report: takes lines for the user.

    Raises:
        OptionsError: options that do not go together, or name a file that is not there.
        DataError: training data is missing or does not fit, or too many samples fail.
        TrainingError: the loss or a weight is not finite.
        WeightsError: a state or weights to start from cannot be used.
        DeviceError: a device is missing or cannot compute in the precision.
        MissingExtraError: a library for training is not installed.
        KeyboardInterrupt: a signal asked to stop; all is saved.
    """
    ends = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    folder = RunFolder(
        options.name, options.network_g.config(), keep=options.logger.keep_checkpoints
    )
    if options.path.resume_state is not None or folder.latest_state() is None:
        require_files(options)
    place = pick_device(device)
    precision = choose_precision(options.train, place)
    # What can be wrong with the data is said before other processes are started.
    samples_on_device(options.datasets.train, place)
    training_set, watched = open_training_set(options.datasets.train), open_watched(options)
    preview = TrainingPreview(options, folder.preview, preview_every) if preview_every else None
    with connected(options, place, devices) as fabric, stop_signals() as stop:
        run = _Run(options, folder, fabric, precision, stop, ends)
        own = options, run.folder.path, run.state.step, report
        with opened_log(*own, main=run.main) as log:
            run.say_what_is_special(log)
            if run.teach(training_set, log):
                run.learn(training_set, watched, preview, log)
                log.note(f"weights: {run.folder.weights(run.state.step)}")
        fabric.barrier()
    if stop.received and run.main:
        raise KeyboardInterrupt
    return run.folder.path


class _Run:
    """A run on this process: its network and state, and what connects it to the others."""

    def __init__(
        self,
        options: TrainingOptions,
        folder: RunFolder,
        fabric: "Fabric",
        precision: torch.dtype,
        stop: StopSignals,
        ends: float,
    ) -> None:
        """Begin, or go on.

        Args:
            options: of the run.
            folder: of the run.
            fabric: of its processes.
            precision: that features are computed in.
            stop: asks to stop.
            ends: time (`time.monotonic`) at which the run stops.
        """
        self.options, self.folder, self.fabric = options, folder, fabric
        self.precision, self.stop, self.ends = precision, stop, ends
        self.main = fabric.is_global_zero
        if self.main:
            self.folder.prepare()
        own = options.path.resume_state or self.folder.latest_state()
        self.resumed: Path | None = fabric.broadcast(own)
        self.model = new_network(options, resumed=self.resumed is not None).to(fabric.device)
        self.model.backend = "auto"
        self.state = new_state(self.model, options, precision)
        self.obstacle = obstacle(options, self.state, fabric.device, fabric.world_size)
        if self.obstacle is None:
            self.state.make_capturable()
        if self.resumed is not None:
            self.state.load(self.resumed)

    def say_what_is_special(self, log: Log) -> None:
        """Say what the run goes on from, and what its batch is if it is not the recipe's."""
        changes = self.folder.changes(self.options, self.state) if self.main else []
        if self.resumed is not None:
            log.note(f"goes on from '{self.resumed}'")
            for line in changes:
                log.note(line)
        if (warning := batch_warning(self.options, self.fabric.world_size)) is not None:
            log.note(warning)

    def shared(self, *values: Tensor) -> tuple[list[float], bool]:
        """Means of numbers over all processes, and whether one of these is to stop."""
        ends = self.stop.received or (self.main and time.monotonic() >= self.ends)
        row = torch.stack([*values, torch.tensor(float(ends), device=self.fabric.device)])
        *means, ended = self.fabric.all_reduce(row, reduce_op="mean").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        return means, ended > 0

    # ---- flow

    def teach(self, training_set: TrainingSet, log: Log) -> bool:
        """Teach a new flow network first, if that is asked for; returns whether it is ready."""
        lessons = self.options.train.flow
        given = self.options.network_g.spynet_path or self.options.path.pretrain_network_g
        if lessons is None or given is not None or self.resumed is not None:
            return True
        assert isinstance(training_set, SceneSet)  # see `require_files`
        ready = teach_flow(
            self.model.flow,
            training_set.scenes,
            lessons,
            self.state.seed,
            self.folder.lessons,
            log,
            main=self.main,
            stopped=lambda: self.shared()[1],
        )
        self.state.average.load_state_dict(self.model.state_dict())
        return ready

    # ---- the whole network

    def learn(
        self,
        training_set: TrainingSet,
        watched: list[Watched],
        preview: TrainingPreview | None,
        log: Log,
    ) -> None:
        """The loop."""
        options, recipe, state = self.options, self.options.train, self.state
        if recipe.flow_lr_mul == 0:  # flow never moves: its gradient is not needed
            self.model.flow.requires_grad_(False)
        network = self.fabric.setup_module(self.model)
        objective = Objective(recipe, self.fabric.device, self.model.flow, state.adversaries)
        update = Update(network, objective, state, options, self.precision, self.fabric.backward)
        update = CapturedUpdate(update, state, self.fabric.device, self.obstacle, log.note)
        bases = (recipe.optim_g.lr, recipe.optim_g.lr * recipe.flow_lr_mul)
        preview = preview if self.main else None
        if preview is not None:
            preview.save(state.average, state.step, self.precision)
        saved_step, saved_at, ended = state.step if self.resumed else -1, time.monotonic(), False
        loader = state.loader(
            training_set, options, self.fabric.global_rank, self.fabric.world_size
        )
        with loader, update.stream():
            batches = iter(loader)
            while state.step < recipe.total_iter and not ended:
                # Rates are functions of the step alone: there is no scheduler to resume.
                rates = [recipe.learning_rate(state.step, base) for base in bases]
                state.set_rates(rates)
                used, losses, terms, norm = self.add_gradients(network, update, batches)

                # Here all processes learn of all losses, so that they decide alike what follows.
                means, ended = self.shared(losses.mean(), norm, *terms.values())
                loss, length, *parts = means
                by_name = dict(zip(terms, parts, strict=True))
                # float16 has infinite gradients now and then: its scaler leaves those steps out.
                scaled = state.scaler.is_enabled()
                if all(map(math.isfinite, (loss, *parts) if scaled else means)):
                    update.move()
                else:
                    self.refuse(loss, by_name, losses, used)
                    update.leave_out()

                samples = sum(len(batch.origins) for batch in used) * self.fabric.world_size
                state.step += 1
                state.samples += samples
                waited = sum(batch.wait_seconds for batch in used)
                numbers = state.step, loss, rates[0], length
                log.step(*numbers, samples=samples, waited=waited, terms=by_name)

                every, last = options.val.val_freq, state.step == recipe.total_iter
                if watched and (last or state.step % every == 0):
                    update.release()  # for the memory
                    self.validate(watched, log)
                if preview is not None:
                    preview.save(state.average, state.step, self.precision, last=last)
                minutes = (time.monotonic() - saved_at) / 60
                freq = options.logger.save_checkpoint_freq
                due = freq is not None and state.step % freq == 0
                if due or minutes > options.logger.save_checkpoint_minutes:
                    self.save()
                    saved_step, saved_at = state.step, time.monotonic()
        if saved_step != state.step:
            self.save()

    def add_gradients(
        self, network: "_FabricModule", update: CapturedUpdate, batches: Iterator[Batch]
    ) -> tuple[list[Batch], Float[Tensor, " micro"], dict[str, Tensor], Float[Tensor, ""]]:
        """Gradients of a step's micro-batches.

        Returns:
            The micro-batches, their losses, the mean of each kind of loss, and the length of the
            gradient, on this process.
        """
        count, device = self.options.train.gradient_accumulation_steps, self.fabric.device
        used: list[Batch] = []
        losses: list[Tensor] = []
        means: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        norm, state = torch.zeros((), device=device), self.state
        for batch in islice(batches, count):
            first, last = not used, len(used) + 1 == count
            used.append(batch)
            inputs = inputs_of(batch, self.model.config, state.seed, device)
            # Gradients are exchanged once a step, with the last micro-batch.
            with self.fabric.no_backward_sync(network, enabled=not last):
                learnt = update.gradients(inputs, first=first, last=last)
            norm = learnt.norm
            losses.append(learnt.loss)
            if self.main and self.options.train.is_high(learnt.loss.item):
                folder = self.folder.pictures / "high_loss"
                save_high_loss(folder, state.step, batch.lq, learnt.output, inputs.gt)
            indices = [origin.index for origin in batch.origins]
            terms = learnt.terms | learn(
                state.adversaries, learnt.output, inputs.gt, indices, state.step, self.options
            )
            for name, term in terms.items():
                means[name] += term.detach() / count
        for adversary in state.adversaries:
            adversary.share()
        return used, torch.stack(losses), means, norm

    def refuse(
        self,
        loss: float,
        parts: dict[str, float],
        losses: Float[Tensor, " micro"],
        used: list[Batch],
    ) -> None:
        """Leave out a step that is not finite, or end the run; what caused it is kept in files.

        Args:
            loss: the mean over all processes.
            parts: each kind of loss, as a mean over all processes, discriminators' own too.
            losses: of this process's micro-batches.
            used: these.

        Raises:
            TrainingError: `on_nonfinite` is to stop, or its limit is reached.
        """
        recipe, state, own = self.options.train, self.state, losses.tolist()
        cause = ""
        # Of the process whose loss it is; if only the gradient is not finite, of all.
        if math.isfinite(loss) or not all(map(math.isfinite, own)):
            rank = f"-process{self.fabric.global_rank}" if self.fabric.world_size > 1 else ""
            path = self.folder.save_batches(f"step{state.step}{rank}", state.step, own, used)
            cause = (
                f"'{path}' has the batch ({'; '.join(o.place() for b in used for o in b.origins)})"
            )
        causes = "; ".join(filter(None, gathered(cause)))
        named = {"loss": loss, **{f"loss/{name}": value for name, value in parts.items()}}
        broken = [f"{name} is {x}" for name, x in named.items() if not math.isfinite(x)]
        what = ", ".join(broken) or "the gradient is not finite"
        state.nonfinite += 1
        if recipe.on_nonfinite == "skip" and state.nonfinite <= recipe.nonfinite_limit:
            if self.main:
                _log.warning("%s at step %d, left out: %s", what, state.step, causes)
            return
        if not self.main:  # the first process speaks for all
            raise SystemExit(1)
        count = "" if recipe.on_nonfinite == "stop" else f" ({state.nonfinite} such steps)"
        raise TrainingError(
            f"{what} at step {state.step}{count}: {causes}. '{self.folder.path}' is as it was saved"
            " last: go on from it with a lower learning rate, or leave such steps out with "
            "train.on_nonfinite=skip"
        )

    def validate(self, watched: list[Watched], log: Log) -> None:
        """Score the averaged weights, and keep them if they are the best."""
        state = self.state
        scores = validate(
            state.average,
            watched,
            self.options.val,
            self.precision,
            self.fabric,
            self.folder.pictures,
        )
        log.scores(state.step, scores, self.folder.pictures)
        if (best := main_score(scores)) > state.best:
            state.best = best
            if self.main:
                self.folder.save_best(state)

    def save(self) -> None:
        """Save, on the first process."""
        if self.main:
            self.folder.save(self.state)
