"""What training minimises."""

from jaxtyping import Float
from torch import Tensor


def charbonnier(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], epsilon: float = 1e-12
) -> Float[Tensor, ""]:
    """Mean √((a − b)² + ε)."""
    return ((a - b) ** 2 + epsilon).sqrt().mean()
