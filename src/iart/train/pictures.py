"""Pictures of a run: what it makes of clips beside the ground truth."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iart.data.validation import ValidationClip
from iart.files.complete import writing
from iart.files.images import write_image
from iart.model.upsample import SCALE
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize

KEPT = 50
"""Pictures of high losses that are kept, the latest ones."""


def enlarged_low(frame: Float[Tensor, "3 h w"]) -> UInt8[Tensor, "3 _ _"]:
    """A frame of low resolution, enlarged by bicubic."""
    return to_uint8(imresize(frame, float(SCALE)))


def save_high_loss(
    folder: Path,
    step: int,
    lq: Float[Tensor, "b t 3 h w"],
    output: Float[Tensor, "b t 3 _ _"],
    truth: Float[Tensor, "b t 3 _ _"],
) -> None:
    """Save the frame that is furthest off as bicubic | result | ground truth.

    Args:
        folder: the file is `<step>.png` in it; the last 50 are kept.
        step: steps done before.
        lq: a micro-batch's input.
        output: its results.
        truth: its ground truth.

    Raises:
        OutputError: the operating system refuses.
    """
    output, truth = output.float().cpu(), truth.cpu()
    worst = int((output - truth).abs().mean(dim=(-3, -2, -1)).flatten().argmax())
    low, large, high = (x.flatten(0, 1)[worst] for x in (lq.cpu(), output, truth))
    strip = (enlarged_low(low), to_uint8(large.nan_to_num()), to_uint8(high))
    write_image(folder / f"{step:08d}.png", torch.cat(strip, dim=-1))
    for path in sorted(folder.glob("*.png"))[:-KEPT]:
        with writing(path):
            path.unlink(missing_ok=True)


def save_validated(
    folder: Path, clip: ValidationClip, large: UInt8[Tensor, "n 3 h w"], *, every: bool
) -> None:
    """Save the scored frame in the middle as bicubic | result | ground truth.

    Args:
        folder: the file is `<clip>.png` in it.
        clip: that was scored.
        large: results for its scored frames.
        every: save all results as well, as `<clip>/<frame>.png`.

    Raises:
        OutputError: the operating system refuses.
    """
    name, middle = clip.name.replace("/", "_"), len(large) // 2
    low = enlarged_low(clip.lq[clip.scored[middle]].float() / 255)
    pictures = {f"{name}.png": torch.cat((low, large[middle], clip.gt[middle]), dim=-1)}
    if every:
        frames = zip(clip.scored, large, strict=True)
        pictures |= {f"{name}/{i:08d}.png": frame for i, frame in frames}
    for part, picture in pictures.items():
        write_image(folder / part, picture)
