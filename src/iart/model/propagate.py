"""Second-order propagation: features travel through time, aligned at every step (IART §3.1)."""

import torch
from jaxtyping import Float
from torch import Tensor

from iart.model.align import Align
from iart.model.flow import warp
from iart.model.fuse import SwinIRFM

# The order of the branches; each is fed by the one before, the first by the features.
BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


def propagate(
    features: list[Float[Tensor, "b h w c"]],
    flows: Float[Tensor, "b s 2 h w"],
    fuse: SwinIRFM,
    align: Align,
    *,
    backward: bool,
) -> list[Float[Tensor, "b h w c"]]:
    """One direction: every frame is fused with its last two outputs, aligned to it.

    Args:
        features: a map per frame, in time order.
        flows: s = t − 1 flows between neighbours, in the direction of travel: `flows[:, i]` from
            frame i to i + 1 if `backward`, from frame i + 1 to i otherwise.
        fuse: SwinIRFM of this branch.
        align: shared by all branches and both orders.
        backward: visit the frames last to first.

    Returns:
        A map per frame, in time order.
    """
    t = len(features)
    outputs: list[Tensor] = [features[0]] * t
    biases = fuse.biases()
    one_back = two_back = flow = None
    for i in reversed(range(t)) if backward else range(t):
        current = features[i]
        if one_back is None:
            maps = (current, current, current)
        else:
            last_flow, flow = flow, flows[:, i if backward else i - 1]
            if two_back is None or last_flow is None:
                maps = (align(one_back, current, flow), current, torch.zeros_like(current))
            else:
                # Two frames back: this step's flow, then the last step's seen from there.
                far_flow = flow + warp(last_flow, flow)
                aligned = align(
                    torch.cat((one_back, two_back)),
                    torch.cat((current, current)),
                    torch.cat((flow, far_flow)),
                )
                near, far = aligned.chunk(2)
                maps = (near, current, far)
        two_back, one_back = one_back, fuse(torch.stack(maps, dim=1), biases)
        outputs[i] = one_back
    return outputs
