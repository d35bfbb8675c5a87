"""Adversarial training: discriminators, their losses and their step."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iart.errors import TrainingError
from iart.train import adversary
from iart.train.discriminators import (
    SpectralConv,
    advance,
    cutmix_masks,
    cutmix_share,
    discriminator_loss,
    generator_loss,
    new_discriminator,
)
from iart.train.options.losses import ConsistencyOptions, GANOptions
from iart.train.options.run import DiscriminatorOptions
from tests.train.tiny import adversarial, assert_same, folder_of, options, run, state_of

ALONE = {"train__gan_opt": {}, "train__optim_d": {"lr": 1e-3}}
KINDS = ("UNetDiscriminatorSN", "CIPLABUnetD", "PatchDiscriminatorSN")


# ---- losses


def test_losses_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    r, f = (torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    softplus = F.softplus  # −log s(x) = softplus(−x)
    pairs = {
        "vanilla": (softplus(-r).mean() + softplus(f).mean(), softplus(-f).mean()),
        "hinge": ((1 - r).relu().mean() + (1 + f).relu().mean(), -f.mean()),
        "lsgan": (((r - 1) ** 2).mean() + (f**2).mean(), ((f - 1) ** 2).mean()),
        "relativistic": (
            (softplus(f.mean() - r).mean() + softplus(f - r.mean()).mean()) / 2,
            (softplus(r - f.mean()).mean() + softplus(r.mean() - f).mean()) / 2,
        ),
    }
    for kind, (discriminator, network) in pairs.items():
        chosen = GANOptions.model_validate({"gan_type": kind})
        torch.testing.assert_close(discriminator_loss(r, f, chosen), discriminator)
        torch.testing.assert_close(generator_loss(r, f, chosen), network)


def test_cutmix_draws_follow_the_samples():
    chosen = ConsistencyOptions(start_iter=10, cutmix_prob_max=0.5, cutmix_prob_scale=100)
    assert [cutmix_share(chosen, step) for step in (0, 10, 35, 500)] == [0, 0, 0.25, 0.5]
    together = cutmix_masks(range(40), 12, 16, 0.5, seed=1)
    assert 8 < len(together) < 32
    alone = {i: cutmix_masks([i], 12, 16, 0.5, seed=1) for i in range(40)}
    assert {i for i in alone if alone[i]} == set(together)
    for i, mask in together.items():
        assert mask.equal(alone[i][0])
        assert 0 < mask.mean() <= 1


# ---- networks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 3])
def test_discriminators_judge_crops_of_the_recipes(kind: Any, frames: Any):
    chosen = DiscriminatorOptions(type=kind, num_feat=2, frames=frames)
    model = new_discriminator(chosen, seed=0)
    for side in (32, 256, 320, 384):
        with torch.no_grad():
            judged = model(torch.zeros(1, 3 * frames, side, side))
        shapes = [tuple(x.shape) for x in judged.logits]
        if kind == "PatchDiscriminatorSN":
            assert shapes == [(1, 1, side // 8 - 2 + 0, side // 8 - 2)]
            assert judged.pixels is None
        else:
            assert shapes[-1] == (1, 1, side, side)
            assert judged.pixels is judged.logits[-1]
        assert len(shapes) == (2 if kind == "CIPLABUnetD" else 1)


def test_spectral_norm_moves_only_when_it_is_told_to():
    torch.manual_seed(0)
    layer = SpectralConv(6, 8, 3)
    for _ in range(100):
        advance(layer)
    sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    x = torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / sigma, padding=1))
    before = layer.u.clone()
    layer(x)
    assert layer.u.equal(before)


# ---- runs


@pytest.mark.usefixtures("folder")
def test_a_stopped_run_goes_on_as_if_it_had_not():
    # The first stops between two steps of its discriminators, which take 3 micro-batches.
    chosen = adversarial(train__d_gradient_accumulation_steps=3, logger__save_checkpoint_freq=1)
    run(options(name="straight", **chosen))
    run(options(**chosen, train__total_iter=2))
    waiting = state_of()["discriminators"]["gan"]
    assert waiting["done"] == 2
    assert any(gradient is not None for gradient in waiting["gradients"])
    run(options(**chosen))
    assert_same(state_of(), state_of("straight"))


@pytest.mark.usefixtures("folder")
def test_all_move_and_all_losses_are_logged():
    run(options(**adversarial(train__total_iter=3)))
    log = (folder_of() / "log.jsonl").read_text()
    for name in (
        *("pixel", "gan", "gan2", "feature_matching"),
        *("gan_discriminator", "gan2_discriminator", "gan_consistency", "gan2_consistency"),
    ):
        assert f'"loss/{name}"' in log
    for name, kind in (("gan", "UNetDiscriminatorSN"), ("gan2", "CIPLABUnetD")):
        saved = state_of()["discriminators"][name]["model"]
        chosen = options(**adversarial())
        section = chosen.network_d if name == "gan" else chosen.network_d2
        assert section is not None
        assert section.type == kind
        fresh = new_discriminator(section, seed=1 if name == "gan" else 2).state_dict()
        assert all(not saved[key].equal(fresh[key]) for key in fresh if key.endswith("weight"))


@pytest.mark.usefixtures("folder")
def test_the_network_waits_for_its_discriminators():
    chosen = adversarial(train__net_d_init_iters=1, train__net_d_iters=2)
    weights: list[dict[str, Tensor]] = []
    for step in range(4):
        run(options(**chosen, train__total_iter=step + 1, logger__save_checkpoint_freq=1))
        weights.append(state_of()["model"])
    same = [all(a[k].equal(b[k]) for k in a) for a, b in pairwise(weights)]
    assert same == [False, True, False]  # it moves in the second and the fourth step


@pytest.mark.usefixtures("folder")
def test_losses_that_start_later_change_nothing_before():
    later = {"train__gan_opt": {"start_iter": 5}}
    run(options(name="without"))
    network = {"type": "PatchDiscriminatorSN", "num_feat": 4}
    run(options(network_d=network, **{**ALONE, **later}))
    assert_same(state_of()["model"], state_of("without")["model"])


@pytest.mark.parametrize("precision", ["bfloat16"])
@pytest.mark.usefixtures("folder")
def test_half_precision(precision: str):
    run(options(**adversarial(train__total_iter=2, train__precision=precision)))
    for line in (folder_of() / "log.jsonl").read_text().splitlines():
        assert "null" not in line


@pytest.mark.usefixtures("folder")
def test_high_losses_leave_pictures():
    high = {"train__save_high_loss_images": True, "train__high_loss_threshold": 1e-6}
    run(options(train__total_iter=2, **high))
    names = [path.name for path in sorted((folder_of() / "visualization/high_loss").iterdir())]
    assert names == ["00000000.png", "00000001.png"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_d": {"type": KINDS[0]}}, "train.gan_opt is missing"),
        ({"train__gan2_opt": {}}, "network_d2 is missing"),
        ({"network_d": {"type": KINDS[0]}, "train__gan_opt": {}}, "needs train.optim_d"),
        ({"train__consistency_opt": {}}, "needs a U-Net"),
        ({"train__feature_matching_opt": {}}, "L1Loss needs network_d"),
        (adversarial(datasets__train__gt_size=28), "crops of 28 pixels are too small"),
        (
            {"train__perceptual_opt": {"weights": "x"}, "datasets__train__gt_size": 16},
            "crops of 16 pixels are too small",
        ),
    ],
)
def test_sections_that_do_not_go_together(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        options(**changes)


@pytest.mark.usefixtures("folder")
def test_spectral_norm_moves_once_in_a_step_of_the_discriminator(monkeypatch: pytest.MonkeyPatch):
    moved: list[object] = []

    def counted(discriminator: nn.Module) -> None:
        moved.append(discriminator)
        advance(discriminator)

    monkeypatch.setattr(adversary, "advance", counted)
    steps = {"train__gradient_accumulation_steps": 2, "train__d_gradient_accumulation_steps": 4}
    run(options(**adversarial(**steps)))  # 4 steps of the network, 2 of either discriminator
    assert len(moved) == 2 * 2
    assert len(set(moved)) == 2


@pytest.mark.usefixtures("folder")
def test_a_discriminator_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> Tensor:
        return torch.tensor(math.nan, requires_grad=True)

    monkeypatch.setattr(adversary, "discriminator_loss", broken)
    with pytest.raises(TrainingError, match=r"^loss/gan_discriminator is nan at step 0: 'exp"):
        run(options(network_d={"type": KINDS[0], "num_feat": 2}, **ALONE))


def test_logits_are_finite_for_black():
    chosen = DiscriminatorOptions(type="CIPLABUnetD", num_feat=2)
    judged = new_discriminator(chosen, seed=0)(torch.zeros(1, 3, 32, 32))
    assert all(math.isfinite(x.sum().item()) for x in judged.logits)
