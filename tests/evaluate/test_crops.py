"""Crops are cut where the pictures differ, whatever the order of frames, and hold those pixels."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from iart.evaluate.record import ClipRecord, CropRecord
from iart.evaluate.scoring import CropPicker, limit_crops
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.resize import imresize


def smooth(seed: int, height: int = 160, width: int = 200) -> UInt8[Tensor, "3 h w"]:
    """A picture that bicubic restores well."""
    coarse = torch.rand(3, height // 20, width // 20, generator=torch.Generator().manual_seed(seed))
    return to_uint8(imresize(coarse, 20))


def pixels(png: bytes | None) -> UInt8[Tensor, "3 h w"]:
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_place_that_differs_is_found_and_cut() -> None:
    picker = CropPicker(3, count=2, size=32)
    frames = [smooth(i) for i in range(3)]
    results = [frame.clone() for frame in frames]
    results[1][:, 60:92, 100:132] = 255 - results[1][:, 60:92, 100:132]
    for i, (gt, result) in enumerate(zip(frames, results, strict=True)):
        picker.add(f"{i}.png", degrade_bi(gt), result, gt)
    best, second = picker.crops()
    assert (best.frame, best.y, best.x) == ("1.png", 60, 100)
    assert best.difference > 10 * second.difference
    assert max(abs(best.y - second.y), abs(best.x - second.x)) >= 32
    place = (slice(None), slice(60, 92), slice(100, 132))
    assert torch.equal(pixels(best.result), results[1][place])
    assert torch.equal(pixels(best.gt), frames[1][place])
    lr = degrade_bi(frames[1])
    assert torch.equal(pixels(best.lr)[:, ::4, ::4], lr[:, 15:23, 25:33])
    assert torch.equal(pixels(best.bicubic), to_uint8(imresize(lr.float() / 255, 4))[place])


@pytest.mark.parametrize(("frames", "seen"), [(1, 1), (5, 5), (8, 8), (9, 8), (100, 8)])
def test_a_few_frames_spread_over_the_clip_are_looked_at(frames: int, seen: int) -> None:
    gt = smooth(0, 40, 40)
    picker = CropPicker(frames, count=200, size=4)
    for i in range(frames):
        result = gt.clone()
        result[:, i // 10 * 4 : i // 10 * 4 + 4, i % 10 * 4 : i % 10 * 4 + 4] ^= 255
        picker.add(str(i), None, result, gt)
    named = {crop.frame for crop in picker.crops() if crop.difference > 0}
    assert len(named) == seen
    assert all(crop.lr is None and crop.bicubic is None for crop in picker.crops())


def test_frames_smaller_than_a_crop() -> None:
    gt = smooth(1, 40, 60)
    picker = CropPicker(1)
    picker.add("a", None, gt, gt)
    (crop,) = picker.crops()
    assert pixels(crop.gt).shape == (3, 40, 60)
    tiny = CropPicker(1)
    tiny.add("a", None, gt[:, :3], gt[:, :3])
    assert tiny.crops() == ()


def test_limit_keeps_those_that_differ_most() -> None:
    crop = CropRecord("a", 0, 0, 0.0, None, None, b"", b"")
    crops = [[5.0, 1.0], [4.0, 4.0], [6.0]]
    clips = [
        ClipRecord(str(i), (), None, 0.0, crops=tuple(replace(crop, difference=d) for d in row))
        for i, row in enumerate(crops)
    ]
    left = [[c.difference for c in clip.crops] for clip in limit_crops(clips, 3)]
    assert left == [[5.0], [4.0], [6.0]]
    assert limit_crops(clips, 5) == tuple(clips)
