"""Sections of an option file for networks: the one that enlarges, and discriminators."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from iart.model import IARTConfig
from iart.train.options.section import NETWORK, FilePath, Section, key_error


def _any_part(value: Any) -> Any:
    """The release has a switch for each branch; memory is what they are about."""
    return any(value) if isinstance(value, list | tuple) and _all_switches(value) else value


def _all_switches(values: Any) -> bool:
    return bool(values) and all(isinstance(value, bool) for value in values)


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
