"""A network that makes the frames of a benchmark: whole clips at once, in windows if it must be."""

from collections.abc import Iterator
from fractions import Fraction

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from iart.errors import DeviceError, WeightsError
from iart.evaluate.clips import SCALE, Clip
from iart.files.images import read_image
from iart.model import IART
from iart.pictures.degrade import to_uint8
from iart.upscaling.budget import plan_tiling
from iart.upscaling.clip import Step, enlarge_steps
from iart.upscaling.enlarge import Enlarger
from iart.video.frame import Frame


class ThereAndBack(nn.Module):
    """BasicSR's `flip_seq`: a clip and its reverse in one pass, and the mean of the two outputs.

    Attributes:
        config: that of the network, if it has one.
        precision: that the network computes in.
        widens: see `IART.widens`.
        passes: how often the network sees each frame at once.
    """

    passes = 2

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config = getattr(network, "config", None)
        self.widens = getattr(network, "widens", False)

    @property
    def precision(self) -> str:
        """See `IART.precision`."""
        return getattr(self.network, "precision", "float32")

    def in_precision(self, name: str) -> "ThereAndBack":
        """The same network, of the same tensors, in another precision."""
        assert isinstance(self.network, IART)
        return ThereAndBack(self.network.in_precision(name))

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 4*h 4*w"]:
        """Enlarge a clip."""
        t = frames.shape[1]
        known = {"mirrored": True} if isinstance(self.network, IART) else {}
        both = self.network(torch.cat([frames, frames.flip(1)], dim=1), **known)
        return (both[:, :t] + both[:, t:].flip(1)) / 2


def enlarger_for(
    model: nn.Module, clip: Clip, *, window: int | None, overlap: int, share: float = 1.0
) -> Enlarger:
    """What shows a model the whole of a clip, or windows of it where the memory is short.

    Args:
        model: enlarges `b t 3 h w`.
        clip: what it will be shown.
        window: frames that it sees at once; None for as many as fit in memory.
        overlap: frames of context in a window.
        share: of the free memory, that it may take.

    Raises:
        DeviceError: not even the shortest window fits.
    """
    count = len(clip.lq)
    at_once = count if window is None else min(window, count)
    try:
        tiling = plan_tiling(
            model,
            *(side // SCALE for side in clip.size),
            window=at_once,
            overlap=min(overlap, (at_once - 1) // 2),
            tile="whole" if window is None else None,
            frames=count,
            share=share,
        )
    except DeviceError as error:
        raise DeviceError(f"clip '{clip.name}': {error}") from error
    return Enlarger(model, tiling)


def scored_frames(enlarger: Enlarger, clip: Clip) -> Iterator[UInt8[Tensor, "3 h w"]]:
    """The frames of a clip that are scored, in order, on the CPU.

    Raises:
        DataError: a low-resolution frame cannot be read.
        WeightsError: the network gives NaN.
        DeviceError: the memory does not suffice.
    """
    steps = (
        Step(Frame(read_image(path).float() / 255, i, Fraction(1)), i in clip.scored)
        for i, path in enumerate(clip.lq)
    )
    for frame, _ in enlarge_steps(steps, enlarger):
        if frame.data.isnan().any():
            precision = getattr(enlarger.model, "precision", "float32")
            raise WeightsError(
                f"the network's frames of clip '{clip.name}' hold NaN: its weights are broken, or"
                f" too large for {precision}. Try --precision float32"
            )
        yield to_uint8(frame.data)
