"""A network that makes the frames of a benchmark: whole clips at once, in windows if it must be."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from iart.data.degrade import to_uint8
from iart.device import NetworkSizes, estimate_memory, free_memory
from iart.errors import DeviceError, WeightsError
from iart.evaluate.layout import SCALE, Clip
from iart.evaluate.pictures import read_picture
from iart.inference.tiling import SAFE_SHARE, device_of
from iart.inference.upscale import upscale
from iart.inference.windows import OVERLAP, check_windows, plan_windows


class ThereAndBack(nn.Module):
    """BasicSR's `flip_seq`: a clip and its reverse in one pass, and the mean of the two outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 4*h 4*w"]:
        """Enlarge a clip."""
        t = frames.shape[1]
        both = self.network(torch.cat([frames, frames.flip(1)], dim=1))
        return (both[:, :t] + both[:, t:].flip(1)) / 2


@dataclass(frozen=True)
class Enlarger:
    """Makes a clip's frames.

    Attributes:
        model: enlarges `b t 3 h w`.
        precision: that it computes in.
        flip_seq: see `ThereAndBack`.
        window: frames that it sees at once; None for as many as fit in memory.
        overlap: frames of context at either end of a window.
        room: bytes that a window may take; None if the system does not tell.
    """

    model: nn.Module
    precision: str = "float32"
    flip_seq: bool = False
    window: int | None = None
    overlap: int = OVERLAP
    room: int | None = None

    @classmethod
    def with_memory_share(
        cls,
        model: nn.Module,
        share: float,
        *,
        precision: str,
        flip_seq: bool,
        window: int | None,
        overlap: int,
    ) -> "Enlarger":
        """An enlarger that may take a share of the memory that is free now.

        Raises:
            OptionsError: the window keeps no frame, or the overlap is negative.
        """
        check_windows(max(1, 2 * overlap + 1) if window is None else window, overlap)
        free = free_memory(device_of(model))
        room = None if free is None else round(SAFE_SHARE * share * free)
        return cls(model, precision, flip_seq, window, overlap, room)

    def frames_at_once(self, clip: Clip) -> int:
        """How many of the clip's frames the network sees at once.

        Raises:
            DeviceError: not even the shortest window fits.
        """
        count = len(clip.lq)
        if self.window is not None:
            return min(self.window, count)
        config = getattr(self.model, "config", None)
        if self.room is None or not isinstance(config, NetworkSizes):
            return count
        height, width = (side // SCALE for side in clip.size)
        passes = 2 if self.flip_seq else 1
        for frames in range(count, min(self.shortest, count) - 1, -1):
            needed = estimate_memory(
                config, passes * frames, height, width, self.precision, device_of(self.model).type
            )
            if needed <= self.room:
                return frames
        raise DeviceError(
            f"{device_of(self.model)} has too little memory for clip '{clip.name}', even in "
            "windows. Pass a smaller --overlap, another --precision or another --device"
        )

    def frames(self, clip: Clip, window: int) -> Iterator[UInt8[Tensor, "3 h w"]]:
        """The frames of the clip that are scored, in order, on the CPU.

        Args:
            clip: its low-resolution frames are read.
            window: frames to show at once; as many as the clip has for the whole of it.

        Raises:
            DataError: a frame cannot be read.
            WeightsError: the network gives NaN.
            DeviceError: the memory does not suffice.
        """
        model = ThereAndBack(self.model) if self.flip_seq else self.model
        wanted = set(clip.scored)
        overlap = 0 if window == len(clip.lq) else self.context(window)
        for part in plan_windows(repeat(False, len(clip.lq)), window, overlap):
            kept = range(part.keep_start, part.keep_stop)
            if wanted.isdisjoint(kept):
                continue
            small = torch.stack([read_picture(path) for path in clip.lq[part.start : part.stop]])
            count = part.stop - part.start
            large = upscale(small.float() / 255, model, window=count, overlap=0, tile=None)
            if large.isnan().any():
                raise WeightsError(
                    f"the network's frames of clip '{clip.name}' hold NaN: its weights are broken, "
                    f"or too large for {self.precision}. Try --precision float32"
                )
            for index in kept:
                if index in wanted:
                    yield to_uint8(large[index - part.start])

    def context(self, window: int) -> int:
        """Frames of context at either end of a window: fewer where it is too short."""
        return min(self.overlap, (window - 1) // 2)

    @property
    def shortest(self) -> int:
        """Frames of the shortest window that is tried."""
        return 2 * self.overlap + 1
