"""Training options: YAML in BasicSR's vocabulary, read strictly.

An override is `place.in.the.file=value`, the value in YAML: `train.total_iter=1000`.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iart.errors import OptionsError
from iart.model import IARTConfig


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


class SceneOptions(_Options):
    """Folders of frames and videos, reduced by a random factor before they are ground truth."""

    dataroot_gt: Path
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    num_frame: int = 5
    gt_size: int = 128
    reduce: tuple[float, float] = (1.7, 2.4)
    """Range of the factor by which sources are reduced: 2 hides the compression of a DVD."""
    still_share: float = 0.25
    """Share of clips made from stills by synthetic camera motion."""
    batch_size_per_gpu: int = 4


class DatasetsOptions(_Options):
    """Scenes to learn from and scenes to watch."""

    train: SceneOptions
    val: SceneOptions


class FlowOptions(_Options):
    """The flow network is taught first, on synthetic motion whose flow is known."""

    total_iter: int
    lr: float
    size: int = 48
    """Side of the pictures; the pyramid must divide it."""
    batch_size_per_gpu: int = 8
    max_shift: float = 8.0
    """Fastest shift of a layer, pixels per frame."""


class OptimOptions(_Options):
    """Adam."""

    type: Literal["Adam"] = "Adam"
    lr: float
    betas: tuple[float, float] = (0.9, 0.99)
    flow_lr_mul: float = 0.25


class TrainOptions(_Options):
    """Lengths and rates."""

    total_iter: int
    warmup_iter: int = 200
    eta_min: float = 1e-7
    ema_decay: float = 0.999
    optim_g: OptimOptions
    flow: FlowOptions


class ValOptions(_Options):
    """How often the held-out scenes are scored."""

    val_freq: int = 500


class LoggerOptions(_Options):
    """How often a line is written and the state is saved."""

    print_freq: int = 50
    save_checkpoint_minutes: float = 3.0


class Options(_Options):
    """One training run; its files go to `experiments/<name>`."""

    name: str
    manual_seed: int = 0
    num_threads: int | None = None
    network_g: NetworkOptions
    datasets: DatasetsOptions
    train: TrainOptions
    val: ValOptions = Field(default_factory=ValOptions)
    logger: LoggerOptions = Field(default_factory=LoggerOptions)


def read_options(path: Path, overrides: tuple[str, ...] = ()) -> Options:
    """Read an option file and apply overrides.

    Raises:
        OptionsError: not readable, not YAML, an unknown key or a value that does not fit.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionsError(f"cannot read option file '{path}': {error}") from error
    if not isinstance(tree, dict):
        raise OptionsError(f"option file '{path}' holds no options (expected `key: value` lines)")
    for override in overrides:
        _apply(tree, override)
    try:
        return Options.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise OptionsError(f"'{path}': {place}: {first['msg']} (got {first['input']!r})") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    place, equals, value = override.partition("=")
    if not equals:
        raise OptionsError(f"override '{override}' has no '=': expected place.in.file=value")
    *parents, key = place.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise OptionsError(f"override '{override}': '{parent}' is a value, not a section")
    try:
        node[key] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise OptionsError(f"override '{override}' has no valid value: {error}") from error
