"""Teaching the flow network by synthetic motion, before the whole network learns anything.

From a random start SpyNet does not learn at this scale: a bank of linear filters says nothing about
motion, whose sign shows only in products of change over time and slope in space. The first layer of
every level therefore starts as oriented pairs slope ± change, whose rectified outputs carry just
that (motion energy; Adelson & Bergen 1985).

The lessons have a state of their own, `training_states/flow.pt`. Every process does the same, which
is little: they take minutes.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from iart.data.augment import lesson_generator
from iart.data.clips import Scene, low_resolution, to_clip
from iart.data.motion import Speed, low_resolution_flow, moving_clip
from iart.errors import TrainingError, WeightsError, first_line
from iart.files.complete import complete_file
from iart.model.flow import SpyNet
from iart.pictures.degrade import to_uint8
from iart.pictures.resize import imresize
from iart.train.log import Log
from iart.train.options.recipe import CosineOptions, FlowOptions

# Response of the first filters, for pictures of unit variance; their random part, as a share.
GAIN, NOISE = 3.0, 0.1
# Squared slope (frames in [0, 1]) at which half of the motion is taken to be visible.
VISIBLE = 1e-3
WARM_UP = 100  # steps
SAVE_EVERY = 500  # steps; a lesson of a small network takes 0.05 s


def start_flow(spynet: SpyNet) -> None:
    """Initialise a flow network so that it learns."""
    for level in spynet.levels:
        convs = [layer for layer in level.modules() if isinstance(layer, nn.Conv2d)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            weight = convs[0].weight
            noise = NOISE * weight
            noise[:, 6:] = weight[:, 6:]  # the coarser flow is passed on from the start
            filters = motion_energy_filters(*weight.shape[::2])
            weight.copy_(noise)
            weight[:, :6] += filters.to(weight.device)


def motion_energy_filters(count: int, size: int) -> Float[Tensor, "{count} 6 {size} {size}"]:
    """Filters over [reference, other]: (± slope along an axis ± change) / 3 per colour channel."""
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    blur = torch.exp(-(x**2 + y**2) / 2)
    blur = blur / blur.sum()
    filters = []
    for i in range(count):
        angle = math.pi * (i // 4) / max(count // 4, 1)
        slope = -(x * math.cos(angle) + y * math.sin(angle)) * blur / 2
        if i % 2:
            slope = -slope
        change = blur if i // 2 % 2 else -blur
        pair = (slope - change, slope + change)
        filters.append(torch.stack([half for half in pair for _ in range(3)]))
    return GAIN / 3 * torch.stack(filters)


def quarter(scenes: Sequence[Scene]) -> list[Scene]:
    """Every fourth frame at a quarter of the size: small sharp pictures to move."""
    return [
        Scene(s.name, to_uint8(imresize(to_clip(s.frames[::4]), 0.25)).permute(0, 2, 3, 1).numpy())
        for s in scenes
    ]


def flow_batch(
    scenes: Sequence[Scene],
    small_scenes: Sequence[Scene],
    options: FlowOptions,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "b 2 3 s s"], Float[Tensor, "b 2 s s"]]:
    """Pairs of frames and the flow from the first to the second.

    Most are quarter-size stills that move, which cost little; `reduced_share` of them move at full
    size and are reduced afterwards, with the aliasing that real input has.
    """
    pairs, flows = [], []
    for _ in range(options.batch_size_per_gpu):
        # Squared: slow motion is the common case, and the one where fractions of a pixel count.
        shift = options.max_shift * rng.random() ** 2
        if rng.random() < options.reduced_share:
            front, back = (scenes[i] for i in rng.integers(len(scenes), size=2))
            clip, flow = moving_clip(front, back, 2, 4 * options.size, Speed(4 * shift), rng)
            clip, flow = low_resolution(clip), low_resolution_flow(flow, 4)
        else:
            front, back = (small_scenes[i] for i in rng.integers(len(scenes), size=2))
            clip, flow = moving_clip(front, back, 2, options.size, Speed(shift), rng)
        pairs.append(clip)
        flows.append(flow[0])
    return torch.stack(pairs), torch.stack(flows)


def endpoint_error(
    spynet: SpyNet, pairs: Float[Tensor, "b 2 3 s s"], flow: Float[Tensor, "b 2 s s"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Distance between SpyNet's flow and the true one where motion can be seen, in pixels.

    Returns the sum over levels, each in pixels of its own, to minimise; and the finest level's
    distance, to report. The size must be one that the pyramid divides without a remainder.
    """
    reference, other = pairs.unbind(1)
    errors = []
    for depth, estimate in enumerate(reversed(spynet.coarse_to_fine(reference, other))):
        factor = 2**depth
        weight = _visibility(F.avg_pool2d(reference, factor))
        target = low_resolution_flow(flow, factor)
        distance = ((estimate - target).square().sum(1) + 1e-6).sqrt()
        errors.append((distance * weight).sum() / weight.sum())
    return torch.stack(errors).sum(), errors[0]


