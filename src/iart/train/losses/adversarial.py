"""Adversarial losses: what a discriminator learns and teaches by its logits, features and pixels.

With real r, fake f and s the sigmoid's cross entropy: vanilla (Goodfellow et al., NeurIPS 2014)
s(r, 1) + s(f, 0); hinge (Lim & Ye, 2017) max(0, 1 − r) + max(0, 1 + f); least squares (Mao et al.,
ICCV 2017) (r − 1)² + f²; relativistic average (Jolicoeur-Martineau, ICLR 2019) cross entropies of
r − mean f and f − mean r, halved. Means of the last go over the batch of all processes.
"""

from collections.abc import Sequence

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from iart.data.augment import cutmix_generator
from iart.train.options.losses import ConsistencyOptions, GANOptions


class _MeanOverProcesses(torch.autograd.Function):
    """Mean of a tensor over all processes, with its gradient."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return mean_over_processes(value)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return mean_over_processes(gradients[0])


def mean_over_processes(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Mean over all processes, without a gradient of its own; each has to call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()


def global_mean(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean over the batches of all processes, which are equally large."""
    return _MeanOverProcesses.apply(logits.mean())  # pyright: ignore[reportReturnType]


def discriminator_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."], options: GANOptions
) -> Float[Tensor, ""]:
    """What a discriminator minimises: ground truth and results get their labels."""
    if options.gan_type == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    share = 1.0
    if options.gan_type == "relativistic":
        real, fake, share = real - global_mean(fake), fake - global_mean(real), 0.5
    yes, no = options.real_label_val, options.fake_label_val
    return share * (_labelled(real, yes, options) + _labelled(fake, no, options))


def generator_loss(
    real: Float[Tensor, "..."], fake: Float[Tensor, "..."], options: GANOptions
) -> Float[Tensor, ""]:
    """What the enlarging network minimises: its results get the label of ground truth.

    Args:
        real: judgements of ground truth, without gradient; only the relativistic loss needs them.
        fake: judgements of results.
        options: the loss.
    """
    if options.gan_type == "hinge":
        return -fake.mean()
    if options.gan_type != "relativistic":
        return _labelled(fake, options.real_label_val, options)
    real, fake = real - global_mean(fake), fake - global_mean(real)
    yes, no = options.real_label_val, options.fake_label_val
    return (_labelled(fake, yes, options) + _labelled(real, no, options)) / 2


def _labelled(logits: Tensor, label: float, options: GANOptions) -> Float[Tensor, ""]:
    labels = torch.full_like(logits, label)
    if options.gan_type == "lsgan":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def feature_matching(
    output: Sequence[Tensor], truth: Sequence[Tensor], layers: int | None = None
) -> Float[Tensor, ""]:
    """Mean over layers of mean |f(output) − f(truth)|, f a discriminator's features.

    Salimans et al., NeurIPS 2016; Wang et al., CVPR 2018.

    Args:
        output: features of results.
        truth: features of ground truth.
        layers: how many to compare, from the input on; None: all.
    """
    pairs = list(zip(output, truth, strict=True))[:layers]
    return torch.stack([F.l1_loss(a.float(), b.detach().float()) for a, b in pairs]).mean()


def cutmix_share(options: ConsistencyOptions, step: int) -> float:
    """P = min(max, (step − start) / scale): the share of samples that are cut together."""
    begun = max(step - options.start_iter, 0)
    return min(options.cutmix_prob_max, begun / options.cutmix_prob_scale)


def cutmix_masks(
    indices: Sequence[int], height: int, width: int, share: float, seed: int
) -> dict[int, Float[Tensor, "h w"]]:
    """Masks of the samples that are cut together, by their places in the batch.

    CutMix consistency (Schönfeld et al., CVPR 2020) is mean (D(m r + (1 − m) f) − m D(r) −
    (1 − m) D(f))² of the judgements D of every pixel, m a mask that is 1 in a box, r ground truth
    and f a result. Draws are each sample's own, whichever process has it. The box has a uniform
    share of the area.

    Args:
        indices: of the samples in the run.
        height: of the pictures.
        width: of the pictures.
        share: of samples that are cut together.
        seed: of the run.
    """
    masks = {}
    for place, index in enumerate(indices):
        rng = cutmix_generator(seed, index)
        chosen, area, y, x = rng.random(4)
        if chosen >= share:
            continue
        rows, columns = (max(round(side * area**0.5), 1) for side in (height, width))
        top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
        mask = torch.zeros(height, width)
        mask[top : top + rows, left : left + columns] = 1
        masks[place] = mask
    return masks
