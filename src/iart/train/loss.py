"""What training minimises."""

import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.motion import low_resolution_flow
from iart.model.flow import SpyNet


def charbonnier(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], epsilon: float = 1e-12
) -> Float[Tensor, ""]:
    """Mean √((a − b)² + ε)."""
    return ((a - b) ** 2 + epsilon).sqrt().mean()


def endpoint_error(
    spynet: SpyNet,
    reference: Float[Tensor, "b 3 h w"],
    other: Float[Tensor, "b 3 h w"],
    flow: Float[Tensor, "b 2 h w"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Distance between SpyNet's flow and the true one, in pixels of each level.

    Returns the sum over levels, to minimise, and the finest level's mean, to report. The size must
    be one that the pyramid divides without a remainder.
    """
    errors = []
    levels = spynet.coarse_to_fine(reference, other)
    for depth, estimate in enumerate(reversed(levels)):
        target = low_resolution_flow(flow, 2**depth)
        errors.append(((estimate - target).square().sum(1) + 1e-6).sqrt().mean())
    return torch.stack(errors).sum(), errors[0]
