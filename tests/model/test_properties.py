"""What must hold for any weights and any input, on a tiny network."""

import re
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iart.model import IART, IARTConfig
from iart.model.align import ImplicitAlign
from iart.model.flow import exact_convolutions, neighbour_flows, warp
from iart.model.fuse import drop_path
from tests.model.formula import smooth_input, with_formula_weights

TINY = IARTConfig(
    channels=8, mid_channels=4, head_channels=4, flow_channels=(4, 6), flow_levels=2,
    depths=(2, 1), heads=(2, 4), window=(3, 4, 4), drop_path=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> IART:
    return with_formula_weights(IART(TINY))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# ---- any input


@torch.inference_mode()
def test_a_batch_is_its_clips_one_by_one(model: IART):
    clips = smooth_input("batch", (3, 4, 3, 9, 14), clamp=True)
    alone = torch.cat([model(clip[None]) for clip in clips])
    assert_close(model(clips), alone)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips(model: IART, frames: int):
    out = model(noise(2, frames, 3, 6, 10))
    assert out.shape == (2, frames, 3, 24, 40)
    assert out.isfinite().all()


@settings(max_examples=25)
@given(h=st.integers(1, 20), w=st.integers(1, 20), frames=st.integers(1, 3))
def test_any_size(model: IART, h: int, w: int, frames: int):
    with torch.inference_mode():
        out = model(noise(1, frames, 3, h, w))
    assert out.shape == (1, frames, 3, 4 * h, 4 * w)
    assert out.isfinite().all()


@torch.inference_mode()
def test_full_pyramid_at_one_pixel():
    config = IARTConfig(8, 4, 4, depths=(1,), heads=(2,))
    assert with_formula_weights(IART(config))(noise(1, 2, 3, 1, 1)).isfinite().all()


@torch.inference_mode()
def test_non_contiguous_input(model: IART):
    clip = noise(1, 3, 3, 9, 14)
    last = clip.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    strided = noise(1, 6, 3, 18, 14)
    strided[:, ::2, :, ::2] = clip
    for same in (last, strided[:, ::2, :, ::2], clip.transpose(3, 4).contiguous().transpose(3, 4)):
        assert not same.is_contiguous()
        assert_close(model(same), model(clip))


@torch.inference_mode()
def test_float64(model: IART):
    clip = smooth_input("double", (1, 3, 3, 9, 14), clamp=True)
    double = with_formula_weights(IART(TINY)).double()
    out = double(clip.double())
    assert out.dtype == torch.float64
    # The sine encoding turns 100 times faster than the flow: rounding shows.
    assert_close(out.float(), model(clip), 1e-3)


@torch.inference_mode()
def test_number_of_branches():
    for branches in (1, 2, 3):
        model = IART(IARTConfig(8, 4, 4, (4,), 2, (1,), (2,), (3, 4, 4), branches))
        assert len(model.branches) == branches
        assert model(noise(1, 3, 3, 5, 5)).isfinite().all()


# ---- calls do not depend on each other


def test_no_state_between_calls(model: IART):
    a, b = noise(1, 3, 3, 9, 14, seed=1), noise(2, 2, 3, 17, 5, seed=2)
    before = {name: t.clone() for name, t in [*model.named_buffers(), *model.named_parameters()]}
    attributes = [{**part.__dict__} for part in model.modules()]
    with torch.inference_mode():
        first, _, second = model(a), model(b), model(a)
    assert second.equal(first)  # which also says that evaluation is deterministic
    after = dict([*model.named_buffers(), *model.named_parameters()])
    assert after.keys() == before.keys()
    assert all(after[name].equal(t) for name, t in before.items())
    assert [{**part.__dict__} for part in model.modules()] == attributes


def test_training_after_inference_mode():
    model = IART(TINY)
    with torch.inference_mode():
        model(noise(1, 3, 3, 8, 8))
    model.train()(noise(1, 3, 3, 8, 8)).sum().backward()
    assert model.extract.weight.grad is not None


# ---- training


def test_gradients_reach_every_parameter():
    model = with_formula_weights(IART(TINY)).train()
    clip = smooth_input("gradients", (1, 4, 3, 9, 14), clamp=True)
    (model(clip) * noise(1, 4, 3, 36, 56)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    unreached = [name for name, g in gradients.items() if g is None or not g.any()]
    assert unreached == []
    # A bias of the keys adds the same to all logits of a query: softmax does not see it.
    key_bias = gradients["align.key.bias"]
    other = gradients["align.value.bias"]
    assert key_bias is not None
    assert other is not None
    assert key_bias.abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 5)])
