"""What each loss of training costs: processor time and memory of its value and gradient.

    python benchmarks/losses.py [--frames 5] [--side 128] [--repeats 3] [--only fdl]

prints a Markdown table for one clip of ground truth on one thread of the CPU; every loss in a
process of its own, with the defaults of its section and random weights. Memory is what the process
holds at most beyond what it held before the loss was made, weights of networks that measure
included. The row of the light network, forward and backward, is there for scale; rows of
discriminators are the network's losses and the discriminator's own step.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the processes

import torch
from safetensors.torch import save_file
from torch import Tensor

import iart
from iart.evaluate.metrics.perceptual import NETWORKS, FeatureNetwork
from iart.model.flow import SpyNet
from iart.runtime import keep_freed_memory, peak_memory
from iart.train.adversary import learn, new_adversaries
from iart.train.losses.perceptual import ConvNeXt
from iart.train.options.run import TrainingOptions
from iart.train.step import Objective

LOSSES: dict[str, dict[str, Any]] = {
    "pixel_opt": {"type": "CharbonnierLoss"},
    "fft_opt": {},
    "fft_high_opt": {"highpass_cutoff": 0.3},
    "focal_freq_opt": {},
    "temporal_opt": {},
    "perceptual_opt": {"layer_weights": {"conv5_4": 1}, "weights": "vgg19"},
    "perceptual_opt, with style": {"style_weight": 1.0, "weights": "vgg19"},
    "lpips_opt": {"weights": "alex", "linear_weights": "alex_linear"},
    "convnext_opt": {"weights": "convnext"},
    "fdl_opt": {"weights": "vgg19"},
}
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "UNetDiscriminatorSN": {},
    "CIPLABUnetD": {},
    "PatchDiscriminatorSN": {},
    "PatchDiscriminatorSN, 3 frames": {"network_d": {"frames": 3}},
    "UNetDiscriminatorSN, matching": {"train": {"feature_matching_opt": {}}},
    "UNetDiscriminatorSN, CutMix": {
        "train": {"consistency_opt": {"cutmix_prob_max": 1.0, "cutmix_prob_scale": 1}}
    },
}


def write_weights(folder: Path) -> None:
    """Random weights of all networks that measure."""
    networks = {
        "vgg19": FeatureNetwork("vgg19", (35,)),
        "alex": FeatureNetwork("alexnet", NETWORKS["alex"][2]),
        "convnext": ConvNeXt("tiny", (6,)),
    }
    for name, network in networks.items():
        save_file({n: p.detach() for n, p in network.named_parameters()}, folder / name)
    channels = NETWORKS["alex"][3]
    linear = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    save_file(linear, folder / "alex_linear")


def options(folder: Path, key: str) -> TrainingOptions:
    """A run with one loss, or with a discriminator of the type `key` beside pixels."""
    recipe: dict[str, Any] = {
        "total_iter": 1, "optim_g": {"lr": 1e-4}, "optim_d": {"lr": 1e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": []},
    }  # fmt: skip
    tree: dict[str, Any] = {
        "name": "cost", "network_g": {}, "train": recipe,
        "datasets": {"train": {"type": "SceneDataset", "dataroot_gt": "none"}},
    }  # fmt: skip
    if key in DISCRIMINATORS:
        more = DISCRIMINATORS[key]
        tree["network_d"] = {"type": key.partition(",")[0], **more.get("network_d", {})}
        recipe |= {"pixel_opt": LOSSES["pixel_opt"], "gan_opt": {}, **more.get("train", {})}
    else:
        section = dict(LOSSES[key])
        for name in ("weights", "linear_weights"):
            if name in section:
                section[name] = folder / section[name]
        recipe[key.partition(",")[0]] = section
    return TrainingOptions.model_validate(tree)


def step_of(folder: Path, key: str, clip: Tensor) -> Callable[[], object]:
    """What is measured, for one clip of ground truth."""
    if key == "network":
        model = iart.load_model("light", "cpu").train().requires_grad_()
        low = clip[..., ::4, ::4].contiguous()
        return lambda: model(low, recompute=True).sum().backward()
    chosen, flow = options(folder, key), SpyNet((32, 64, 32, 16), 6).requires_grad_(False)
    adversaries = new_adversaries(chosen, flow, torch.float32)
    objective = Objective(chosen.train, torch.device("cpu"), flow, adversaries)

    def step() -> None:
        output = (clip + 0.1 * torch.randn_like(clip)).requires_grad_()
        torch.stack(list(objective.terms(output, clip).values())).sum().backward()
        learn(adversaries, output, clip, (0,), 1, chosen)

    return step


def cost(key: str, folder: Path, frames: int, side: int, repeats: int) -> tuple[float, float]:
    """Seconds of processor time and megabytes of a step, in a fresh process."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = torch.rand(1, frames, 3, side, side)
    before = peak_memory()
    step = step_of(folder, key, clip)
    step()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return min(seconds), (peak_memory() - before) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what each loss costs.")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="part of the names of losses to measure")
    given = parser.parse_args()
    print("| loss | processor seconds | memory, MB |\n| --- | ---: | ---: |")
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool,
    ):
        write_weights(Path(folder))
        numbers = (given.frames, given.side, given.repeats)
        keys = [k for k in ("network", *LOSSES, *DISCRIMINATORS) if (given.only or "") in k]
        for key in keys:
            seconds, memory = pool.submit(partial(cost, key, Path(folder), *numbers)).result()
            print(f"| `{key}` | {seconds:.2f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