def _visibility(frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Near 1 where the picture has structure, near 0 where it is flat and any flow fits."""
    grey = reduce(frames, "b c h w -> b 1 h w", "mean")
    slope_x = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1))
    slope_y = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    energy = F.avg_pool2d(slope_x**2 + slope_y**2, 5, stride=1, padding=2)[:, 0]
    return energy / (energy + VISIBLE) + 1e-6


def teach_flow(
    flow: SpyNet,
    scenes: Sequence[Scene],
    options: FlowOptions,
    seed: int,
    path: Path,
    log: Log,
    *,
    main: bool,
    stopped: Callable[[], bool],
) -> bool:
    """Teach until `total_iter`; returns whether that was reached.

    Args:
        flow: begins as `start_flow` leaves it, and is taught in place.
        scenes: pictures to move.
        options: section `train.flow`.
        seed: of the run.
        path: of the state to go on from and to save.
        log: takes the mean error, once for every save.
        main: whether this process saves.
        stopped: asked after every step whether to save and return.

    Raises:
        TrainingError: the error is not finite; the state saved last stays.
        WeightsError: the state cannot be used.
    """
    optimizer = torch.optim.Adam(flow.parameters(), betas=(0.9, 0.99))
    step = _load(path, flow, optimizer) if path.exists() else 0
    small, device, errors = quarter(scenes), flow.mean.device, []
    while step < options.total_iter:
        for group in optimizer.param_groups:
            group["lr"] = lesson_rate(step, options)
        rng = lesson_generator(seed, step)
        pairs, truth = flow_batch(scenes, small, options, rng)
        loss, error = endpoint_error(flow, pairs.to(device), truth.to(device))
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"flow's error is {loss.item()} at its step {step}; '{path}' is as it was saved "
                "last. Go on from it with a lower train.flow.lr"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        errors.append(error.item())
        ended = stopped()
        if ended or step == options.total_iter or step % SAVE_EVERY == 0:
            log.lesson(step, options.total_iter, float(np.mean(errors)))
            errors.clear()
            if main:
                _save(path, step, flow, optimizer)
        if ended:
            return step == options.total_iter
    return True


def lesson_rate(step: int, options: FlowOptions) -> float:
    """Half a cosine from `lr` to a hundredth of it, with a linear warm-up."""
    warm = min((step + 1) / WARM_UP, 1)
    kind, whole = "CosineAnnealingRestartLR", (options.total_iter,)
    cosine = CosineOptions(type=kind, periods=whole, eta_min=options.lr / 100)
    return warm * cosine.rate(step, options.lr)


def _save(path: Path, step: int, flow: SpyNet, optimizer: torch.optim.Optimizer) -> None:
    tree = {"step": step, "flow": flow.state_dict(), "optimizer": optimizer.state_dict()}
    with complete_file(path) as file:
        torch.save(tree, file)


def _load(path: Path, flow: SpyNet, optimizer: torch.optim.Optimizer) -> int:
    try:
        tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        flow.load_state_dict(tree["flow"])
        optimizer.load_state_dict(tree["optimizer"])
        return int(tree["step"])
    except Exception as error:  # torch raises many kinds for damaged files
        reason = first_line(error)
        raise WeightsError(
            f"cannot resume from '{path}': {reason}. Move it away to teach flow anew"
        ) from error
