"""What a run says of itself: lines, `log.jsonl`, TensorBoard, Weights & Biases, a learning curve.

All of it from the first process alone; the others hold a log that says nothing.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from PIL import Image

from iart.errors import MissingExtraError
from iart.evaluate.sharing import writing
from iart.train.curve import draw_curve
from iart.train.options import Options

ID_FILE = "wandb_id.txt"


class Log:
    """Collects steps and says every `logger.print_freq` of them what they were like on average."""

    def __init__(
        self,
        options: Options,
        folder: Path,
        step: int,
        report: Callable[[str], None],
        *,
        main: bool,
    ) -> None:
        """Open what is written to.

        Args:
            options: of the run.
            folder: of the run.
            step: that the run goes on from.
            report: takes lines for the user.
            main: whether this is the first process.

        Raises:
            OutputError: the operating system refuses.
            MissingExtraError: TensorBoard or Weights & Biases is asked for and not installed.
        """
        self._options, self._folder, self._main = options, folder, main
        self._report = report if main else _nobody
        self._path = folder / "log.jsonl"
        self._file: TextIO | None = None
        self._tensorboard = self._wandb = None
        if main:
            with writing(self._path):
                self._file = self._path.open("a", encoding="utf-8")
            if options.logger.use_tb_logger:
                self._tensorboard = _tensorboard(folder / "tensorboard", step)
            if options.logger.wandb.project:
                self._wandb = _wandb(options, folder)
        self._began, self._first = time.monotonic(), step
        self._restart()

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            draw_curve(self._path, self._folder / "curve.png")
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)

    def note(self, text: str) -> None:
        """A line for the user alone."""
        self._report(text)

    def step(
        self, step: int, loss: float, rate: float, norm: float, *, samples: int, waited: float
    ) -> None:
        """Take in a step that is done.

        Args:
            step: its number, from 1.
            loss: mean over all samples of it.
            rate: learning rate of all but the flow network.
            norm: length of the gradient before it was limited.
            samples: that it used on all processes.
            waited: seconds for which it waited for data.
        """
        self._losses.append(loss)
        self._samples += samples
        self._waited += waited
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
        if not self._main:
            return
        words = "  ".join(f"{name} {score:.4g}" for name, score in scores.items())
        self._report(f"step {step}  {words}")
        self._entry({"step": step, **{f"val/{name}": score for name, score in scores.items()}})
        if self._tensorboard is not None:
            for path in sorted(pictures.glob("*/*.png")):
                with Image.open(path) as image:
                    tag = path.relative_to(pictures).with_suffix("").as_posix()
                    self._tensorboard.add_image(tag, np.asarray(image), step, dataformats="HWC")

    def _entry(self, entry: Mapping[str, Any]) -> None:
        """Write numbers of a step everywhere but to the user."""
        if self._file is None:
            return
        rounded = {name: _finite(value) for name, value in entry.items()}
        with writing(self._path):
            self._file.write(json.dumps(rounded) + "\n")
            self._file.flush()
        if "step" not in entry:  # a lesson, before step 0
            return
        numbers = {name: value for name, value in entry.items() if name not in ("step", "minutes")}
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, entry["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=entry["step"])

    def _restart(self) -> None:
        self._losses: list[float] = []
        self._samples, self._waited, self._since = 0, 0.0, time.monotonic()


def _nobody(line: str) -> None:
    pass


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


def _wandb(options: Options, folder: Path) -> Any:
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
