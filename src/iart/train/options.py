"""Training options: YAML in BasicSR's vocabulary, read strictly.

An override is `place.in.the.file=value`, the value in YAML: `train.total_iter=1000`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from iart.errors import OptionsError
from iart.model import IARTConfig
from iart.model.upsample import SCALE

Share = Annotated[float, Field(ge=0, le=1)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkOptions(_Options):
    """Sizes of the network; see `IARTConfig`."""

    type: Literal["IART"] = "IART"
    embed_dim: int = 120
    mid_channels: int = 64
    head_channels: int = 64
    flow_channels: tuple[int, ...] = (32, 64, 32, 16)
    flow_levels: int = 6
    depths: tuple[int, ...] = (6, 6, 6)
    num_heads: tuple[int, ...] = (6, 6, 6)
    window_size: tuple[int, int, int] = (3, 8, 8)
    branches: int = 4
    spynet_path: Path | None = None
    """Weights of a whole network whose flow is taken over; null: taught from nothing."""
    drop_path_rate: float = 0.1

    def config(self) -> IARTConfig:
        """The network's own configuration."""
        return IARTConfig(
            channels=self.embed_dim,
            mid_channels=self.mid_channels,
            head_channels=self.head_channels,
            flow_channels=self.flow_channels,
            flow_levels=self.flow_levels,
            depths=self.depths,
            heads=self.num_heads,
            window=self.window_size,
            branches=self.branches,
            drop_path=self.drop_path_rate,
        )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "NetworkOptions":
        self.config()
        return self


class SceneOptions(_Options):
    """Folders of frames and videos, reduced by a random factor before they are ground truth."""

    dataroot_gt: Path
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    num_frame: PositiveInt = 5
    gt_size: Annotated[int, Field(gt=0, multiple_of=SCALE)] = 128
    reduce: tuple[float, float] = (1.7, 2.4)
    """Range of the factor by which sources are reduced: 2 hides the compression of a DVD."""
    still_share: Share = 0.25
    """Share of clips made from stills by synthetic camera motion."""
    batch_size_per_gpu: PositiveInt = 4

    @model_validator(mode="after")
    def _range_ascends(self) -> "SceneOptions":
        if not 1 <= self.reduce[0] <= self.reduce[1]:
            raise ValueError(f"reduce must be two factors, 1 ≤ low ≤ high, got {self.reduce}")
        return self


class DatasetsOptions(_Options):
    """Scenes to learn from and scenes to watch."""

    train: SceneOptions
    val: SceneOptions


class FlowOptions(_Options):
    """The flow network is taught first, on synthetic motion whose flow is known."""

    total_iter: NonNegativeInt
    lr: PositiveFloat
    size: PositiveInt = 48
    """Side of the pictures; the pyramid must divide it."""
    batch_size_per_gpu: PositiveInt = 8
    max_shift: NonNegativeFloat = 8.0
    """Fastest shift of a layer, pixels per frame."""
    reduced_share: float = 0.2
    """Share of the pairs that move at full size and are reduced afterwards."""


class OptimOptions(_Options):
    """Adam."""

    type: Literal["Adam"] = "Adam"
    lr: PositiveFloat
    betas: tuple[Share, Share] = (0.9, 0.99)
    flow_lr_mul: NonNegativeFloat = 0.25


class TrainOptions(_Options):
    """Lengths and rates."""

    total_iter: NonNegativeInt
    warmup_iter: NonNegativeInt = 200
    eta_min: NonNegativeFloat = 1e-7
    ema_decay: Share = 0.999
    optim_g: OptimOptions
    flow: FlowOptions


class ValOptions(_Options):
    """How often the held-out scenes are scored."""

    val_freq: PositiveInt = 500


class LoggerOptions(_Options):
    """How often a line is written and the state is saved."""

    print_freq: PositiveInt = 50
    save_checkpoint_minutes: NonNegativeFloat = 3.0


class Options(_Options):
    """One training run; its files go to `experiments/<name>`."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    manual_seed: NonNegativeInt = 0
    num_threads: PositiveInt | None = None
    network_g: NetworkOptions
    datasets: DatasetsOptions
    train: TrainOptions
    val: ValOptions = Field(default_factory=ValOptions)
    logger: LoggerOptions = Field(default_factory=LoggerOptions)

    @model_validator(mode="after")
    def _flow_pyramid_fits(self) -> "Options":
        flow = self.train.flow
        multiple = 2 ** (self.network_g.flow_levels - 1)
        if flow.total_iter and (flow.size % multiple or flow.size < 2 * multiple):
            raise ValueError(
                f"train.flow.size ({flow.size}) must be a multiple of {multiple}, at least "
                f"{2 * multiple}, for {self.network_g.flow_levels} levels of flow"
            )
        return self


def read_options(path: Path, overrides: tuple[str, ...] = ()) -> Options:
    """Read an option file and apply overrides.

    Raises:
        OptionsError: not readable, not YAML, an unknown key or a value that does not fit.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionsError(f"cannot read option file '{path}': {_line(error)}") from error
    if not isinstance(tree, dict):
        raise OptionsError(f"option file '{path}' holds no options (expected `key: value` lines)")
    for override in overrides:
        _apply(tree, override)
    try:
        return Options.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}." for part in first["loc"])[:-1] or "options"
        came = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        text = first["msg"].removeprefix("Value error, ")
        raise OptionsError(f"'{path}': {place}: {text}{came}") from error


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())


def _apply(tree: dict[str, Any], override: str) -> None:
    place, equals, value = override.partition("=")
    if not equals or not place:
        raise OptionsError(
            f"override '{override}' has no place or no '=': expected place.in.file=value"
        )
    *parents, key = place.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise OptionsError(f"override '{override}': '{parent}' is a value, not a section")
    try:
        node[key] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise OptionsError(f"override '{override}' has no valid value: {_line(error)}") from error
