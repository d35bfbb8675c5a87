import pytest
import torch
from einops import rearrange

from iart.model import IART, IARTConfig
from iart.model.align import ImplicitAlign
from iart.model.flow import warp
from iart.train.flow_lessons import motion_energy_filters
from iart.train.initial_weights import start, start_align

CONFIG = IARTConfig(
    channels=16, mid_channels=8, head_channels=8, flow_channels=(8, 8), flow_levels=2,
    depths=(2,), heads=(4,), window=(3, 4, 4), branches=2, drop_path=0.0,
)  # fmt: skip


@pytest.fixture
def model() -> IART:
    torch.manual_seed(0)
    model = IART(CONFIG).eval()
    start(model)
    return model


def test_begins_at_the_bilinear_enlargement(model: IART) -> None:
    frames = torch.rand(1, 3, 3, 12, 16)
    with torch.inference_mode():
        enlarged = torch.nn.functional.interpolate(
            frames[0], scale_factor=4, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(model(frames)[0], enlarged)


@pytest.mark.parametrize("flow", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (2.0, -1.0), (-1.5, 0.5)])
def test_alignment_begins_near_interpolation(flow: tuple[float, float]) -> None:
    torch.manual_seed(0)
    align = ImplicitAlign(32, 4)
    start_align(align)
    features = 0.3 * torch.randn(1, 12, 12, 32)
    features[..., [1, 2, 17, 18]] = 0  # as `start` leaves them
    field = torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, 12, 12).contiguous()
    values = rearrange(features @ align.value.weight.T, "b h w c -> b c h w")
    expected = rearrange(warp(values, field), "b c h w -> b h w c")
    inside = (slice(None), slice(3, -3), slice(3, -3))
    actual = align(features, features, field)
    # Neither the cells' encodings nor other cells show through.
    error = (actual - expected)[inside].abs().mean()
    unaligned = (expected - features @ align.value.weight.T)[inside].abs().mean()
    assert error < 0.25 * expected[inside].abs().mean()
    assert flow == (0.0, 0.0) or error < 0.5 * unaligned


def test_first_heads_look_one_and_two_frames_back(model: IART) -> None:
    attention = model.branches["backward_1"].groups[0].blocks[0].attention  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    weights = attention.biases(shifted=False)[0].softmax(-1)
    k = 16
    middle = slice(k, 2 * k)
    same_place = [
        weights[head, middle, frame * k : (frame + 1) * k] for head, frame in ((0, 0), (1, 2))
    ]
    for share in same_place:
        assert share.sum(-1).min() > 0.8
        assert torch.equal(share.argmax(-1), torch.arange(k))


def test_motion_energy_filters_tell_the_direction() -> None:
    """Rectified outputs of opposite filters differ in sign with the direction of a moving edge."""
    filters = motion_energy_filters(8, 7)
    assert filters.shape == (8, 6, 7, 7)
    ramp = torch.arange(15.0).expand(3, 15, 15)
    still, right = torch.cat((ramp, ramp)), torch.cat((ramp, ramp - 1))
    response = [
        torch.nn.functional.conv2d(pair[None], filters)[0, :, 4, 4].abs() for pair in (still, right)
    ]
    vertical_axis_pairs = response[1][:4] - response[0][:4]
    assert vertical_axis_pairs.max() > 0.1
    assert vertical_axis_pairs.min() < -0.1