def test_stochastic_depth_follows_its_draws(h: int, w: int):
    config = IARTConfig(8, 4, 4, (4,), 2, (2, 2), (2, 2), (3, 4, 4), drop_path=0.5)
    model, clip = with_formula_weights(IART(config)), noise(2, 3, 3, h, w)
    draws = noise(2, 4, 3, 4, 2)
    with torch.inference_mode():
        kept = model(clip)
        dropped = model(clip, draws)
        assert model(clip, draws).equal(dropped)
        assert not dropped.equal(kept)
        assert_close(dropped, torch.cat([model(clip[i : i + 1], draws[i : i + 1]) for i in (0, 1)]))
        # Nothing is below a rate of 0, and all that is kept is scaled.
        assert not model(clip, torch.ones_like(draws)).equal(kept)


def test_every_draw_counts():
    """Each of branches × frames × blocks × 2 numbers of a sample drops something of its own."""
    config = IARTConfig(8, 4, 4, (4,), 2, (2, 1), (2, 2), (3, 4, 4), branches=2, drop_path=0.5)
    model, clip = with_formula_weights(IART(config)), noise(1, 3, 3, 8, 8)
    draws = torch.ones(1, 2, 3, 3, 2)
    with torch.inference_mode():
        kept = model(clip, draws)
        for place in torch.ones_like(draws).nonzero().tolist():
            one = draws.index_put(tuple(torch.tensor(place)), torch.tensor(0.0))
            assert model(clip, one).equal(kept) == (place[3] == 0)  # the first block has rate 0


def test_drop_path_keeps_the_expectation():
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    out = drop_path(torch.ones(20_000, 2, 3), 0.3, draws)
    assert out.flatten(1).std(dim=1).max() == 0  # whole samples
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.7]))
    assert abs(float(out.mean()) - 1) < 0.02


def test_drop_path_without_effect():
    x = noise(4, 3)
    assert drop_path(x, 0.3, None) is x
    assert drop_path(x, 0.0, torch.zeros(4)) is x


def test_recomputing_changes_no_gradient():
    config = IARTConfig(8, 4, 4, (4,), 2, (2, 1), (2, 2), (3, 4, 4), drop_path=0.5)
    model = with_formula_weights(IART(config)).train()
    clip, draws = smooth_input("recompute", (2, 4, 3, 8, 8), clamp=True), noise(2, 4, 4, 3, 2)
    gradients: list[list[Tensor]] = []
    for recompute in (False, True):
        out = model(clip, draws, recompute=recompute)
        (out * noise(2, 4, 3, 32, 32)).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
    assert len(gradients[1]) == len(gradients[0]) == len(list(model.parameters()))
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


def test_rates_of_stochastic_depth_grow_linearly():
    model = IART(IARTConfig(8, 4, 4, (4,), 2, (2, 3), (2, 2), (3, 4, 4), drop_path=0.2))
    for fuse in model.branches.values():
        rates = [part.drop for part in fuse.modules() if hasattr(part, "drop")]
        assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


# ---- flow


@torch.inference_mode()
def test_a_mirror_extended_clip_saves_half_of_the_flow(model: IART):
    half = smooth_input("mirror", (2, 3, 3, 9, 14), clamp=True)
    mirrored = torch.cat((half, half.flip(1)), dim=1)
    batches: list[int] = []
    hook = model.flow.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    backward, forward = neighbour_flows(model.flow, mirrored, mirrored=True)
    backward_long, forward_long = neighbour_flows(model.flow, mirrored)
    hook.remove()
    assert batches == [2 * 5, 2 * 5, 2 * 5]
    assert_close(backward, backward_long)
    assert_close(forward, forward_long)


