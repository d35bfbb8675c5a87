"""Training options: YAML in BasicSR's vocabulary, read strictly.

An override is `place.in.the.file=value`, the value in YAML: `train.total_iter=1000`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from iart.errors import OptionsError
from iart.model.upsample import SCALE
from iart.train.data_options import DatasetsOptions, SceneOptions
from iart.train.network_options import NetworkOptions
from iart.train.option_file import read_tree
from iart.train.recipe_options import FlowOptions, TrainOptions
from iart.train.section import FilePath, NullIsEmpty, Section
from iart.train.vocabulary import LOGGER, PATH, TOP, VAL

__all__ = ["FlowOptions", "NetworkOptions", "Options", "SceneOptions", "read_options"]

_log = logging.getLogger(__name__)


class PathOptions(Section):
    """Weights to start from."""

    known: ClassVar = PATH

    pretrain_network_g: FilePath | None = None
    """Weights to start from; null: from nothing."""
    strict_load_g: bool = True
    """Whether those weights must be of the same network, tensor by tensor."""
    param_key_g: Literal["params", "params_ema"] = "params"
    """Which weights of a published file: as trained, or averaged."""
    resume_state: FilePath | None = None
    """State to go on from; null: the run's own, if there is one."""


class MetricOptions(Section):
    """A score of a validated frame."""

    type: Literal["calculate_psnr", "calculate_ssim"]
    """PSNR in dB, or SSIM."""
    crop_border: NonNegativeInt = 0
    """Pixels left out at every edge."""
    test_y_channel: bool = False
    """Score luma (BT.601) instead of RGB."""
    better: Literal["higher"] = "higher"
    """Both scores are better if higher."""


class ValOptions(Section):
    """How often the held-out clips are scored."""

    known: ClassVar = VAL

    val_freq: NonNegativeInt = 5000
    """Steps between scores; 0: none, as when the whole section is null."""
    save_img: bool = False
    """Save every scored frame."""
    metrics: Annotated[dict[str, MetricOptions], NullIsEmpty] = Field(
        default_factory=lambda: {
            "psnr": MetricOptions(type="calculate_psnr"),
            "ssim": MetricOptions(type="calculate_ssim"),
        }
    )
    """Scores by the names under which they are logged."""


class WandbOptions(Section):
    """Weights & Biases."""

    project: str | None = None
    """Project to log to; null: do not."""
    resume_id: str | None = None
    """Run to go on with; null: the one that the run's state names."""


class LoggerOptions(Section):
    """What is written down, and how often."""

    known: ClassVar = LOGGER

    print_freq: PositiveInt = 100
    """Steps between lines."""
    save_checkpoint_freq: PositiveInt | None = None
    """Steps between saves; null: by the clock."""
    save_checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes between saves, besides those by steps (ours)."""
    keep_checkpoints: PositiveInt = 3
    """Checkpoints that are kept, besides the best (ours)."""
    use_tb_logger: bool = False
    """Log to TensorBoard as well."""
    wandb: Annotated[WandbOptions, NullIsEmpty] = Field(default_factory=WandbOptions)
    """Log to Weights & Biases as well."""


def _never(value: Any) -> Any:
    return {"val_freq": 0} if value is None else value


def _zero(value: Any) -> Any:
    return 0 if value is None else value


class Options(Section):
    """One training run; its files go to `experiments/<name>`."""

    known: ClassVar = TOP

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Name of the run and of its folder."""
    scale: Literal[4] = SCALE
    """Enlargement in each direction; IART's is 4."""
    num_gpu: NonNegativeInt | Literal["auto"] = "auto"
    """Devices that the recipe was made for; how many are used, the command says."""
    manual_seed: Annotated[NonNegativeInt, BeforeValidator(_zero)] = 0
    """Start of all random numbers; null: 0."""
    num_threads: PositiveInt | None = None
    """Threads of the CPU; null: as torch finds best (ours)."""
    network_g: NetworkOptions
    """The network."""
    datasets: DatasetsOptions
    """Clips."""
    path: Annotated[PathOptions, NullIsEmpty] = Field(default_factory=PathOptions)
    """Weights to start from."""
    train: TrainOptions
    """The recipe."""
    val: Annotated[ValOptions, BeforeValidator(_never)] = Field(default_factory=ValOptions)
    """Validation."""
    logger: Annotated[LoggerOptions, NullIsEmpty] = Field(default_factory=LoggerOptions)
    """Logs and checkpoints."""

    @model_validator(mode="after")
    def _flow_pyramid_fits(self) -> "Options":
        flow = self.train.flow
        multiple = 2 ** (self.network_g.flow_levels - 1)
        if flow and flow.total_iter and (flow.size % multiple or flow.size < 2 * multiple):
            raise ValueError(
                f"train.flow.size ({flow.size}) must be a multiple of {multiple}, at least "
                f"{2 * multiple}, for {self.network_g.flow_levels} levels of flow"
            )
        return self


def read_options(path: Path, overrides: tuple[str, ...] = ()) -> Options:
    """Read an option file and apply overrides; keys that are not needed are logged.

    Raises:
        OptionsError: not readable, not YAML, an unknown key or a value that does not fit.
    """
    tree = read_tree(path, overrides)
    try:
        options = Options.model_validate(tree)
    except ValidationError as error:
        raise OptionsError(f"'{path}': {_first(error.errors(), tree)}") from error
    for note in options.notes(tree):
        _log.info(note)
    return options


def _first(errors: list[ErrorDetails], tree: dict[str, Any]) -> str:
    """The first error in one line: place, what is wrong, what came."""
    error = errors[0]
    context = error.get("ctx", {})
    place = _place([*error["loc"], *([context["key"]] if "key" in context else [])], tree)
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "union_tag_invalid":
        place, text = f"{place}.type", f"expected one of {context['expected_tags']}"
        return f"{place}: {text} (got '{context['tag']}')"
    if error["type"] == "union_tag_not_found":
        return f"{place}.type: Field required"
    came = "" if isinstance(error["input"], Mapping) else f" (got {error['input']!r})"
    return f"{place}: {text}{came}"


def _place(location: list[int | str], tree: Any) -> str:
    """Where in the file an error is, without the kinds of sections that pydantic adds."""
    parts = []
    for part in location:
        if isinstance(tree, Mapping) and part not in tree and part == tree.get("type"):
            continue
        parts.append(str(part))
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return ".".join(parts) or "options"
