"""The shape of pixels, written and read back for every codec in every container that holds it."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from iart.video.write.codecs import CONTAINERS, fitting_codecs
from iart.video.write.writer import VideoWriter
from tests.video.outputs import frame_at, images

ASPECTS = [Fraction(8, 9), Fraction(32, 27), Fraction(16, 15), Fraction(64, 45), Fraction(27, 32)]
PAIRS = [
    (name, codec)
    for name, container in CONTAINERS.items()
    for codec in fitting_codecs(container)
    if not codec.startswith("nvenc")  # few machines have it
]


@pytest.mark.parametrize(("name", "codec"), PAIRS)
def test_every_pair_keeps_every_shape(tmp_path: Path, name: str, codec: str):
    for aspect in ASPECTS:
        path = tmp_path / f"{aspect.numerator}.{name}"
        info = images(tmp_path, sample_aspect=aspect)
        with VideoWriter(path, like=info, scale=1, codec=codec) as writer:
            writer.write(frame_at(info, 0))
            writer.write(frame_at(info, 1))
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.sample_aspect_ratio == aspect
            assert len(list(container.decode(video=0))) == 2


def test_the_pairs_are_those_that_people_ask_for():
    assert {codec for name, codec in PAIRS if name == "mkv"} == {
        "x264", "x265", "svt-av1", "ffv1", "prores",
    }  # fmt: skip
    assert all(a != b for a, b in pairwise(PAIRS))
