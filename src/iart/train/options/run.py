"""What an option file says: one training run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from iart.evaluate.metrics.perceptual import WeightsFile
from iart.model import IARTConfig
from iart.model.upsample import SCALE
from iart.train.options.data import DatasetsOptions
from iart.train.options.losses import LPIPSNetworkOptions
from iart.train.options.recipe import RecipeOptions
from iart.train.options.section import (
    NETWORK,
    PATH,
    TOP,
    VAL,
    FilePath,
    Section,
    key_error,
    null_is,
)
from iart.weights.load import located, model_names

# ---- networks: the one that enlarges, and discriminators


def _any_part(value: Any) -> Any:
    """The release has a switch for each branch; memory is what they are about."""
    switches = isinstance(value, list | tuple) and all(isinstance(each, bool) for each in value)
    return any(value) if switches and value else value


class NetworkOptions(Section):
    """Sizes of the network; the defaults are the published ones."""

    known: ClassVar = NETWORK

    type: Literal["IART"] = "IART"
    """The one network that is trained here."""
    embed_dim: PositiveInt = 120
    """Width of features and attention; divisible by 4 and by every number of heads."""
    mid_channels: PositiveInt = 64
    """Width of the head at one and two times the input's size."""
    head_channels: PositiveInt = 64
    """Width of the head at four times the input's size (ours; as published)."""
    flow_channels: tuple[PositiveInt, ...] = (32, 64, 32, 16)
    """Widths inside each level of the flow network (ours; as published)."""
    flow_levels: PositiveInt = 6
    """Levels of the flow network's pyramid (ours; as published)."""
    depths: tuple[PositiveInt, ...] = (6, 6, 6)
    """Transformer blocks of each residual group of a branch."""
    num_heads: tuple[PositiveInt, ...] = (6, 6, 6)
    """Attention heads of each residual group."""
    window_size: tuple[int, PositiveInt, PositiveInt] = (3, 8, 8)
    """Attention window: frames (always 3), rows and columns."""
    branches: PositiveInt = 4
    """Passes through time, backward and forward in turn (ours; as published)."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Stochastic depth of the last block; grows linearly from 0 at the first."""
    alignment: Literal["implicit", "nearest", "bilinear", "bicubic"] = "implicit"
    """How features follow flow; all but implicit are the paper's ablations (ours)."""
    use_checkpoint: Annotated[
        bool, BeforeValidator(_any_part, json_schema_input_type=bool | tuple[bool, ...])
    ] = True
    """Compute activations again for the gradient instead of keeping them: far less memory, about a
    third more time. A list, one switch for each branch, is on if any of them is."""
    spynet_path: FilePath | None = None
    """Weights of the flow network, in SpyNet's published layout; null: our own flow weights."""

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
            alignment=self.alignment,
        )

    @model_validator(mode="before")
    @classmethod
    def _of_this_type(cls, tree: Any) -> Any:
        # Said before the keys of another network are unknown ones.
        if isinstance(tree, Mapping) and tree.get("type", "IART") != "IART":
            raise key_error("type", f"IART is the one network here (got {tree['type']!r})")
        return tree

    @model_validator(mode="after")
    def _sizes_fit(self) -> "NetworkOptions":
        self.config()
        return self


class DiscriminatorOptions(Section):
    """A network that tells results from ground truth."""

    type: Literal["UNetDiscriminatorSN", "CIPLABUnetD", "PatchDiscriminatorSN"]
    """Real-ESRGAN's U-Net; a U-Net that also judges the whole picture; or one for patches."""
    num_in_ch: Literal[3] = 3
    """Channels of a frame."""
    num_feat: PositiveInt = 64
    """Features of the first layer."""
    skip_connection: bool = True
    """Whether a U-Net's halves are connected at every size."""
    levels: PositiveInt = 6
    """Times that CIPLABUnetD halves a picture (ours)."""
    frames: Literal[1, 3] = 1
    """Frames seen at once: 3 are aligned by the ground truth's motion and tell flicker (ours)."""

    @property
    def per_pixel(self) -> bool:
        """Whether there is a judgement of every pixel."""
        return self.type != "PatchDiscriminatorSN"


# ---- the run


NETWORKS_SIDE = 32
"""Side of the smallest crops that all networks of losses take, in pixels of ground truth."""


def _shipped_file(value: Any) -> Any:
    """The file behind the name of weights that ship; a file of that name comes first."""
    if value == "bicubic" or value not in model_names() or Path(value).exists():
        return value
    with located(value) as path:
        return path


class PathOptions(Section):
    """Weights to start from."""

    known: ClassVar = PATH

    pretrain_network_g: Annotated[FilePath | None, BeforeValidator(_shipped_file)] = None
    """Weights to start from, a file or the name of those that ship; null: from nothing."""
    strict_load_g: bool = True
    """Whether those weights must be of the same network, tensor by tensor."""
    param_key_g: Literal["params", "params_ema"] = "params"
    """Which weights of a published file: as trained, or averaged."""
    resume_state: FilePath | None = None
    """State to go on from; null: the run's own, if there is one."""


