"""One training run, from an option file to weights, on one device.

First the flow network learns synthetic motion whose flow is known, then the whole network learns
clips. The same command goes on where the last one stopped; `experiments/<name>` holds `state.pt`,
`log.jsonl` and, at every save, the averaged weights as `<name>.safetensors`.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from iart.data.clips import Scene, load_scenes, low_resolution, random_clip, to_clip
from iart.data.motion import Speed, moving_clip
from iart.errors import DataError, TrainingError
from iart.evaluate.metrics import psnr
from iart.model import IART
from iart.resize import imresize
from iart.train.flow import endpoint_error, flow_batch, load_flow, quarter
from iart.train.loss import charbonnier
from iart.train.options import Options, SceneOptions
from iart.train.start import start
from iart.train.state import TrainState, averaged
from iart.weights import save_model

Report = Callable[[dict[str, Any]], None]
# Frames of each watched scene that are scored, and the sides of the crop (pixels).
WATCHED_FRAMES, WATCHED_HEIGHT, WATCHED_WIDTH = 7, 224, 384


def learning_rate(step: int, steps: int, warmup: int, top: float, bottom: float) -> float:
    """Rate before `step`: linear warm-up, then half a cosine from `top` to `bottom`."""
    if step < warmup:
        return top * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return bottom + (top - bottom) * (1 + math.cos(math.pi * min(done, 1))) / 2


def train(
    options: Options, device: torch.device, report: Report, *, max_minutes: float | None = None
) -> Path:
    """Train until `total_iter` or `max_minutes`; returns the file of averaged weights.

    Raises:
        DataError: no scenes, or scenes too small, or none long enough.
        TrainingError: the loss or a weight is not finite; `state.pt` stays as it was saved last.
        WeightsError: there is a `state.pt` that is damaged or of another network.
    """
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    folder = Path("experiments") / options.name
    folder.mkdir(parents=True, exist_ok=True)
    scenes = _load(options.datasets.train)
    _check(scenes, options.datasets.train)
    watched = _load(options.datasets.val)
    small_scenes = quarter(scenes)

    torch.manual_seed(options.manual_seed)
    model = IART(options.network_g.config()).to(device).train()
    start(model)
    if options.network_g.spynet_path is not None:
        load_flow(model, options.network_g.spynet_path)
    groups = [
        {"params": list(model.flow.parameters()), "name": "flow"},
        {"params": [p for n, p in model.named_parameters() if not n.startswith("flow.")]},
    ]
    optimizer = torch.optim.Adam(groups, betas=options.train.optim_g.betas)
    rng = np.random.default_rng(options.manual_seed)
    state = TrainState(0, model, averaged(model), optimizer, rng)
    if (folder / "state.pt").exists():
        state.load(folder / "state.pt")
        report({"resumed at step": state.step})

    def save() -> Path:
        state.save(folder / "state.pt")
        weights = folder / f"{options.name}.safetensors"
        save_model(state.average, weights, metadata={"step": str(state.step)})
        return weights

    def log(entry: dict[str, Any]) -> None:
        report(entry)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    flow_steps = options.train.flow.total_iter
    total = flow_steps + options.train.total_iter
    started = saved = time.monotonic()
    losses: list[float] = []
    while state.step < total:
        teaching_flow = state.step < flow_steps
        set_learning_rates(state, options)

        optimizer.zero_grad(set_to_none=True)
        if teaching_flow:
            pairs, flow = flow_batch(scenes, small_scenes, options.train.flow, rng)
            loss, shown = endpoint_error(model.flow, pairs.to(device), flow.to(device))
        else:
            loss = shown = clip_loss(model, scenes, options.datasets.train, rng)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"loss is {loss.item()} at step {state.step}; '{folder}' is as it was saved last. "
                "Go on from it with a lower learning rate"
            )
        loss.backward()
        optimizer.step()

        state.step += 1
        if state.step <= flow_steps:
            state.reset_average()
        else:
            # Early on the average follows closely, so that it forgets the start.
            age = state.step - flow_steps
            state.update_average(min(options.train.ema_decay, (1 + age) / (10 + age)))

        losses.append(shown.item())
        minutes = (time.monotonic() - started) / 60
        if state.step % options.logger.print_freq == 0:
            stage = "flow" if teaching_flow else "clips"
            mean = sum(losses) / len(losses)
            rate = optimizer.param_groups[1]["lr"] or optimizer.param_groups[0]["lr"]
            log({"step": state.step, stage: round(mean, 5), "lr": rate, "min": round(minutes, 2)})
            losses.clear()
        if state.step % options.val.val_freq == 0 and not teaching_flow:
            log({"step": state.step, **score(state.average, watched, options.datasets.val)})
        if (time.monotonic() - saved) / 60 > options.logger.save_checkpoint_minutes:
            save()
            saved = time.monotonic()
        if max_minutes is not None and minutes >= max_minutes:
            break
    return save()


def set_learning_rates(state: TrainState, options: Options) -> None:
    """Rates of this step, a pure function of it; while flow is taught the rest stands still."""
    flow, train = options.train.flow, options.train
    if state.step < flow.total_iter:
        rate = learning_rate(state.step, flow.total_iter, 100, flow.lr, flow.lr / 100)
        rates = (rate, 0.0)
    else:
        step = state.step - flow.total_iter
        rate = learning_rate(
            step, train.total_iter, train.warmup_iter, train.optim_g.lr, train.eta_min
        )
        rates = (rate * train.optim_g.flow_lr_mul, rate)
    for group, value in zip(state.optimizer.param_groups, rates, strict=True):
        group["lr"] = value


def clip_loss(
    model: IART, scenes: list[Scene], options: SceneOptions, rng: np.random.Generator
) -> Float[Tensor, ""]:
    """Charbonnier distance of a batch of enlarged clips to their ground truth."""
    frames, size = options.num_frame, options.gt_size
    long_enough = [scene for scene in scenes if len(scene.frames) >= frames]
    clips = []
    for _ in range(options.batch_size_per_gpu):
        if rng.random() < options.still_share:
            speed = Speed(8 * rng.random(), zoom=0.01, turn=0.01)
            clip, _ = moving_clip(_pick(scenes, rng), _pick(scenes, rng), frames, size, speed, rng)
        else:
            clip = random_clip(_pick(long_enough, rng), frames, size, options.reduce, rng)
        clips.append(clip)
    truth = torch.stack(clips).to(model.flow.mean.device)
    return charbonnier(model(low_resolution(truth)), truth).mean()


def score(model: IART, scenes: list[Scene], options: SceneOptions) -> dict[str, float]:
    """PSNR on Y of the watched scenes: whole clips, frame by frame, and bicubic (dB)."""
    device = model.flow.mean.device
    results: dict[str, list[float]] = {"psnr": [], "frame_by_frame": [], "bicubic": []}
    factor = sum(options.reduce) / 2
    for scene in scenes:
        clip = to_clip(scene.frames[:WATCHED_FRAMES])
        h, w = (int(side / factor) // 8 * 8 for side in clip.shape[-2:])
        clip = imresize(clip, 1 / factor)[..., :h, :w][..., :WATCHED_HEIGHT, :WATCHED_WIDTH]
        clip = clip.clamp(0, 1)
        low = low_resolution(clip)
        with torch.inference_mode():
            whole = model(low[None].to(device))[0].cpu()
            single = rearrange(model(low[:, None].to(device)), "t 1 c h w -> t c h w").cpu()
        for key, result in zip(results, (whole, single, imresize(low, 4.0)), strict=True):
            pairs = zip(result, clip, strict=True)
            results[key].append(float(np.mean([psnr(a, b, luma=True) for a, b in pairs])))
    return {key: round(float(np.mean(values)), 3) for key, values in results.items()}


def _load(options: SceneOptions) -> list[Scene]:
    return load_scenes(options.dataroot_gt, include=options.include, exclude=options.exclude)


def _check(scenes: list[Scene], options: SceneOptions) -> None:
    """Say before the first step what would fail at some later one."""
    frames, size = options.num_frame, options.gt_size
    if small := [scene.name for scene in scenes if min(scene.frames.shape[1:3]) < size]:
        raise DataError(
            f"scene '{small[0]}' is too small for crops of {size} pixels; so are "
            f"{len(small) - 1} others. Exclude them or lower gt_size"
        )
    if options.still_share < 1 and all(len(scene.frames) < frames for scene in scenes):
        raise DataError(
            f"no scene of '{options.dataroot_gt}' has {frames} frames. Lower num_frame, or learn "
            "from stills alone with still_share: 1"
        )


def _pick(scenes: list[Scene], rng: np.random.Generator) -> Scene:
    return scenes[rng.integers(len(scenes))]
