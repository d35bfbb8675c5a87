"""What a run says of itself: lines, `log.jsonl`, TensorBoard, Weights & Biases, a learning curve.

All of it from the first process alone; the others hold a log that says nothing.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np
from PIL import Image

from iart.errors import MissingExtraError
from iart.files.complete import complete_file, writing
from iart.reports.charts import chart_file, lines_chart
from iart.train.options.run import TrainingOptions

ID_FILE = "wandb_id.txt"
DRAWN = 300
"""Points of a curve, at most; means of neighbours where there are more."""


@contextmanager
def opened_log(
    options: TrainingOptions,
    folder: Path,
    step: int,
    report: Callable[[str], None],
    *,
    main: bool,
) -> Iterator["Log"]:
    """A log of the run that lasts as long as the block; at its end the curves are drawn.

    Args:
        options: of the run.
        folder: of the run.
        step: that the run goes on from.
        report: takes lines for the user.
        main: whether this is the first process; logs of others say nothing.

    Raises:
        OutputError: the operating system refuses.
        MissingExtraError: TensorBoard or Weights & Biases is asked for and not installed.
    """
    path, log = folder / "log.jsonl", Log(options, step, report if main else lambda line: None)
    with ExitStack() as stack:
        if main:
            with writing(path):
                log.file = path.open("a", encoding="utf-8")
            stack.callback(draw_curves, path, folder / "curve.svg")
            stack.enter_context(log.file)
            if options.logger.use_tb_logger:
                log.tensorboard = stack.enter_context(_tensorboard(folder / "tensorboard", step))
            if options.logger.wandb.project:
                log.wandb = run = _wandb(options, folder)
                stack.push(lambda kind, *_: run.finish(exit_code=0 if kind is None else 1))
        yield log


class Log:
    """Collects steps and says every `logger.print_freq` of them what they were like on average.

    Attributes:
        file: of one JSON object a line; None on processes that say nothing.
        tensorboard: its writer, if it is asked for.
        wandb: the run at Weights & Biases, if it is asked for.
    """

    def __init__(self, options: TrainingOptions, step: int, report: Callable[[str], None]) -> None:
        """See `opened_log`."""
        self._options, self._report = options, report
        self.file: TextIO | None = None
        self.tensorboard = self.wandb = None
        self._began, self._first = time.monotonic(), step
        self._restart()

    def note(self, text: str) -> None:
        """A line for the user alone."""
        self._report(text)

    def step(
        self,
        step: int,
        loss: float,
        rate: float,
        norm: float,
        *,
        samples: int,
        waited: float,
        terms: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Take in a step that is done.

        Args:
            step: its number, from 1.
            loss: mean over all samples of it.
            rate: learning rate of all but the flow network.
            norm: length of the gradient before it was limited.
            samples: that it used on all processes.
            waited: seconds for which it waited for data.
            terms: weighted losses by their names; of several, each is logged apart.
        """
        self._losses.append(loss)
        self._samples += samples
        self._waited += waited
        if len(terms) > 1:
            for name, term in terms.items():
                self._terms.setdefault(name, []).append(term)
        if step % self._options.logger.print_freq:
            return
        seconds, now = time.monotonic() - self._since, time.monotonic()
        entry = {
            "step": step,
            "loss": float(np.mean(self._losses)),
            "lr": rate,
            "gradient_norm": norm,
            "samples_per_second": self._samples / seconds,
            "data_wait_share": self._waited / seconds,
            "minutes": (now - self._began) / 60,
            **{f"loss/{name}": float(np.mean(values)) for name, values in self._terms.items()},
        }
        total = self._options.train.total_iter
        left = (total - step) * (now - self._began) / (step - self._first)
        self._report(
            f"step {step} of {total}  loss {entry['loss']:.5f}  lr {rate:.2e}  "
            f"{entry['samples_per_second']:.3g} samples/s  "
            f"data {entry['data_wait_share']:.0%}  {timedelta(seconds=round(left))} left"
        )
        self._entry(entry)
        self._restart()

    def lesson(self, step: int, total: int, error: float) -> None:
        """Take in the mean error of flow, in pixels, of the lessons since the last time."""
        self._report(f"flow: step {step} of {total}  error {error:.4f} pixels")
        self._entry({"flow_step": step, "flow_error": error})

    def scores(self, step: int, scores: Mapping[str, float], pictures: Path) -> None:
        """Take in a validation: `set/metric` → score, and the folder of its pictures."""
        if self.file is None:
            return
        words = "  ".join(f"{name} {score:.4g}" for name, score in scores.items())
        self._report(f"step {step}  {words}")
        self._entry({"step": step, **{f"val/{name}": score for name, score in scores.items()}})
        if self.tensorboard is not None:
            for path in sorted(pictures.glob("*/*.png")):
                with Image.open(path) as image:
                    tag = path.relative_to(pictures).with_suffix("").as_posix()
                    self.tensorboard.add_image(tag, np.asarray(image), step, dataformats="HWC")

    def _entry(self, entry: Mapping[str, Any]) -> None:
        """Write numbers of a step everywhere but to the user."""
        if self.file is None:
            return
        rounded = {name: _finite(value) for name, value in entry.items()}
        with writing(Path(self.file.name)):
            self.file.write(json.dumps(rounded) + "\n")
            self.file.flush()
        if "step" not in entry:  # a lesson, before step 0
            return
        numbers = {name: value for name, value in entry.items() if name not in ("step", "minutes")}
        if self.tensorboard is not None:
            for name, value in numbers.items():
                self.tensorboard.add_scalar(name, value, entry["step"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=entry["step"])

    def _restart(self) -> None:
        self._losses: list[float] = []
        self._terms: dict[str, list[float]] = {}
        self._samples, self._waited, self._since = 0, 0.0, time.monotonic()


def _finite(value: float | int) -> float | int | None:
    """Six digits; JSON has no infinity."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "logger.use_tb_logger needs TensorBoard: pip install 'iart-vsr[train]'"
        ) from error
    # What a stopped run wrote after its last save is passed over.
    return SummaryWriter(str(folder), purge_step=step + 1)


def _wandb(options: TrainingOptions, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            "logger.wandb.project needs Weights & Biases: pip install wandb"
        ) from error
    kept = folder / ID_FILE
    chosen = options.logger.wandb.resume_id
    if chosen is None and kept.exists():
        chosen = kept.read_text(encoding="utf-8").strip()
    run = wandb.init(
        project=options.logger.wandb.project,
        name=options.name,
        id=chosen,
        resume="allow",
        dir=folder,
        config=options.model_dump(mode="json"),
    )
    kept.write_text(run.id, encoding="utf-8")
    return run


def read_curves(log: Path) -> dict[str, dict[int, float]]:
    """Values by step of the loss ("loss") and of PSNR ("val/set/psnr"), in order.

    What was done again after a stop counts once.
    """
    curves: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        for name, value in entry.items():
            if (name == "loss" or "psnr" in name) and value is not None:
                curves.setdefault(name, {})[entry["step"]] = value
    return {name: dict(sorted(points.items())) for name, points in curves.items()}


def draw_curves(log: Path, target: Path) -> None:
    """Draw what a log holds as SVG: the loss above, PSNR of validations below.

    Nothing is drawn of what has fewer than two points.

    Raises:
        OutputError: the operating system refuses.
    """
    charts: list[str] = []
    for name, points in sorted(read_curves(log).items()):
        if len(points) < 2:
            continue
        size = -(-len(points) // DRAWN)
        groups = [list(points.items())[i : i + size] for i in range(0, len(points), size)]
        steps, values = zip(*(np.mean(group, axis=0).tolist() for group in groups), strict=True)
        unit = name if name == "loss" else f"dB, {name.removeprefix('val/')}"
        charts.append(
            lines_chart(
                {"": values},
                [f"step {step:.0f}" for step in steps],
                title=f"{name} against steps",
                unit=unit,
                axis="step",
                at=steps,
                logarithmic=name == "loss",
            )
        )
    if charts:
        with complete_file(target) as file:
            file.write(chart_file(charts).encode())
