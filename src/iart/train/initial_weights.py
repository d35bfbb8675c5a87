"""The network that a run begins with: new, or with weights of others taken over.

From the usual random start a small network learns to sharpen single frames and stays there: its
alignment averages 2×2 cells, which blurs away what other frames could add, and its attention
averages whole windows. So that a new one uses time from the first steps on,

- the residual of the head is zero: training begins at the bilinear enlargement;
- alignment begins near bilinear interpolation: softmax(β [(1 − 2 c_y) cos π f_y + the same in x])
  over the cells c, with f the fraction, and values passed on as they are;
- one attention head of each block begins by looking at the same place one frame back, one two
  frames back, the others around themselves.
"""

import logging
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import nn

from iart.errors import WeightsError
from iart.model import IART
from iart.model.align import ImplicitAlign
from iart.model.window import WindowAttention
from iart.train.flow_lessons import start_flow
from iart.train.options.run import TrainingOptions
from iart.weights import published_name, read_model
from iart.weights.published import are_ours, constants, unused_tensors
from iart.weights.tensorfile import KEYS, compare, copy, fill, naming, read_tensors

_log = logging.getLogger(__name__)
FEW = 0.5
"""Share of the tensors below which a file gives few, which is a warning."""

# β above: weight 0.92 for a row of cells that the flow hits exactly, 0.85 a quarter off.
SHARPNESS = 1.2
# Share of the random start that is kept in alignment's query and key.
NOISE = 0.1
# Bias per squared pixel of distance, and for a frame that is not the head's own.
DISTANCE, OTHER_FRAME = -1.5, -4.0

LICENCE = (
    "SpyNet's published weights allow non-commercial research only, and so does what is trained"
    " from them"
)


def new_network(options: TrainingOptions, *, resumed: bool = False) -> IART:
    """The network at step 0, the same on every process.

    Args:
        options: of the run.
        resumed: leave out what a saved state brings anyhow.

    Raises:
        WeightsError: a file of weights is missing, damaged or does not fit; names it.
    """
    torch.manual_seed(options.manual_seed)
    model = IART(options.network_g.config()).train()
    if resumed:
        return model
    start(model)
    source, spynet = options.path.pretrain_network_g, options.network_g.spynet_path
    if source is not None:  # it holds a flow network as well
        load_network(model, source, options.path.param_key_g, strict=options.path.strict_load_g)
    elif spynet is not None:
        load_flow(model, spynet)
    return model


def load_network(model: IART, path: Path, key: str, *, strict: bool) -> None:
    """Take over weights of a whole network, published or ours.

    Args:
        model: takes them.
        path: a file.
        key: which weights of a published file; one that has "params" alone gives these.
        strict: whether all must fit; if not, what does not is logged and left as it is: a warning
            where that is more than half of the tensors.

    Raises:
        WeightsError: the file cannot be used or gives nothing, or `strict` and the network is
            another.
    """
    if strict:
        _take_all(model, path, key)
    else:
        _take_what_fits(model, path, key)


def _take_all(model: IART, path: Path, key: str) -> None:
    other = read_model(path, keys=(key, *KEYS))
    theirs = replace(other.config, drop_path=model.config.drop_path)  # leaves no trace in weights
    if theirs != model.config:
        words = "; ".join(
            f"{name} is {getattr(theirs, name)}, network_g has {getattr(model.config, name)}"
            for name in (field.name for field in fields(theirs))
            if getattr(theirs, name) != getattr(model.config, name)
        )
        raise WeightsError(
            f"cannot use '{path}' as path.pretrain_network_g: {words}. Change network_g, or take "
            "over what fits with path.strict_load_g=false"
        )
    model.load_state_dict(other.state_dict())


def _take_what_fits(model: IART, path: Path, key: str) -> None:
    with naming(path):
        tensors, _ = read_tensors(path, keys=(key, *KEYS))
    published = not are_ours(tensors)
    constant = constants(model).keys() | unused_tensors(model.config).keys()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in constant}
    own = {
        published_name(name) if published else name: parameter
        for name, parameter in model.named_parameters()
    }
    fitting, left = compare(own, tensors)
    with naming(path):
        if not fitting:
            raise WeightsError(
                f"none of its tensors fits network_g ({left}). Pass another"
                " path.pretrain_network_g, or null to begin anew"
            )
        copy(own, tensors, fitting)
    if left:
        few = len(fitting) < FEW * len(own)
        words = "'%s' gave %s%d of %d tensors; %s"
        level = logging.WARNING if few else logging.INFO
        _log.log(level, words, path, "only " if few else "", len(fitting), len(own), left)


