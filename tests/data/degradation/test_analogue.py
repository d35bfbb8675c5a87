"""What a video recorder does to a signal."""

import math

import numpy as np
import pytest
import torch

from iart.data.degradation.analogue import dots, low_pass, play_tape, shifted_rows
from iart.data.degradation.parameters import Tape

CLEAN = Tape(luma_lines=2000, chroma_lines=2000)


def play(luma, chroma, **changes):
    how = CLEAN.model_copy(update=changes)
    return play_tape(luma, chroma, how, np.random.default_rng(0))


def flat(level: float = 0.5, side: int = 64):
    return torch.full((2, side, side), level), torch.zeros(2, 2, side, side)


@pytest.mark.parametrize("lines", [200.0, 300.0])
def test_bandwidth_in_lines(lines: float):
    """A period of so many lines per picture height, of 720 samples a line, loses half."""
    cycles = lines * 4 / 3 / 2 / 720
    wave = torch.cos(2 * math.pi * cycles * torch.arange(256)).expand(4, -1)
    half = low_pass(wave, lines)[..., 64:-64]
    assert float(half.square().mean().sqrt() * math.sqrt(2)) == pytest.approx(0.5, abs=0.03)


def test_colours_come_late():
    luma, chroma = flat()
    chroma[..., 32:] = 0.2
    _, late = play(luma, chroma, chroma_delay_x=3.0, chroma_delay_y=2.0)
    assert late[0, 0, 10, 34] < 0.02 < 0.18 < late[0, 0, 10, 36]
    chroma = torch.zeros(2, 2, 64, 64)
    chroma[..., 32:, :] = 0.2
    _, low = play(luma, chroma, chroma_delay_y=2.0)
    assert low[0, 0, 33, 10] < 0.02 < 0.18 < low[0, 0, 34, 10]


def test_noise():
    luma, chroma = flat()
    noisy, colours = play(luma, chroma, luma_noise=4.0, chroma_noise=3.0)
    assert float(noisy.std()) * 255 == pytest.approx(4, rel=0.15)
    assert float(colours.std()) * 255 == pytest.approx(3, rel=0.15)
    # of colours it lies in streaks along lines
    along = (colours[..., 1:] - colours[..., :-1]).abs().mean()
    across = (colours[..., 1:, :] - colours[..., :-1, :]).abs().mean()
    assert along < 0.3 * across


def test_lines_jitter_each_for_itself():
    luma, chroma = flat()
    luma[..., 32:] = 1.0
    moved, _ = play(luma, chroma, jitter=1.0)
    edges = (1.0 - moved).sum(dim=-1) / 0.5
    assert 0.6 < float(edges.std()) < 1.4
    assert not edges[0].equal(edges[1])


def test_dots_crawl_where_colours_end():
    chroma = torch.zeros(2, 2, 64, 64)
    chroma[:, 0, 32:] = 0.2
    crawl = dots(chroma)
    assert crawl[:, 31:34].abs().max() > 0.05
    assert crawl[:, :30].abs().max() == 0
    assert crawl[:, 40:60].abs().max() < 0.01
    assert (crawl[0, 32] + crawl[1, 32]).abs().max() < 0.01  # opposite in the next picture


def test_head_switching_tears_the_last_rows():
    luma, chroma = flat()
    luma[..., 32:] = 1.0
    torn, _ = play(luma, chroma, head_switching=8)
    assert torn[:, :56].equal(play(luma, chroma)[0][:, :56])
    assert (torn[:, -1] - luma[:, -1]).abs().sum() > 3


def test_shifted_rows():
    row = torch.arange(8.0)
    moved = shifted_rows(row[None], torch.tensor([1.5]))
    assert moved[0, 2:].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert moved[0, 0] == 0