@torch.inference_mode()
def test_flows_point_both_ways(model: IART):
    clip = smooth_input("ways", (2, 3, 3, 9, 14), clamp=True)
    backward, forward = neighbour_flows(model.flow, clip)
    for i in range(2):
        assert_close(backward[:, i], model.flow(clip[:, i], clip[:, i + 1]))
        assert_close(forward[:, i], model.flow(clip[:, i + 1], clip[:, i]))


@torch.inference_mode()
def test_flows_of_a_long_clip_are_computed_a_few_pairs_at_a_time(
    model: IART, monkeypatch: pytest.MonkeyPatch
):
    clip = smooth_input("pairs", (1, 6, 3, 9, 14), clamp=True)
    batches: list[int] = []
    hook = model.flow.levels[0].register_forward_hook(lambda _, x, __: batches.append(len(x[0])))
    whole = neighbour_flows(model.flow, clip)
    monkeypatch.setattr("iart.model.flow.PIXELS_AT_ONCE", 2 * 9 * 14)
    parts = neighbour_flows(model.flow, clip)
    with torch.inference_mode(False), torch.enable_grad():
        neighbour_flows(model.flow, clip.clone())
    hook.remove()
    assert batches == [5, 5, *(2, 2, 1) * 2, 5, 5]
    for one, other in zip(whole, parts, strict=True):
        assert_close(one, other)


@torch.inference_mode()
def test_flows_may_be_given(model: IART):
    clip = smooth_input("given", (1, 3, 3, 9, 14), clamp=True)
    backward, forward = neighbour_flows(model.flow, clip)
    assert model(clip, flows=(backward, forward)).equal(model(clip))
    assert not model(clip, flows=(backward + 1, forward)).equal(model(clip))


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9")
def test_convolutions_of_the_flow_are_exact_whatever_is_set(model: IART):
    backends = (torch.backends.cudnn, torch.backends.mkldnn)
    kinds = [backend.conv for backend in backends]  # pyright: ignore[reportAttributeAccessIssue]
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.extend(kind.fp32_precision for kind in kinds)

    hooks = [part.register_forward_hook(look) for part in (model.flow.levels[0], model.extract)]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "tf32"
        model(noise(1, 2, 3, 8, 8))
    finally:
        for hook in hooks:
            hook.remove()
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
    assert seen == ["ieee"] * 4 + ["tf32"] * 4  # flow both ways, then features of two frames


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9")
def test_threads_that_overlap_leave_the_setting_as_it_was():
    kind = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before, entered, left = kind.fp32_precision, threading.Event(), threading.Event()

    def other() -> None:
        with exact_convolutions():
            entered.set()
            left.wait()

    kind.fp32_precision = "tf32"
    try:
        thread = threading.Thread(target=other)
        with exact_convolutions():
            thread.start()
            entered.wait()
        assert kind.fp32_precision == "ieee"  # as the other one needs
        left.set()
        thread.join()
        assert kind.fp32_precision == "tf32"
    finally:
        left.set()
        kind.fp32_precision = before


def test_warp_by_whole_pixels_is_a_shift():
    x, flow = noise(1, 2, 6, 8), torch.zeros(1, 2, 6, 8)
    flow[:, 0] = 2  # look two pixels to the right
    assert_close(warp(x, flow)[..., :6], x[..., 2:])
    assert warp(x, flow)[..., 6:].abs().max() == 0
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 1] = -1  # look one pixel up
    assert_close(warp(x, flow, "border")[..., 1:, :], x[..., :-1, :])
    assert_close(warp(x, flow, "border")[..., 0, :], x[..., 0, :])


# ---- parts and frames of choice


@torch.inference_mode()
def test_frames_that_are_not_kept_are_context(model: IART):
    clip = noise(1, 4, 3, 8, 12)
    assert model(clip, kept=slice(1, 3)).equal(model(clip)[:, 1:3])