class MetricOptions(LPIPSNetworkOptions):
    """A score of a validated frame."""

    type: Literal["calculate_psnr", "calculate_ssim", "calculate_lpips"]
    """PSNR in dB, SSIM, or LPIPS, which is better if lower."""
    crop_border: NonNegativeInt = 0
    """Pixels left out at every edge."""
    test_y_channel: bool = False
    """Score luma (BT.601) instead of RGB."""
    better: Literal["higher", "lower"] = "higher"
    """What BasicSR says of a score; the type tells it here."""

    def files(self, place: str) -> tuple[WeightsFile, ...]:
        """See `Section`; PSNR and SSIM need none."""
        return super().files(place) if self.type == "calculate_lpips" else ()


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


class TrainingOptions(Section):
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
    network_d: DiscriminatorOptions | None = None
    """A discriminator; null: none."""
    network_d2: DiscriminatorOptions | None = None
    """Another; null: none."""
    datasets: DatasetsOptions
    """Clips."""
    path: Annotated[PathOptions, null_is({}, PathOptions)] = Field(default_factory=PathOptions)
    """Weights to start from."""
    train: RecipeOptions
    """The recipe."""
    val: Annotated[ValOptions, null_is({"val_freq": 0}, ValOptions)] = Field(
        default_factory=ValOptions
    )
    """Validation."""
    logger: Annotated[LoggerOptions, null_is({}, LoggerOptions)] = Field(
        default_factory=LoggerOptions
    )
    """Logs and checkpoints."""

    def weights_files(self) -> list[WeightsFile]:
        """Files of the networks that losses and scores measure by."""
        metrics = self.val.metrics.items() if self.val.val_freq else ()
        sections = [(f"train.{key}", section) for key, section in self.train.losses()]
        sections += [(f"val.metrics.{name}", metric) for name, metric in metrics]
        return [file for place, section in sections for file in section.files(place)]

    @model_validator(mode="before")
    @classmethod
    def _mixed_precision(cls, tree: Any) -> Any:
        if isinstance(tree, Mapping) and tree.get("model_type") == "RecurrentMixPrecisionRTModel":
            train = tree.get("train")
            if isinstance(train, Mapping) and not {"precision", "half_precision"} & train.keys():
                return {**tree, "train": {**train, "half_precision": True}}
        return tree

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        recipe, pixels = self.train, False
        for place, network, loss in (
            ("", self.network_d, recipe.gan_opt),
            ("2", self.network_d2, recipe.gan2_opt),
        ):
            if (network is None) != (loss is None):
                missing = f"network_d{place}" if network is None else f"train.gan{place}_opt"
                yield (
                    f"network_d{place} and train.gan{place}_opt belong together: {missing} is "
                    "missing. Give both, or set both to null"
                )
            pixels = pixels or (network is not None and network.per_pixel)
            if loss is not None and recipe.optim_d is None and not (place and recipe.optim_d2):
                yield "a discriminator needs train.optim_d, its optimiser"
        if recipe.consistency_opt is not None and not pixels:
            yield "train.consistency_opt needs a U-Net as discriminator"
        if recipe.feature_matching_opt is not None and self.matched_discriminator is None:
            yield (
                f"train.feature_matching_opt of type {recipe.feature_matching_opt.type} has no "
                "discriminator: L1Loss needs network_d, CIPLABFeatureMatchingLoss a CIPLABUnetD"
            )
        judged = any(section.files("") for _, section in recipe.losses()) or self.network_d
        side = min(self.datasets.train.crop_sides)
        if side < NETWORKS_SIDE and (judged or self.network_d2):
            yield (
                f"datasets.train: crops of {side} pixels are too small for losses by networks and "
                f"for discriminators, which take {NETWORKS_SIDE} at least"
            )
        focal = recipe.focal_freq_opt
        if focal is not None and focal.patch_factor > side:
            yield f"train.focal_freq_opt.patch_factor is above the crops' {side} pixels"
        multiple = 2 ** (self.network_g.flow_levels - 1)
        flow = recipe.flow
        if flow and flow.total_iter and (flow.size % multiple or flow.size < 2 * multiple):
            yield (
                f"train.flow.size ({flow.size}) must be a multiple of {multiple}, at least "
                f"{2 * multiple}, for {self.network_g.flow_levels} levels of flow"
            )

    @property
    def matched_discriminator(self) -> Literal["gan", "gan2"] | None:
        """Whose features `feature_matching_opt` compares; None if there is none."""
        section = self.train.feature_matching_opt
        if section is None or section.type == "L1Loss":
            return "gan" if self.network_d is not None else None
        if self.network_d is not None and self.network_d.type == "CIPLABUnetD":
            return "gan"
        second = self.network_d2 is not None and self.network_d2.type == "CIPLABUnetD"
        return "gan2" if second else None
