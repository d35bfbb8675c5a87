"""Pictures of a run: fixed crops of held-out clips over the steps, and those of high losses.

Scores say that something changes, pictures say what: when detail comes, and when it is invented.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from iart.data.sets import ValidationClip, open_validation_set
from iart.errors import OptionsError
from iart.files.complete import complete_file, writing
from iart.files.images import write_image
from iart.model import IART
from iart.model.upsample import SCALE
from iart.pictures.degrade import to_uint8
from iart.reports.details import sheet
from iart.train.options.run import TrainingOptions
from iart.train.validate import enlarge, enlarged_low

CROPS, SIDE, STRIDE = 3, 64, 8
"""Crops shown, at most; their side and the grid of their places, in pixels of low resolution."""
NEIGHBOURS = 2
"""Frames before and after the one that is shown, which the network sees too."""
ANIMATED = 60
"""Pictures of the animation, at most: evenly spread where there are more."""
KEPT = 50
"""Pictures of high losses that are kept, the latest ones."""
SHOWN, SHOWN_LAST = 500, 3000  # milliseconds


@dataclass(frozen=True)
class WatchedCrop:
    """A place in a clip.

    Attributes:
        name: of the clip.
        low: a few frames of low resolution, in [0, 255].
        shown: which of them is shown.
        truth: ground truth of that one.
    """

    name: str
    low: UInt8[Tensor, "t 3 h w"]
    shown: int
    truth: UInt8[Tensor, "3 4*h 4*w"]


class TrainingPreview:
    """Pictures of the crops, `<step>.png` in a folder, and beside it an animation of them."""

    def __init__(self, options: TrainingOptions, folder: Path, every: int) -> None:
        """Read the crops.

        Args:
            options: of the run, with a set to validate with.
            folder: of the pictures; the animation is called like it, with `.webp`.
            every: steps between pictures.

        Raises:
            OptionsError: there is no set to validate with.
            DataError: a clip cannot be read.
        """
        sets = [open_validation_set(section) for section in options.datasets.validation.values()]
        places = [(clips, number) for clips in sets for number in range(len(clips))]
        if not places:
            raise OptionsError(
                "--preview-every shows crops of clips that are held out: add a set to validate "
                "with, such as datasets.val"
            )
        chosen = np.linspace(0, len(places) - 1, min(CROPS, len(places))).round().astype(int)
        self._crops = [busiest_crop(places[i][0][places[i][1]]) for i in chosen]
        self._folder, self._every = folder, every

    def save(self, model: IART, step: int, precision: torch.dtype, *, last: bool = False) -> None:
        """Save a picture, if this step is one for it.

        Args:
            model: whose results are shown.
            step: steps done.
            precision: that features are computed in.
            last: whether this is the run's last step, which has a picture in any case.

        Raises:
            OutputError: the operating system refuses.
        """
        if step % self._every and not last:
            return
        rows = []
        for crop in self._crops:
            large = enlarge(model, crop.low.float() / 255, precision)[crop.shown]
            low = enlarged_low(crop.low[crop.shown].float() / 255)
            rows.append((crop.name, [low, to_uint8(large.nan_to_num()), crop.truth]))
        picture = sheet(["bicubic", f"step {step}", "ground truth"], rows, zoom=1)
        with complete_file(self._folder / f"{step:08d}.png", parents=True) as file:
            picture.save(file, "png")
        self._animate(step)

    def _animate(self, step: int) -> None:
        """Join the pictures; those of later steps are of a run that has been taken back."""
        paths = sorted(self._folder.glob("*.png"))
        for path in paths:
            if int(path.stem) > step:
                with writing(path):
                    path.unlink()
        paths = [path for path in paths if int(path.stem) <= step]
        chosen = np.linspace(0, len(paths) - 1, min(ANIMATED, len(paths))).round().astype(int)
        times = [SHOWN] * (len(chosen) - 1) + [SHOWN_LAST]
        first, *others = (_opened(paths[i]) for i in chosen)
        with complete_file(self._folder.with_suffix(".webp")) as file:
            first.save(file, "webp", save_all=True, append_images=others, duration=times, loop=0)


def busiest_crop(clip: ValidationClip) -> WatchedCrop:
    """The place with most detail in the frame in the middle of those that are scored."""
    middle = len(clip.scored) // 2
    frame, truth = clip.scored[middle], clip.gt[middle]
    height, width = (min(SIDE, side // SCALE) for side in truth.shape[-2:])
    grey = truth.float().mean(dim=0, keepdim=True)
    change = (grey[:, 1:, 1:] - grey[:, :-1, 1:]).abs() + (grey[:, 1:, 1:] - grey[:, 1:, :-1]).abs()
    size = (SCALE * height - 1, SCALE * width - 1)
    detail = F.avg_pool2d(change, size, stride=SCALE * STRIDE)[0]
    row, column = divmod(int(detail.argmax()), detail.shape[1])
    top, left = STRIDE * row, STRIDE * column
    first = max(frame - NEIGHBOURS, 0)
    low = clip.lq[first : frame + NEIGHBOURS + 1, :, top : top + height, left : left + width]
    rows, columns = (slice(SCALE * a, SCALE * (a + b)) for a, b in ((top, height), (left, width)))
    return WatchedCrop(clip.name, low, frame - first, truth[:, rows, columns])


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


# ---- high losses


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
