"""Second-order propagation: features travel through time, aligned at every step (IART §3.1)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from iart.model.align import Align, ImplicitAlign
from iart.model.flow import warp
from iart.model.fuse import Grids, SwinIRFM
from iart.model.kernels.operators import needs_gradient

Apply = Callable[..., Tensor]
"""Calls a part of the network: `apply(part, *inputs)` gives `part(*inputs)`, got in its own way.

Inputs may be None, maps (b h w c), or what has 2 or 3 channels: flows and frames (b c h w)."""

# The order of the branches; each is fed by the one before, the first by the features.
BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


class Past(NamedTuple):
    """What a branch knows of the frames that it has visited.

    Attributes:
        one_back: its output of the last one.
        two_back: of the one before.
        flow: from the last one to the one before.
    """

    one_back: Float[Tensor, "b h w c"] | None = None
    two_back: Float[Tensor, "b h w c"] | None = None
    flow: Float[Tensor, "b 2 h w"] | None = None


NOTHING_PAST = Past()


def propagate(
    features: list[Float[Tensor, "b h w c"]],
    flows: Float[Tensor, "b s 2 h w"],
    fuse: SwinIRFM,
    align: Align,
    draws: Float[Tensor, "b t blocks 2"] | None = None,
    *,
    backward: bool,
    apply: Apply,
    past: Past = NOTHING_PAST,
    until: int | None = None,
    grids: dict[tuple[int, int, int], Grids] | None = None,
) -> Past:
    """One direction: every frame is fused with its last two outputs, aligned to it.

    Args:
        features: a map per frame, in time order; each is replaced by what becomes of it.
        flows: s = t − 1 flows between neighbours, in the direction of travel: `flows[:, i]` from
            frame i to i + 1 if `backward`, from frame i + 1 to i otherwise. If there is a past,
            s = t: the first is the one to the frame before these.
        fuse: SwinIRFM of this branch.
        align: shared by all branches and both orders.
        draws: for stochastic depth, see `IART.forward`.
        backward: visit the frames last to first.
        apply: how each step is called.
        past: of the frames before, forward only.
        until: frame whose past is wanted; None for the last one that is visited.
        grids: see `SwinIRFM.forward`; None builds them at every step.

    Returns:
        What the branch knows when it has visited that frame.
    """
    biases = fuse.biases()

    def step(current: Tensor, draws: Tensor | None, *past: Tensor | None) -> Tensor:
        return fuse(_maps(align, current, *past), biases, draws, grids)

    t = len(features)
    to_first = flows.shape[1] - t  # of the flows: 0 if there is a past, else −1
    one_back, two_back, flow = past
    last_flow = None
    for i in reversed(range(t)) if backward else range(t):
        if one_back is not None:
            last_flow, flow = flow, flows[:, i if backward else i + to_first]
        step_draws = None if draws is None else draws[:, i]
        features[i] = apply(step, features[i], step_draws, one_back, two_back, flow, last_flow)
        two_back, one_back = one_back, features[i]
        if i == until:
            past = Past(one_back, two_back, flow)
    return Past(one_back, two_back, flow) if until is None else past


def _maps(
    align: Align,
    current: Float[Tensor, "b h w c"],
    one_back: Float[Tensor, "b h w c"] | None,
    two_back: Float[Tensor, "b h w c"] | None,
    flow: Float[Tensor, "b 2 h w"] | None,
    last_flow: Float[Tensor, "b 2 h w"] | None,
) -> Float[Tensor, "b 3 h w c"]:
    """What a step fuses: [previous, current, second-previous], brought to the current frame."""
    if one_back is None or flow is None:
        maps = (current, current, current)
    elif two_back is None or last_flow is None:
        maps = (align(one_back, current, flow), current, torch.zeros_like(current))
    else:
        if isinstance(align, ImplicitAlign) and align.is_launched(one_back, current, flow):
            if needs_gradient((flow, last_flow)):
                flows = torch.cat((flow, flow + warp(last_flow, flow)))
            else:
                flows = torch.ops.iart.chain_flows(flow, last_flow)
            one, two = align(torch.cat((one_back, two_back)), current, flows).chunk(2)
            return torch.stack((one, current, two), dim=1)
        # Two frames back: this step's flow, then the last step's seen from there.
        far_flow = flow + warp(last_flow, flow)
        maps = (align(one_back, current, flow), current, align(two_back, current, far_flow))
    return torch.stack(maps, dim=1)


def directly(part: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Call a part, no more."""
    return part(*inputs)


def recomputed(part: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Call a part that, for the gradient, is computed again instead of kept in memory."""
    # Nothing inside draws random numbers: draws are inputs.
    return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
