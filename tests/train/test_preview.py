"""`iart train --preview-every`: what a run makes of held-out crops, step by step."""

import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.sets import ValidationClip
from iart.errors import OptionsError
from iart.train.pictures import busiest_crop
from tests.train.tiny import assert_same, folder_of, options, run, state_of

HELD_OUT = {
    "type": "VideoRecurrentTestDataset", "dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("folder")


def names() -> list[str]:
    return sorted(path.name for path in (folder_of() / "preview").iterdir())


def test_pictures_over_the_steps():
    run(options(name="without", train__total_iter=2))
    chosen = options(datasets__val=HELD_OUT, train__total_iter=2)
    run(chosen, preview_every=2)
    assert names() == ["00000000.png", "00000002.png"]
    assert_same(state_of()["model"], state_of("without")["model"])  # looking changes nothing
    with Image.open(folder_of() / "preview.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 2
        size = animation.size
    with Image.open(folder_of() / "preview/00000002.png") as picture:
        assert picture.size == size
        pixels = np.asarray(picture)
    width = pixels.shape[1] // 3
    truth = Image.open("pairs/gt/002/00000002.png")
    assert (pixels[-64:, 2 * width :] == np.asarray(truth)).all()
    # A run that is taken back lets go of what lay ahead.
    later = options(datasets__val=HELD_OUT, train__total_iter=4, name="tiny")
    for path in (folder_of() / "training_states").glob("*.state"):
        path.unlink()
    run(later, preview_every=4, max_minutes=0.0)
    assert names() == ["00000000.png"]


def test_a_crop_is_where_detail_is():
    gt = torch.zeros(1, 3, 400, 480, dtype=torch.uint8)
    gt[..., 140:390, 220:470] = torch.randint(0, 256, (250, 250), dtype=torch.uint8)
    lq = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 100, 120)
    crop = busiest_crop(ValidationClip("clip", lq, gt, (1,)))
    assert crop.low.shape == (4, 3, 64, 64)
    assert crop.low[crop.shown].eq(1).all()
    assert crop.truth.equal(gt[0, :, 128:384, 224:480])


def test_crops_need_held_out_clips():
    with pytest.raises(OptionsError, match="add a set to validate with"):
        run(options(), preview_every=1)
