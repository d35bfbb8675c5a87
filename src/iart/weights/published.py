"""The published layout: names, unused tensors, and the configuration that shapes give away.

A published file holds the tensors of the release's network under the release's names. Besides those
that IART computes with, it holds constants (buffers) and 24 tensors that nothing ever reads; both
are dropped on reading, by full name, and written again, so that other tools accept our files.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from iart.errors import WeightsError
from iart.model.iart import IART, IARTConfig
from iart.model.kernels.plain import CELLS
from iart.model.propagate import BRANCHES

# Our name → published name, as regular expressions; the first that matches the whole name counts.
PUBLISHED_NAMES = (
    (r"extract\.(\w+)", r"conv_first.\1"),
    (r"flow\.(mean|std)", r"spynet.\1"),
    (r"flow\.levels\.(\d+)\.(\d+)\.(\w+)", r"spynet.basic_module.\1.basic_module.\2.\3"),
    (r"align\.position_bias", r"implicit_warp.position_bias"),
    (r"align\.([qkv])\w+\.(\w+)", r"implicit_warp.\1.\2"),
    (r"branches\.(\w+)\.embed_norm\.(\w+)", r"swin_backbone.\1.patch_embed.norm.\2"),
    (r"branches\.(\w+)\.norm\.(\w+)", r"swin_backbone.\1.norm.\2"),
    (r"branches\.(\w+)\.conv\.(\w+)", r"swin_backbone.\1.conv_after_body.\2"),
    (r"branches\.(\w+)\.groups\.(\d+)\.conv\.(\w+)", r"swin_backbone.\1.layers.\2.conv.\3"),
    (
        r"branches\.(\w+)\.groups\.(\d+)\.blocks\.(\d+)\.(.+)",
        r"swin_backbone.\1.layers.\2.residual_group.blocks.\3.\4",
    ),
    (r"head\.reduce\.(\w+)", r"conv_before_upsample.\1"),
    (r"head\.up(\d)\.(\w+)", r"upconv\1.\2"),
    (r"head\.refine\.(\w+)", r"conv_hr.\1"),
    (r"head\.last\.(\w+)", r"conv_last.\1"),
)
# Inside a block.
PUBLISHED_BLOCK_NAMES = (
    (".attention.position_bias", ".attn.relative_position_bias_table"),
    (".attention.index", ".attn.relative_position_index"),
    (".attention.", ".attn."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.2.", ".mlp.fc2."),
)
# Inner width of the unused tensors, whatever the configuration.
UNUSED_CHANNELS = 64
# How far a constant of a file may be from ours: other versions of PyTorch round the highest
# frequencies of the sine encoding differently, by 1e-4; another encoding is off by about 1.
CONSTANT_TOLERANCE = 1e-3
# Parts that only IART has both of, and the parts that tell a relative.
SIGNATURE = ("implicit_warp", "swin_backbone")
RELATIVES = (
    ("BasicVSR++", {"deform_align"}),
    ("BasicVSR", {"backward_trunk", "forward_trunk"}),
    ("BasicVSR", {"backward_resblocks", "forward_resblocks"}),
    ("EDVR", {"pcd_align"}),
)

BLOCK = r"swin_backbone\.\w+\.layers\.(\d+)\.residual_group\.blocks\.(\d+)\.\w+\..+"
TABLE = (
    r"swin_backbone\.\w+\.layers\.{group}\.residual_group\.blocks\.\d+"
    r"\.attn\.relative_position_bias_table"
)
TABLE_NAME = "relative_position_bias_table"
FLOW = r"spynet\.basic_module\.(\d+)\.basic_module\.(\d+)\.\w+"


def published_name(name: str) -> str:
    """The published name of one of our parameters or buffers."""
    for pattern, replacement in PUBLISHED_NAMES:
        if re.fullmatch(pattern, name):
            published = re.sub(pattern, replacement, name)
            for ours, theirs in PUBLISHED_BLOCK_NAMES:
                published = published.replace(ours, theirs)
            return published
    raise KeyError(name)


def _published_or_none(name: str) -> str | None:
    try:
        return published_name(name)
    except KeyError:
        return None


def unused_tensors(config: IARTConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of what a published file carries and nothing reads: 24 tensors for 4 branches."""
    c, inner = config.channels, UNUSED_CHANNELS
    weights = {
        "conv_first": (c, 3, 3, 3),
        "conv_first_feat": (c, inner, 3, 3),
        "conv_before_upsample": (inner, c, 3, 3),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for branch in BRANCHES[: config.branches]:
        for part, shape in weights.items():
            shapes[f"swin_backbone.{branch}.{part}.weight"] = shape
            shapes[f"swin_backbone.{branch}.{part}.bias"] = shape[:1]
    return shapes


def constants(model: IART) -> dict[str, Tensor]:
    """Buffers by published name."""
    tensors = {
        published_name(name): buffer
        for name, buffer in model.named_buffers()
        # The release rebuilds its masks for every picture, and its encoding for every step.
        if not name.endswith((".separated", ".frequency"))
    }
    return {**tensors, "implicit_warp.window_idx_offset": torch.tensor(CELLS)}


def to_published(model: IART, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Every tensor of a published file: parameters, constants, and zeros for the unused ones.

    Args:
        model: tells the configuration and the constants.
        state: parameters by our names; None takes the model's.

    Raises:
        WeightsError: the windows are not square, or alignment is not implicit; the published
            layout cannot say so.
    """
    if model.config.alignment != "implicit":
        raise WeightsError(
            f"the published layout has implicit alignment only, not {model.config.alignment}."
            " Write .safetensors"
        )
    _, rows, columns = model.config.window
    if rows != columns:
        raise WeightsError(
            f"the published layout has square windows only, not {rows}×{columns}."
            " Write .safetensors"
        )
    shapes = unused_tensors(model.config)
    zeros = {name: torch.zeros(shape, dtype=torch.float32) for name, shape in shapes.items()}
    state = dict(model.named_parameters()) if state is None else state
    parameters = {published_name(name): p.detach() for name, p in state.items()}
    return {**zeros, **constants(model), **parameters}


def drop_unused(state: Mapping[str, Tensor], model: IART) -> dict[str, Tensor]:
    """What is left of a published state without unused tensors and constants.

    Raises:
        WeightsError: a constant differs from ours: the network was another one.
    """
    expected = constants(model)
    for name, ours in expected.items():
        theirs = state.get(name)
        if theirs is None:
            continue
        if theirs.shape != ours.shape:
            raise WeightsError(
                f"{name} has shape {list(theirs.shape)}, expected {list(ours.shape)}"
            )
        tolerance = CONSTANT_TOLERANCE
        if theirs.is_floating_point():
            tolerance = max(tolerance, 2 * torch.finfo(theirs.dtype).eps)
        # Written so that NaN fails.
        if not bool(((theirs.double() - ours.double()).abs() <= tolerance).all()):
            raise WeightsError(f"{name} is not the constant that IART computes with")
    dropped = expected.keys() | unused_tensors(model.config).keys()
    return {name: tensor for name, tensor in state.items() if name not in dropped}


def are_ours(names: Iterable[str]) -> bool:
    """Whether these are names of ours for parts that every network has."""
    parts = {name.split(".")[0] for name in names}
    return parts >= {"extract", "branches"}


def config_from_shapes(state: Mapping[str, Tensor]) -> IARTConfig:
    """Configuration of a state by either names; where shapes disagree, the majority counts.

    Windows are square and span 3 frames; stochastic depth leaves no trace and keeps its default.

    Raises:
        WeightsError: the state is of another architecture, or lacks what tells a size.
    """
    if are_ours(state):
        known = {name: _published_or_none(name) for name in state}
        state = {name: state[ours] for ours, name in known.items() if name is not None}
    require_iart(state)
    blocks = [m for name in state if (m := re.fullmatch(BLOCK, name))]
    groups = len({m[1] for m in blocks})
    flow = [m for name in state if (m := re.fullmatch(FLOW, name))]
    layers = len({m[2] for m in flow})
    branches = [i for i, b in enumerate(BRANCHES) if any(f"swin_backbone.{b}." in n for n in state)]
    if not blocks or not flow or not branches:
        raise WeightsError("the blocks of swin_backbone or spynet are missing")
    c_sources = (r"(conv_first|implicit_warp\.[qkv]|swin_backbone\.\w+\.norm)\.bias", 0)
    mid_sources = (r"conv_before_upsample\.(weight|bias)", 0), (r"upconv[12]\.weight", 1)
    head_sources = (r"conv_hr\.(weight|bias)", 0), (r"conv_(hr|last)\.weight", 1)
    flow_sources = (
        (rf"spynet\.basic_module\.\d+\.basic_module\.{2 * i}\.\w+", 0) for i in range(layers - 1)
    )
    tables = [TABLE.replace("{group}", str(group)) for group in range(groups)]
    try:
        return IARTConfig(
            channels=_size(state, "conv_first.bias", c_sources),
            mid_channels=_size(state, "conv_before_upsample.bias", *mid_sources),
            head_channels=_size(state, "conv_hr.bias", *head_sources),
            flow_channels=tuple(_size(state, "spynet.….bias", source) for source in flow_sources),
            flow_levels=len({m[1] for m in flow}),
            depths=tuple(len({m[2] for m in blocks if m[1] == str(g)}) for g in range(groups)),
            heads=tuple(_size(state, TABLE_NAME, (table, 1)) for table in tables),
            window=_window(_size(state, TABLE_NAME, (TABLE.replace("{group}", r"\d+"), 0))),
            branches=max(branches) + 1,
        )
    except (ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"its shapes do not make an IART network: {error}") from error


def require_iart(state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError if the names are not IART's."""
    parts = Counter(name.split(".")[0] for name in state)
    if all(part in parts for part in SIGNATURE):
        return
    likely = (name for name, marks in RELATIVES if marks & parts.keys())
    guess = next((f" (it looks like {name})" for name in likely), "")
    found = ", ".join(f"{part}.…" for part, _ in parts.most_common(4)) or "nothing"
    raise WeightsError(
        f"not weights of IART{guess}: found {found}, expected {SIGNATURE[0]}.… and {SIGNATURE[1]}.…"
        ", and the file was not written by iart"
    )


def _size(state: Mapping[str, Tensor], name: str, *sources: tuple[str, int]) -> int:
    """The most frequent size among `sources`, (pattern of names, axis); `name` is one of them."""
    sizes = Counter(
        tensor.shape[axis]
        for pattern, axis in sources
        for key, tensor in state.items()
        if tensor.ndim > axis and re.fullmatch(pattern, key)
    )
    if not sizes:
        raise WeightsError(f"{name} is missing")
    return sizes.most_common(1)[0][0]


def _window(length: int) -> tuple[int, int, int]:
    """Window whose bias table has `length` = 5 (2s − 1)² rows."""
    side = 1
    while 5 * (2 * side - 1) ** 2 < length:
        side += 1
    if 5 * (2 * side - 1) ** 2 != length:
        raise WeightsError(
            f"relative_position_bias_table has {length} rows, which no square window over 3 frames"
            " has"
        )
    return 3, side, side
