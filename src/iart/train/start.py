"""How a new network starts, so that it uses time from the first steps on.

From the usual random start a small network learns to sharpen single frames and stays there: its
alignment averages 2×2 cells, which blurs away what other frames could add, and its attention
averages whole windows. Here instead

- the residual of the head is zero: training begins at the bilinear enlargement;
- alignment begins near bilinear interpolation: softmax(β [(1 − 2 c_y) cos π f_y + the same in x])
  over the cells c, with f the fraction, and values passed on as they are;
- one attention head of each block begins by looking at the same place one frame back, one two
  frames back, the others around themselves.
"""

import torch
from torch import nn

from iart.model import IART
from iart.model.align import ImplicitAlign
from iart.model.window import WindowAttention
from iart.train.flow import start_flow

# β above: weight 0.92 for a row of cells that the flow hits exactly, 0.85 a quarter off.
SHARPNESS = 1.2
# Share of the random start that is kept in alignment's query and key.
NOISE = 0.1
# Bias per squared pixel of distance, and for a frame that is not the head's own.
DISTANCE, OTHER_FRAME = -1.5, -4.0


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
