"""What a video recorder does to a signal, and the whole chain."""

import math

import numpy as np
import pytest
import torch

from iart.data.degradation.chain import (
    degrade,
    degrade_frames,
    dots,
    low_pass,
    play_tape,
    shifted_rows,
)
from iart.data.degradation.draw import draw, draw_kind
from iart.data.degradation.parameters import (
    GRID,
    KINDS,
    Coding,
    Degradation,
    Grain,
    Kind,
    Reduction,
    Scan,
    Sharpening,
    Tape,
    padded,
)
from iart.pictures.degrade import degrade_bi, to_uint8
from tests.data.degradation.made import MPEG2, SCANS, chain, clean, moving, psnr, sliding, through

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


FRAMES = 5


@pytest.mark.parametrize("scan", SCANS, ids=repr)
@pytest.mark.parametrize("lead", [0, 3])
def test_truth_is_the_moment_of_the_frame(scan: Scan, lead: int):
    how = chain(scan=scan, lead=lead, codings=(MPEG2,))
    clip = sliding(how.moments(FRAMES), speed=8.0)
    low, moments = degrade(clip, how, FRAMES)
    step = how.moments_per_frame
    assert moments == tuple(range(how.before, how.before + step * FRAMES, step))
    reduced = clean(clip)
    for frame, moment in zip(low.float() / 255, moments, strict=True):
        near = range(max(moment - 1, 0), min(moment + 2, len(clip)))
        inside = (..., slice(8, -8), slice(8, -8))
        scores = {other: psnr(frame[inside], reduced[other][inside]) for other in near}
        assert max(scores, key=scores.__getitem__) == moment


def test_bicubic_is_the_published_reduction():
    clip = moving(FRAMES)
    how = draw_kind("bicubic", np.random.default_rng(0))
    low, moments = degrade(clip, how, FRAMES)
    assert low.equal(degrade_bi(to_uint8(clip)))
    assert moments == tuple(range(FRAMES))


def test_without_steps_only_colours_are_rounded():
    clip = clean(moving(2, side=128)).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    grey = clip.repeat_interleave(4, -1).repeat_interleave(4, -2)
    low = through(chain(), grey, 2)
    assert (low - clip).abs().max() < 1.5 / 219


def test_a_wider_kernel_is_softer():
    clip = moving(1, side=128)

    def detail(width: float) -> float:
        low = through(chain(reduction=Reduction(kernel="cubic", width_y=width)), clip, 1)
        return float((low[..., 1:, :] - low[..., :-1, :]).abs().mean())

    assert detail(1.8) < 0.9 * detail(1.3) < 0.9 * detail(1.0)


def test_edge_enhancement_leaves_halos():
    edge = torch.full((1, 3, 128, 128), 0.3)
    edge[..., 64:] = 0.6
    sharp = Sharpening(amount_x=1.0, amount_y=0.0, radius=1.5)
    row = through(chain(sharpening=sharp), edge, 1)[0, 1, 16]
    assert row[14:16].min() < 0.3 - 0.05
    assert row[16:18].max() > 0.6 + 0.05
    assert (row[:6] - 0.3).abs().max() < 0.01


def test_grain_is_new_in_every_frame_and_weak_in_black():
    levels = torch.zeros(2, 3, 128, 256)
    levels[..., 128:] = 0.5
    how = chain(grain=Grain(strength=5.0))
    low = through(how, levels, 2)[:, 1]
    black, grey = low[..., 2:30], low[..., 34:62]
    assert 3.5 / 255 < float(grey.std()) < 6.5 / 255
    assert black.std() < 0.5 * grey.std()
    between = torch.corrcoef(torch.stack((grey[0].flatten(), grey[1].flatten())))[0, 1]
    assert between.abs() < 0.2
    assert through(how, levels, 2).equal(through(how, levels, 2))


# ---- parameters


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_a_kind(kind: Kind):
    drawn = [draw_kind(kind, np.random.default_rng((1, i))) for i in range(60)]
    assert {how.kind for how in drawn} == {kind}
    assert draw_kind(kind, np.random.default_rng((1, 5))) == drawn[5]
    assert Degradation.model_validate_json(drawn[7].model_dump_json()) == drawn[7]
    assert {how.left for how in drawn} == set(range(GRID))
    progressive = [how.top for how in drawn if how.scan.kind == "progressive"]
    assert {top % 2 for top in progressive} == {0, 1}
    assert not any(how.top % 2 for how in drawn if how.scan.kind != "progressive")
    scans = {how.scan.kind for how in drawn}
    fields = {"interlaced", "telecined"} if kind in ("dvd", "tape") else set()
    assert scans == {"progressive"} | fields
    codecs = {coding.codec for how in drawn for coding in how.codings}
    assert (
        codecs
        == {
            "bicubic": set(),
            "mpeg2": {"mpeg2video"},
            "dvd": {"mpeg2video"},
            "tape": {"mpeg2video", "dvvideo"},
            "web": {"mpeg4", "libx264", "flv", "h263p"},
        }[kind]
    )


def test_kinds_come_in_their_shares():
    shares: dict[Kind, float] = {"dvd": 2.0, "web": 1.0, "tape": 0.0, "bicubic": 1.0}
    kinds = [draw(shares, np.random.default_rng(i)).kind for i in range(400)]
    assert kinds.count("tape") == 0
    assert 160 < kinds.count("dvd") < 240
    assert 70 < kinds.count("web") < 130


@pytest.mark.parametrize("kind", KINDS)
def test_equal_parameters_give_equal_frames(kind: Kind):
    for index in range(3):
        how = draw_kind(kind, np.random.default_rng((2, index)))
        clip = moving(how.moments(3), side=4 * padded(16))
        low, moments = degrade(clip, how, 3)
        again, _ = degrade(clip, how, 3)
        assert low.equal(again)
        assert low.shape == (3, 3, padded(16), padded(16))
        assert psnr(low.float() / 255, clean(clip[list(moments)])) > 14


# ---- whole clips


@pytest.mark.parametrize(
    "scan", [Scan(), Scan(kind="interlaced"), Scan(kind="telecined")], ids=repr
)
def test_whole_clips_keep_their_frames(scan: Scan):
    how = chain(scan=scan, lead=2, top=4, left=7, codings=(MPEG2,))
    clip = sliding(9, speed=8.0, side=200)

    def read(places):
        return clip[list(places)]

    low = torch.cat(
        [degrade_frames(read, chosen, 9, how) for chosen in (range(4), range(4, 9))]
    ).float() / 255  # fmt: skip
    reduced = clean(clip)
    assert low.shape == reduced.shape
    inside = (..., slice(4, -4), slice(4, -4))
    for index, frame in enumerate(low):
        scores = [psnr(frame[inside], other[inside]) for other in reduced]
        assert int(np.argmax(scores)) == index


def test_sides_that_are_no_macroblocks():
    how = chain(kind="web", codings=(Coding(codec="h263p", quantiser=2),))
    clip = sliding(3, 4.0, side=200)
    low = degrade_frames(lambda places: clip[list(places)], range(3), 3, how).float() / 255
    assert psnr(low, clean(clip)) > 25
