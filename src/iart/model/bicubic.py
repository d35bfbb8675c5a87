"""Bicubic enlargement behind the call of a network: for comparison, previews and tests."""

from jaxtyping import Float
from torch import Tensor, nn

from iart.model.upsample import SCALE
from iart.pictures.resize import imresize


class Bicubic(nn.Module):
    """MATLAB's bicubic ×4, frame by frame; called as `IART` is, without any parameter."""

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 4*h 4*w"]:
        """Enlarge every frame on its own, RGB in [0, 1], any h, w ≥ 1; not clamped."""
        return imresize(frames, SCALE)
