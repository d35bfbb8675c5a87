"""Windows as CUDA graphs. Without a GPU, `Again` stands for its graphs."""

import logging
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import iart
from iart.graphs import Recorder
from iart.model import IART
from iart.upscaling import graphs
from iart.upscaling.budget import Tiling
from iart.upscaling.clip import Step, enlarge_steps
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.graphs import KEPT, ROOM, WindowGraphs
from iart.video.frame import Frame
from tests.model.formula import with_formula_weights
from tests.upscaling.test_clip import TINY, noise


class Again(Recorder):
    """Stands for a GPU's graphs: a replay computes again, and overwrites what was given."""

    replays = 0

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        first = function()

        def replay() -> None:
            Again.replays += 1
            for old, new in zip(tree_leaves(first), tree_leaves(function()), strict=True):
                if old.data_ptr() != new.data_ptr():  # a view of an input
                    old.copy_(new)

        return replay, first


@pytest.fixture
def _suited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is to be recorded like a GPU."""
    monkeypatch.setattr(WindowGraphs, "_suits", lambda self, model, device: not self._is_off)


@pytest.fixture
def _recorded(_suited: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "Recorder", Again)
    Again.replays = 0


def network() -> IART:
    return with_formula_weights(IART(TINY)).eval()


def film(model: IART, enlarger: Enlarger, cuts: tuple[int, ...] = (0, 8)) -> list[Tensor]:
    """Frames of a film of two scenes, the first ones of which are cuts."""
    clip = noise(16, 3, 8, 12).to(model.extract.weight.device)
    frames = (Frame(x, i, Fraction(1, 25), 1, i in cuts) for i, x in enumerate(clip))
    return [frame.data for frame, _ in enlarge_steps((Step(x) for x in frames), enlarger)]


@pytest.mark.usefixtures("_recorded")
def test_replays_give_what_was_computed(monkeypatch: pytest.MonkeyPatch):
    model = network()
    enlarger = Enlarger(model, Tiling(4, 1, None))
    replayed = film(model, enlarger)
    assert Again.replays > 1
    assert 0 < enlarger._graphs.count <= KEPT
    monkeypatch.setattr(WindowGraphs, "_suits", lambda *_: False)
    plain = film(model, Enlarger(model, Tiling(4, 1, None)))
    assert all(a.equal(b) for a, b in zip(replayed, plain, strict=True))
    # Results are the caller's: no later window is written over them.
    assert len({x.data_ptr() for x in replayed}) == len(replayed)


@pytest.mark.usefixtures("_recorded")
def test_a_graph_holds_for_its_kind_alone():
    """Shapes, state, frames wanted, precision and weights; the rarest kind gives way."""
    model, windows, needed = network(), WindowGraphs(), 0
    clip, state = noise(5, 3, 8, 12)[None], {}

    def seen(count: int, stop: int, model: IART = model, state: Any = state) -> bool:
        before = Again.replays
        with torch.inference_mode():
            windows.advance(model, clip[:, :count], state, slice(0, stop), needed)
        return Again.replays > before

    assert [seen(3, 3) for _ in range(3)] == [False, True, True]
    with torch.inference_mode():
        after = model.advance(clip[:, :2], {})[1]
    other, changed = model.in_precision("bfloat16"), network()
    assert not any([seen(4, 4), seen(3, 2), seen(3, 3, other), seen(3, 3, changed)])
    assert not seen(3, 3, state=after)
    assert [seen(4, 4), seen(3, 3)] == [True, True]
    assert not seen(3, 2)  # twice, like the rarest of those that are kept: it stays
    assert [seen(3, 2), seen(4, 4)] == [True, False]
    assert windows.count == KEPT


@pytest.mark.usefixtures("_suited")
def test_a_recording_that_fails_is_said_once(caplog: pytest.LogCaptureFixture):
    """Here it truly fails: a CPU has no graphs."""
    caplog.set_level(logging.INFO, "iart")
    model = network()
    enlarger = Enlarger(model, Tiling(4, 1, None))
    tried = film(model, enlarger)
    assert len(caplog.records) == 1
    assert "windows are computed without CUDA graphs on cpu: " in caplog.text
    model.graphs = False
    plain = film(model, Enlarger(model, Tiling(4, 1, None)))
    assert all(a.equal(b) for a, b in zip(tried, plain, strict=True))


@pytest.mark.usefixtures("_suited")
def test_a_replay_that_gives_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Wrong(Again):
        def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
            first = function()
            return lambda: tree_leaves(first)[0].add_(1e-6), first

    monkeypatch.setattr(graphs, "Recorder", Wrong)
    caplog.set_level(logging.INFO, "iart")
    model, windows, clip = network(), WindowGraphs(), noise(2, 3, 8, 12)[None]
    with torch.inference_mode():
        large = [windows.advance(model, clip, {}, slice(None), 0)[0] for _ in range(3)]
    assert large[0].equal(large[1])
    assert large[0].equal(large[2])
    assert windows.count == 0
    assert "without CUDA graphs on cpu: a replay gives other numbers" in caplog.text


@pytest.mark.usefixtures("_recorded")
def test_graphs_need_room(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "iart")
    monkeypatch.setattr(graphs, "free_memory", lambda _: ROOM * 10**9 - 1)
    model, windows, clip = network(), WindowGraphs(), noise(2, 3, 8, 12)[None]
    with torch.inference_mode():
        for _ in range(3):
            windows.advance(model, clip, {}, slice(None), 10**9)
    assert Again.replays == 0
    assert "CUDA graphs on cpu: 3.0 GB would have to be free for them" in caplog.text


@pytest.mark.usefixtures("_recorded")
def test_a_second_graph_needs_room_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Until there is some; the first stays."""
    caplog.set_level(logging.INFO, "iart")
    free = ROOM
    monkeypatch.setattr(graphs, "free_memory", lambda _: free)
    model, windows, clip = network(), WindowGraphs(), noise(3, 3, 8, 12)[None]

    def seen(count: int) -> bool:
        before = Again.replays
        with torch.inference_mode():
            windows.advance(model, clip[:, :count], {}, slice(None), 1)
        return Again.replays > before

    assert [seen(3), seen(3)] == [False, True]
    free = ROOM - 1
    assert [seen(2), seen(2), seen(3)] == [False, False, True]
    free = ROOM
    assert seen(2)
    assert not caplog.records


@pytest.mark.usefixtures("_recorded")
def test_graphs_go_before_pieces_become_smaller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model, clip = network(), noise(4, 3, 8, 12)
    enlarger, advance = Enlarger(model, Tiling(4, 1, 12)), IART.advance
    for _ in range(2):
        enlarger.enlarge(clip, slice(0, 4))
    assert enlarger._graphs.count
    left = 1

    def advanced(self: IART, *args: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return advance(self, *args, **keywords)

    monkeypatch.setattr(IART, "advance", advanced)
    enlarger.enlarge(clip, slice(0, 3))
    assert enlarger.tiling == Tiling(4, 1, 12)
    assert not enlarger._graphs.count
    assert not caplog.records


# ---- on a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gpu_gives_the_same_with_graphs(precision: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "iart")
    model = iart.load_model("light", "cuda", precision)
    assert isinstance(model, IART)
    enlarger = Enlarger(model, Tiling(4, 1, None))
    replayed = film(model, enlarger)
    assert enlarger._graphs.count, caplog.text
    model.graphs = False
    plain = film(model, Enlarger(model, Tiling(4, 1, None)))
    assert all(a.equal(b) for a, b in zip(replayed, plain, strict=True))
    assert not any(a.equal(b) for a, b in pairwise(plain))
