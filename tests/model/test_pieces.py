"""Without a gradient the CPU computes in pieces that fit into its cache: the result is the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iart.model import IART, IARTConfig, align, fuse, upsample
from iart.model.conv import Conv, Stripes, pointwise
from iart.model.fuse import SwinIRFM
from iart.model.kernels import operators, plain
from iart.model.kernels.dispatch import attend_fused
from iart.model.window import WindowGrid, middle
from tests.model.formula import with_formula_weights

SMALL = IARTConfig(
    channels=8,
    mid_channels=8,
    head_channels=4,
    flow_channels=(4, 4, 4, 4),
    flow_levels=2,
    depths=(2, 3),
    heads=(2, 2),
    window=(3, 4, 4),
    branches=2,
)


@pytest.fixture
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "CELLS_AT_ONCE", 100)
    monkeypatch.setattr(upsample, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(align, "PIXELS_AT_ONCE", 7)
    monkeypatch.setattr(plain, "LOGITS_AT_ONCE", 1)


@pytest.mark.usefixtures("tiny_pieces")
@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 17), (4, 4), (5, 9), (8, 12), (13, 6)])
def test_pieces_give_what_the_whole_gives(h: int, w: int):
    model = with_formula_weights(IART(SMALL))
    clip = torch.rand(2, 3, 3, h, w, generator=torch.Generator().manual_seed(0))
    whole = model(clip)  # with a gradient
    assert whole.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(model(clip), whole.detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("only_middle", [False, True])
@pytest.mark.parametrize(("h", "w", "shifted"), [(8, 4, False), (5, 9, False), (6, 11, True)])
def test_windows_have_the_gradient_of_an_index(h: int, w: int, shifted: bool, only_middle: bool):
    """With padding and without: that of adding up, of which there is nothing here."""
    grid = WindowGrid(2, h, w, (3, 4, 4), shifted=shifted)
    (chunk,) = grid.chunks
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(grid.rows, 5, generator=generator).requires_grad_()
    factors = torch.randn(*chunk.target.shape, 1, generator=generator)

    def of_frames(cells: Tensor) -> Tensor:
        return middle(cells) if only_middle else cells

    cells = grid.cut(x, chunk)
    assert cells.equal(x[chunk.source])
    out = grid.join([of_frames(cells * factors)], None, only_middle=only_middle)
    by_cell = (x[chunk.source] * factors).flatten(0, 1)
    by_row = torch.zeros(grid.rows + 1, 5).index_put((chunk.target.flatten(),), by_cell)
    expected = by_row[:-1].view(2, 3, h * w, 5)
    expected = (expected[:, 1] if only_middle else expected).reshape(-1, 5)
    assert out.equal(expected)
    grad = torch.randn(out.shape, generator=generator)
    found, wanted = (torch.autograd.grad(y, x, grad)[0] for y in (out, expected))
    assert found.equal(wanted)


@torch.inference_mode()
def test_what_goes_in_is_not_overwritten():
    fusing = with_formula_weights(SwinIRFM(8, (2, 2), (2, 2), (3, 4, 4), drop=0.1), "branches.x.")
    maps = torch.rand(1, 3, 9, 10, 8)
    before = maps.clone()
    first = fusing(maps)
    assert maps.equal(before)
    assert fusing(maps).equal(first)


@pytest.mark.parametrize("grad", [False, True])
def test_a_sum_in_float32_stays_so_under_autocast(grad: bool):
    """As it is on a GPU, where autocast normalises maps of any type to float32."""
    fusing = with_formula_weights(SwinIRFM(8, (2, 2), (2, 2), (3, 4, 4), drop=0.1), "branches.x.")
    types: list[torch.dtype] = []
    for group in fusing.groups:
        group.register_forward_hook(lambda _, __, out: types.append(out.dtype))
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        fusing(torch.rand(1, 3, 9, 10, 8))
    assert types == [torch.float32, torch.float32]


@torch.inference_mode()
@pytest.mark.parametrize("rows", [[9], [2, 7], [2, 2, 5], [3, 5, 1]])
def test_a_convolution_in_stripes(rows: list[int]):
    conv = Conv(3, 5)
    x = torch.rand(2, 9, 4, 3)
    stripes = Stripes(conv)
    parts = x.split(rows, dim=1)
    got = [stripes(part, last=i == len(parts) - 1) for i, part in enumerate(parts)]
    torch.testing.assert_close(torch.cat(got, dim=1), conv(x))


def head_tensors(q: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of one tensor, as the projections give them."""
    generator = torch.Generator().manual_seed(1)
    packed = torch.randn(5, k, 18, generator=generator, dtype=torch.float64)
    query, key, value = (
        x.unflatten(-1, (2, 3)).transpose(1, 2).requires_grad_() for x in packed.chunk(3, -1)
    )
    bias = torch.randn(2, q, k, generator=generator, dtype=torch.float64, requires_grad=True)
    return query[:, :, :q], key, value, bias


@pytest.mark.parametrize("at_once", [1, 2**20])
@pytest.mark.parametrize(("q", "k"), [(6, 6), (2, 6)])
def test_attention(monkeypatch: pytest.MonkeyPatch, at_once: int, q: int, k: int):
    monkeypatch.setattr(plain, "LOGITS_AT_ONCE", at_once)
    query, key, value, bias = head_tensors(q, k)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
    torch.testing.assert_close(operators.attend(query, key, value, bias, "native"), expected)
    assert torch.autograd.gradcheck(
        lambda *maps: operators.attend(*maps, "native"), (query, key, value, bias)
    )


@pytest.mark.parametrize("d", [3, 8, 20])
def test_channels_of_a_head_are_filled_up(d: int):
    query, key, value = torch.randn(3, 2, 2, 12, d, dtype=torch.float64).unbind()
    bias = torch.randn(2, 12, 12, dtype=torch.float64).mT
    got = attend_fused(query, key, value, bias)
    expected = ((query @ key.mT) / d**0.5 + bias).softmax(-1) @ value
    torch.testing.assert_close(got, expected)


def test_a_linear_map_is_what_pytorch_computes():
    x, weight, bias = (
        torch.rand(*shape, requires_grad=True) for shape in ((4, 5, 6), (7, 6), (7,))
    )
    ours, theirs = pointwise(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs)
    for got, expected in zip(
        torch.autograd.grad(ours.square().sum(), (x, weight, bias)),
        torch.autograd.grad(theirs.square().sum(), (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
