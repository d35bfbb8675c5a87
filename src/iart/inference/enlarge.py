"""One window of frames → the same frames four times larger, whole or in tiles."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart.errors import DeviceError
from iart.inference.tiles import enlarge_in_tiles
from iart.model import IART


def enlarge_window(
    clip: Float[Tensor, "t 3 h w"], model: nn.Module, kept: slice, tile: int | None
) -> Float[Tensor, "kept 3 4*h 4*w"]:
    """Show the model one window, in tiles if asked for; the kept frames come back as `clip` is."""
    like = next(model.parameters(), clip)

    def enlarge(piece: Tensor) -> Tensor:
        try:
            return model(piece[None].to(like))[0, kept].clamp(0, 1).to(clip)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            t, _, h, w = piece.shape
            raise DeviceError(
                f"{like.device} has too little memory for {t} frames of {w}x{h} at once. "
                "Pass a smaller --window or --tile"
            ) from error

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            if tile is None:
                return enlarge(clip)
            return enlarge_in_tiles(clip, enlarge, tile, multiple=_tile_multiple(model))
    finally:
        if training:
            model.train()


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class of its own for GPUs of CUDA only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "backend out of memory"))


def _tile_multiple(model: nn.Module) -> int:
    """Of what tiles should start on a multiple: twice the attention window."""
    return 2 * max(model.config.window[1:]) if isinstance(model, IART) else 1