def load_flow(model: IART, path: Path) -> None:
    """Take over a flow network: SpyNet's published file, or weights of a whole network.

    Raises:
        WeightsError: the file is missing or damaged, or its flow network has other sizes.
    """
    instead = "Pass another network_g.spynet_path, or null for flow weights of our own"
    try:
        with naming(path):
            tensors, _ = read_tensors(path, keys=("params", *KEYS))
        if any(name.startswith("basic_module.") for name in tensors):
            named = model.flow.named_parameters()
            own = {published_name(f"flow.{n}").removeprefix("spynet."): p for n, p in named}
            constant = ("mean", "std")
            with naming(path):
                fill(own, {name: t for name, t in tensors.items() if name not in constant})
            _log.info("'%s': %s", path, LICENCE)
            return
        other = read_model(path)
    except WeightsError as error:
        raise WeightsError(f"network_g.spynet_path: {error}. {instead}") from error
    sizes = (other.config.flow_channels, other.config.flow_levels)
    wanted = (model.config.flow_channels, model.config.flow_levels)
    if sizes != wanted:
        raise WeightsError(
            f"network_g.spynet_path: the flow network in '{path}' has channels and levels {sizes}, "
            f"network_g has {wanted}. {instead}"
        )
    model.flow.load_state_dict(other.flow.state_dict())


# ---- a new network


@torch.no_grad()
def start(model: IART) -> None:
    """Initialise a new network, flow included."""
    start_flow(model.flow)
    nn.init.zeros_(model.head.last.weight)
    _zero_bias(model.head.last)
    if isinstance(model.align, ImplicitAlign):
        start_align(model.align)
        # What alignment reads the encodings from carries no picture yet.
        half = model.config.channels // 2
        for channel in (1, 2, half + 1, half + 2):
            model.extract.weight[channel] = 0
            model.extract.bias[channel] = 0  # pyright: ignore[reportOptionalSubscript]
    for branch in model.branches.values():
        for attention in branch.modules():
            if isinstance(attention, WindowAttention):
                start_attention(attention)


@torch.no_grad()
def start_align(align: ImplicitAlign) -> None:
    """Near bilinear interpolation, in every head."""
    channels = align.query.in_features
    half, width = channels // 2, channels // align.heads
    # Values pass on the features, less the four directions of the cells' own encodings.
    cells = align.position_bias[0]
    basis = torch.linalg.svd(cells.T, full_matrices=False).U
    align.value.weight.copy_(torch.eye(channels, device=cells.device) - basis @ basis.T)
    for layer in (align.query, align.key):
        layer.weight *= NOISE
    for layer in (align.query, align.key, align.value):
        _zero_bias(layer)
    gain = (SHARPNESS * width**0.5) ** 0.5
    for axis, first in enumerate((0, half)):
        # The encoding's channel 1 of an axis is cos π f; its channel 2 tells cell 1 from cell 0.
        side = cells[3, first + 2]
        for head in range(align.heads):
            row = head * width + axis
            align.query.weight[row] = 0
            align.query.weight[row, first + 1] = gain
            align.key.weight[row] = 0
            align.key.weight[row, first + 2] = -2 * gain / side
            align.key.bias[row] = gain


@torch.no_grad()
def start_attention(attention: WindowAttention) -> None:
    """Heads that look one frame back, two frames back, and around themselves."""
    t, h, w = attention.window
    frame = torch.arange(1 - t, t).view(-1, 1, 1)
    y, x = torch.arange(1 - h, h).view(-1, 1), torch.arange(1 - w, w)
    near = DISTANCE * (y**2 + x**2)
    # query − key: from the middle frame, +1 is the last frame visited and −1 the one before.
    for head, own in zip(range(attention.heads), (1, -1), strict=False):
        bias = near + OTHER_FRAME * (frame != own)
        attention.position_bias[:, head] = bias.flatten().to(attention.position_bias)
    channels = attention.proj.in_features
    nn.init.eye_(attention.qkv.weight[2 * channels :])


def _zero_bias(layer: nn.Linear | nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
