import av
import numpy as np
import pytest
from av.filter import filters_available

from iart.video.read.scenes import CutDetector
from tests.video.clips import picture, pictures


def _cuts(images: list[np.ndarray], pixel_format: str = "yuv420p") -> list[int]:
    detector = CutDetector()
    found = []
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
        frame.pts = index
        if detector.is_cut(frame):
            found.append(index)
    return found


def test_the_filter_is_there():
    assert "scdet" in filters_available


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "rgb24", "gray", "gbrp16le"])
def test_hard_cuts_are_found_at_once(pixel_format: str):
    images = pictures(8) + pictures(7, scene=1) + pictures(5)
    assert _cuts(images, pixel_format) == [8, 15]


def test_a_cut_before_the_last_frame_is_found():
    assert _cuts([*pictures(5), picture(0, scene=1)]) == [5]


def test_a_pan_is_no_cut():
    assert _cuts([picture(i, speed=5.0) for i in range(12)]) == []


def test_a_pan_after_a_cut_is_no_second_cut():
    images = pictures(6) + [picture(i, scene=1, speed=7.0) for i in range(6)]
    assert _cuts(images) == [6]


def test_a_fade_is_no_cut():
    steps = np.linspace(0, 1, 16)
    assert _cuts([(picture(i) * step).astype(np.uint8) for i, step in enumerate(steps)]) == []
    cross = [
        (picture(i) * (1 - s) + picture(i, scene=1) * s).astype(np.uint8)
        for i, s in enumerate(steps)
    ]
    assert _cuts(cross) == []


def test_noise_is_no_cut():
    random = np.random.default_rng(0)
    noisy = [
        np.clip(image + random.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
        for image in pictures(10)
    ]
    assert [cut for cut in _cuts(noisy) if cut > 1] == []


def test_a_change_of_size_is_a_cut():
    assert _cuts(pictures(3) + pictures(3, width=80)) == [3]
