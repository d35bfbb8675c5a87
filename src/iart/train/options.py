"""Training options: YAML in BasicSR's vocabulary, read strictly.

An override is `place.in.the.file=value`, the value in YAML: `train.total_iter=1000`.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
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
from iart.train.section import FilePath, Section, null_is
from iart.train.vocabulary import PATH, TOP, VAL

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
    metrics: Annotated[dict[str, MetricOptions], null_is({}, dict[str, MetricOptions])] = Field(
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
    wandb: Annotated[WandbOptions, null_is({}, WandbOptions)] = Field(default_factory=WandbOptions)
    """Log to Weights & Biases as well."""


class Options(Section):
    """One training run; its files go to `experiments/<name>`."""

    known: ClassVar = TOP

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Name of the run and of its folder."""
    scale: Literal[4] = SCALE
    """Enlargement in each direction; IART's is 4."""
    model_type: Literal[
        "RecurrentMixPrecisionRTModel", "VideoRecurrentModel", "VideoBaseModel", "SRModel"
    ] = "VideoRecurrentModel"
    """BasicSR's name of the way of training. Of RecurrentMixPrecisionRTModel's files, which do not
    say so, train.half_precision is true."""
    num_gpu: NonNegativeInt | Literal["auto"] = "auto"
    """Devices that the recipe was made for, 0 for the CPU; auto: all there are."""
    manual_seed: Annotated[NonNegativeInt, null_is(0, int)] = 0
    """Start of all random numbers; null: 0."""
    num_threads: PositiveInt | None = None
    """Threads of the CPU; null: as torch finds best (ours)."""
    network_g: NetworkOptions
    """The network."""
    datasets: DatasetsOptions
    """Clips."""
    path: Annotated[PathOptions, null_is({}, PathOptions)] = Field(default_factory=PathOptions)
    """Weights to start from."""
    train: TrainOptions
    """The recipe."""
    val: Annotated[ValOptions, null_is({"val_freq": 0}, ValOptions)] = Field(
        default_factory=ValOptions
    )
    """Validation."""
    logger: Annotated[LoggerOptions, null_is({}, LoggerOptions)] = Field(
        default_factory=LoggerOptions
    )
    """Logs and checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _mixed_precision(cls, tree: Any) -> Any:
        if isinstance(tree, Mapping) and tree.get("model_type") == "RecurrentMixPrecisionRTModel":
            train = tree.get("train")
            if isinstance(train, Mapping) and not {"precision", "half_precision"} & train.keys():
                return {**tree, "train": {**train, "half_precision": True}}
        return tree

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


def obstacles(options: Options) -> list[str]:
    """What a new run starts from and is not there: files of weights, scenes for lessons.

    Returns:
        A line for each: its place, its name, and what can be done without it.
    """
    pretrained, flow = options.path.pretrain_network_g, options.network_g.spynet_path
    wanted = [
        ("path.pretrain_network_g", pretrained, "path.pretrain_network_g=null (from nothing)"),
        ("path.resume_state", options.path.resume_state, "path.resume_state=null"),
    ]
    if pretrained is None:  # which has a flow network of its own
        without = "network_g.spynet_path=null (our own flow weights)"
        wanted.append(("network_g.spynet_path", flow, without))
    lines = []
    if (perceptual := options.train.perceptual_opt) is not None:
        without = "train.perceptual_opt=null"
        wanted.append(("train.perceptual_opt.weights", perceptual.weights, without))
        if perceptual.weights is None:
            lines.append(
                "train.perceptual_opt.weights is missing: name a file of VGG-19's weights in "
                f"torchvision's layout, or pass {without}"
            )
    own_flow = pretrained is None and flow is None
    if options.train.flow and own_flow and not isinstance(options.datasets.train, SceneOptions):
        lines.append(
            "train.flow teaches on scenes, which datasets.train.type=SceneDataset has. Set "
            "train.flow=null, or network_g.spynet_path to a file"
        )
    return lines + [
        f"{place}: there is no file '{path}'. Name it, or pass {without}"
        for place, path, without in wanted
        if path is not None and not path.is_file()
    ]


def require_files(options: Options) -> None:
    """See that all is there that a new run starts from; one that goes on needs nothing of it.

    Raises:
        OptionsError: something is missing; says what can be done without it.
    """
    for line in obstacles(options):
        raise OptionsError(line)


def batch_warning(options: Options, devices: int) -> str | None:
    """What fewer devices than `num_gpu` mean for the batch, and how to restore it; or None."""
    if options.num_gpu == "auto" or devices >= options.num_gpu:
        return None
    steps = options.train.gradient_accumulation_steps
    each = options.datasets.train.batch_size_per_gpu * steps
    published, actual = options.num_gpu * each, devices * each
    restoring = math.ceil(options.num_gpu * steps / devices)
    restored = devices * options.datasets.train.batch_size_per_gpu * restoring
    return (
        f"the recipe is for num_gpu: {options.num_gpu} and this run has {devices}, so a step has "
        f"{actual} samples instead of {published}; "
        f"train.gradient_accumulation_steps={restoring} makes it {restored}"
    )


def write_schema(path: Path) -> None:
    """Write the JSON schema that editors complete and check option files by."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Options.model_json_schema(mode="validation")
    path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