@torch.inference_mode()
def test_every_step_can_be_called_in_another_way(model: IART):
    names: list[str] = []

    def apply(part: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        names.append(getattr(part, "__name__", type(part).__name__))
        return part(*inputs)

    clip = noise(1, 3, 3, 8, 12)
    assert model(clip, kept=slice(0, 2), apply=apply).equal(model(clip)[:, :2])
    assert names == ["_extract"] * 3 + ["step"] * 3 * 4 + ["Head"] * 2


# ---- implicit alignment


@pytest.fixture(scope="module")
def align() -> ImplicitAlign:
    return with_formula_weights(ImplicitAlign(8, 2), "align.")


@torch.inference_mode()
@pytest.mark.parametrize(("top", "left"), [(0, 0), (12, 20), (57, 101)])
def test_alignment_does_not_depend_on_where_a_tile_lies(align: ImplicitAlign, top: int, left: int):
    """But for rounding, and for cells beyond the tile's borders."""
    source, current = noise(1, 96, 160, 8, seed=1) - 0.5, noise(1, 96, 160, 8, seed=2) - 0.5
    reach = 4
    flow = 2 * (reach - 1) * (noise(1, 2, 96, 160, seed=3) - 0.5)
    tile = (slice(top, top + 32), slice(left, left + 48))
    whole = align(source, current, flow)[:, *tile]
    cropped = align(source[:, *tile], current[:, *tile], flow[..., *tile])
    inside = (slice(None), slice(reach, -reach), slice(reach, -reach))
    torch.testing.assert_close(cropped[inside], whole[inside], rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_still_picture_looks_at_its_own_cells(align: ImplicitAlign):
    source, current = noise(1, 6, 7, 8, seed=1), noise(1, 6, 7, 8, seed=2)
    still = torch.zeros(1, 2, 6, 7)
    out = align(source, current, still)
    other = source.clone()
    other[:, 2:4, 3:5] += 1
    changed = (align(other, current, still) != out).any(-1)[0]
    expected = torch.zeros(6, 7, dtype=torch.bool)
    expected[1:4, 2:5] = True  # pixels of which one of p + {0, 1}² was changed
    assert changed.equal(expected)


@torch.inference_mode()
@pytest.mark.parametrize("rounding", [-1e-7, 1e-7])
def test_rounding_does_not_move_a_still_picture(align: ImplicitAlign, rounding: float):
    source, current = noise(1, 6, 7, 8, seed=1), noise(1, 6, 7, 8, seed=2)
    still = torch.zeros(1, 2, 6, 7)
    assert_close(align(source, current, still + rounding), align(source, current, still), 1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("pixels", [50.0, 1e6, 1e18])
def test_flow_far_outside_meets_the_border(align: ImplicitAlign, pixels: float):
    source, current = noise(1, 6, 7, 8, seed=1), noise(1, 6, 7, 8, seed=2)
    corner = source[:, -1:, -1:].expand_as(source)
    far, none = torch.full((1, 2, 6, 7), pixels), torch.zeros(1, 2, 6, 7)
    assert_close(align(source, current, far), align(corner, current, none))


# ---- configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2,)}, "depths (2,) and heads (6, 6, 6) must be equally long"),
        ({"channels": 122}, "channels (122) must be divisible by 4 and by heads (6, 6, 6)"),
        ({"heads": (6, 6, 7)}, "channels (120) must be divisible by 4 and by heads (6, 6, 7)"),
        ({"window": (2, 8, 8)}, "a window spans 3 frames, got (2, 8, 8)"),
        ({"branches": 0}, "branches must be 1 to 4, got 0"),
        ({"branches": 5}, "branches must be 1 to 4, got 5"),
    ],
)
def test_impossible_configurations(change: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        IARTConfig(**change)


def test_alignment_needs_divisible_channels():
    with pytest.raises(ValueError, match=re.escape("channels (10) must be divisible by heads (2)")):
        ImplicitAlign(10, 2)
