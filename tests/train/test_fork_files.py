"""Option files of the DVD fork: a table of their keys, read and trained for two steps.

What the files have in common is said once; values that only sizes depend on are made small after
reading.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from iart.data.degrade_clips import write_ffv1
from iart.errors import OptionsError
from iart.evaluate.metrics.perceptual import NETWORKS, FeatureNetwork
from iart.files.images import read_image
from iart.train.losses.perceptual import ConvNeXt
from iart.train.options.read import read_options
from tests.train.test_losses import random_network
from tests.train.tiny import make_pairs, run, state_of, tree

COMMON: dict[str, Any] = {
    "model_type": "RecurrentMixPrecisionRTModel", "scale": 4, "num_gpu": 1,
    "find_unused_parameters": False, "use_static_graph": True,
    "datasets": {
        "train": {
            "type": "VideoRecurrentDataset", "dataroot_gt": "gt", "dataroot_lq": "lq",
            "val_partition": "REDS4", "test_mode": False, "io_backend": {"type": "disk"},
            "num_frame": 16, "gt_size": 256, "interval_list": [1], "random_reverse": True,
            "use_hflip": True, "use_rot": True, "use_shuffle": True, "num_worker_per_gpu": 4,
            "batch_size_per_gpu": 1, "dataset_enlarge_ratio": 10, "prefetch_mode": "cuda",
            "pin_memory": True,
        },
        "val": {
            "type": "VideoRecurrentDataset", "dataroot_gt": "gt", "dataroot_lq": "lq",
            "test_mode": True, "io_backend": {"type": "disk"}, "num_frame": 16, "gt_size": 512,
            "interval_list": [1], "random_reverse": False, "use_hflip": False, "use_rot": False,
            "use_shuffle": False, "num_worker_per_gpu": 2, "batch_size_per_gpu": 1,
            "dataset_enlarge_ratio": 1, "pin_memory": True,
        },
    },
    "network_g": {
        "type": "IART", "mid_channels": 64, "embed_dim": 120, "depths": [6, 6, 6],
        "num_heads": [6, 6, 6], "window_size": [3, 8, 8], "num_frames": 16, "img_size": 64,
        "patch_size": 1, "cpu_cache_length": 100, "is_low_res_input": True,
        "use_checkpoint": [True, True, True, True], "spynet_path": "spynet.pth",
    },
    "path": {"visualization": "visualization"},
    "train": {
        "ema_decay": 0.99, "total_iter": 50_000, "warmup_iter": 100, "half_precision": True,
        "optim_g": {"type": "AdamW", "lr": 2e-5, "weight_decay": 0.01, "betas": [0.9, 0.95]},
        "scheduler": {
            "type": "CosineAnnealingRestartLR", "periods": [50_000], "restart_weights": [1],
            "eta_min": 1e-7,
        },
        "pixel_opt": {"type": "CharbonnierLoss", "loss_weight": 1.0, "reduction": "mean"},
        "use_grad_clip": True, "grad_clip_norm": 0.9, "set_DINO_OOM": True,
        "gradient_accumulation_steps": 8, "high_loss_threshold": 0.15,
        "save_high_loss_images": True,
    },
    "val": {
        "val_freq": 500, "save_img": True, "grids": True, "max_minibatch": 8,
        "metrics": {
            "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
            "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
        },
    },
}  # fmt: skip
PERCEPTUAL = {
    "type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}, "vgg_type": "vgg19",
    "use_input_norm": True, "range_norm": False, "perceptual_weight": 0.05, "style_weight": 0,
    "criterion": "l1",
}  # fmt: skip
CONVNEXT = {
    "type": "ConvNextLoss", "loss_weight": 8, "model_type": "small",
    "feature_layers": [0, 2, 4, 6], "layer_weight_decay": 0.9, "reduction": "mean",
    "input_range": (0, 1), "use_gram": False,
}  # fmt: skip
LPIPS = {
    "type": "LPIPSLoss", "loss_weight": 0.001, "net_type": "alex", "normalize": True,
    "reduction": "mean", "spatial": False, "version": "0.1",
}  # fmt: skip
FOCAL = {
    "type": "FocalFrequencyLoss", "loss_weight": 2.0, "alpha": 1.0, "patch_factor": 1,
    "ave_spectrum": False, "log_matrix": False, "batch_matrix": False,
}  # fmt: skip
ADAM = {"type": "Adam", "lr": 1e-5, "weight_decay": 0, "betas": [0.9, 0.999]}
UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 64, "skip_connection": True}
GAN = {
    "type": "GANLoss", "gan_type": "hinge", "real_label_val": 1.0, "fake_label_val": 0.0,
    "loss_weight": 0.001,
}  # fmt: skip
FFT = {"type": "FFTLoss", "loss_weight": 4, "reduction": "mean"}
HIGH = {"reduction": "mean", "highpass_type": "gaussian"}
RESTARTS = {"periods": [5000, 10_000, 20_000], "restart_weights": [1, 0.5, 0.5], "eta_min": 1e-6}
LATER = {"start_iter": 75_000}
STEPS = {"type": "MultiStepLR", "milestones": [75_000, 125_000], "gamma": 0.5}
ADVERSARIAL = {
    "train.optim_d": ADAM, "train.net_d_iters": 1, "train.net_d_init_iters": 0,
    "train.perceptual_opt": PERCEPTUAL, "train.perceptual_start_iter": 0,
    "train.pixel_opt.eps": 1e-6, "train.scheduler": STEPS, "train.gan_opt": GAN,
    "train.feature_matching_opt": {"type": "CIPLABFeatureMatchingLoss", "loss_weight": 1.0},
    "train.lpips_opt": {**LPIPS, "use_gpu": True, "start_iter": 0},
}  # fmt: skip
FILES: dict[str, dict[str, Any]] = {
    "train_combined": {
        "train.fft_opt": FFT, "train.convnext_opt": CONVNEXT, "train.scheduler": RESTARTS,
        "train.perceptual_opt": {**PERCEPTUAL, "perceptual_weight": 0.1},
        "train.lpips_opt": {**LPIPS, "loss_weight": 0.6}, "train.high_loss_threshold": 1.3,
    },
    "train_convnext_only": {
        "train.convnext_opt": {
            **CONVNEXT, "model_type": "base", "feature_layers": [0, 1], "layer_weight_decay": 0.7,
        },
    },
    "train_dual_fft": {"train.fft_high_opt": {**HIGH, "loss_weight": 20.0, "highpass_cutoff": 0.3}},
    "train_focal_freq": {
        "train.focal_freq_opt": {k: v for k, v in FOCAL.items() if k != "type"},
        "train.perceptual_opt": {**PERCEPTUAL, "perceptual_weight": 0.03},
        "train.pixel_opt.loss_weight": 10.0,
    },
    "train_triple_fft": {
        "train.fft_opt": {"loss_weight": 5.0, "reduction": "mean", "highpass_cutoff": 0.0},
        "train.fft_high_opt": {**HIGH, "loss_weight": 15.0, "highpass_cutoff": 0.4},
        "train.fft_low_opt": {
            "loss_weight": 3.0, "reduction": "mean", "lowpass_cutoff": 0.15,
            "filter_type": "gaussian",
        },
        "train.perceptual_opt": {**PERCEPTUAL, "perceptual_weight": 0.03},
        "train.pixel_opt.loss_weight": 10.0,
    },
    "train_video_lpips": {
        "train.lpips_opt": {**LPIPS, "loss_weight": 10.0, "net_type": "vgg"},
        "train.gradient_accumulation_steps": None, "train.accumulation_steps": 4,
        "train.optim_g.lr": 4e-6, "train.grad_clip_norm": 2.0, "train.high_loss_threshold": 1.0,
    },
    "train_ciplab_all_losses": {
        **ADVERSARIAL, "network_d": UNET, "datasets.train.gt_size": 384,
        "datasets.train.batch_size_per_gpu": 2, "network_g.img_size": 96,
        "train.total_iter": 150_000, "train.gradient_accumulation_steps": 4,
        "train.perceptual_start_iter": 75_000, "train.lpips_opt": {**LPIPS, **LATER},
        "train.gan_opt": {**GAN, "gan_type": "vanilla", **LATER},
        "train.feature_matching_opt": {
            "type": "L1Loss", "loss_weight": 1.0, "reduction": "mean", "num_layers": 12, **LATER,
        },
        "train.consistency_opt": {
            "type": "MSELoss", "loss_weight": 1.0, "reduction": "mean", "cutmix_prob_max": 0.5,
            "cutmix_prob_scale": 100_000, **LATER,
        },
        "val.metrics.lpips": {"type": "calculate_lpips", "net_type": "alex"},
    },
    "train_dvd_bluray": {
        "datasets.train.type": "DVDRecurrentDataset", "datasets.train.use_hflip": False,
        "datasets.train.use_rot": False,
        "datasets.train.num_worker_per_gpu": 0, "datasets.train.pin_memory": False,
        "train.warmup_iter": 500,
    },
    "train_fdl": {
        "train.fdl_opt": {
            "type": "FDLLoss", "loss_weight": 1.0, "model": "VGG", "patch_size": 5, "stride": 1,
            "num_proj": 128, "phase_weight": 0.8, "reduction": "mean", "chunk_size": 16,
            "frame_chunk_size": 4, "scale_factor": 0.002, "use_input_norm": True,
            "range_norm": False,
        },
    },
    "train_ffl": {"train.focal_freq_opt": FOCAL, "val.val_freq": 100},
    "train_gan": {
        **ADVERSARIAL, "network_d": {"type": "CIPLABUnetD"}, "val.val_freq": 200,
        "train.d_gradient_accumulation_steps": 8,
    },
    "train_gan_with_fm": {
        **ADVERSARIAL, "network_d": UNET, "network_d2": {"type": "CIPLABUnetD"},
        "train.optim_d2": ADAM, "train.gan2_opt": GAN, "train.gradient_accumulation_steps": 4,
        "val.val_freq": 200,
    },
    "train_original": {
        "datasets.train.use_hflip": False, "datasets.train.use_rot": False,
        "train.grad_clip_norm": 0.5,
    },
    "train_vgg": {"train.perceptual_opt": PERCEPTUAL, "train.ema_decay": 0.991},
    "train_video": {
        "train.fft_opt": FFT, "train.convnext_opt": CONVNEXT, "train.scheduler": RESTARTS,
        "train.lpips_opt": {**LPIPS, "loss_weight": 0.6}, "train.high_loss_threshold": 1.3,
    },
    "train_video_convnext": {
        "train.fft_opt": {**FFT, "loss_weight": 0.03},
        "train.convnext_opt": {**CONVNEXT, "loss_weight": 0.005, "model_type": "tiny"},
        "train.gradient_accumulation_steps": None, "train.accumulation_steps": 4,
        "train.optim_g.lr": 3e-6, "train.high_loss_threshold": 0.06, "train.grad_clip_norm": 0.5,
    },
}  # fmt: skip
OTHERS = {
    "train_balanced": ({"network_g.c_s2att": 40}, "network_g.c_s2att: unknown key"),
    "train_focal_from_vgg": (
        {"network_g.enc_channels": [64, 128]}, "network_g.enc_channels: unknown key",
    ),
    "train_small_test": ({"network_g.in_ch": 3}, "network_g.in_ch: unknown key"),
}  # fmt: skip


class _Dumper(yaml.Dumper):
    """Writes tuples as Python's, as some of the files have them."""


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for place, value in changes.items():
        *parents, key = place.split(".")
        node = result
        for parent in parents:
            node = node[parent]
        if isinstance(value, dict) and isinstance(node.get(key), dict) and "type" not in value:
            value = {**node[key], **value}
        if value is None:
            node.pop(key, None)
        else:
            node[key] = copy.deepcopy(value)
    return result


def written(path: Path, name: str, content: dict[str, Any]) -> Path:
    file = path / f"{name}.yml"
    file.write_text(yaml.dump({"name": name, **content}, Dumper=_Dumper))
    return file


@pytest.mark.parametrize("name", FILES)
def test_files_are_read(tmp_path: Path, name: str):
    chosen = read_options(written(tmp_path, name, changed(COMMON, FILES[name])))
    assert chosen.train.half_precision
    if "train.accumulation_steps" in FILES[name]:
        assert chosen.train.gradient_accumulation_steps == 4
    named = {key.split(".")[1] for key in FILES[name] if key.endswith("_opt")}
    assert all(getattr(chosen.train, key) is not None for key in named)
    if "train.perceptual_start_iter" in FILES[name]:
        assert chosen.train.perceptual_opt is not None
        start = FILES[name]["train.perceptual_start_iter"]
        assert chosen.train.perceptual_opt.start_iter == start


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_networks_are_refused_by_name(tmp_path: Path, name: str):
    changes, message = OTHERS[name]
    with pytest.raises(OptionsError, match=message):
        read_options(written(tmp_path, name, changed(COMMON, changes)))


def test_tuples_hold_plain_values_alone(tmp_path: Path):
    file = written(tmp_path, "tuple", COMMON)
    text = file.read_text() + "num_threads: !!python/tuple [!!python/object/apply:os.getcwd []]\n"
    file.write_text(text)
    with pytest.raises(OptionsError, match="could not determine a constructor"):
        read_options(file)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the networks that the files measure by."""
    root = tmp_path_factory.mktemp("weights")
    torch.save(random_network(FeatureNetwork("vgg19", (35,))), root / "vgg19.pth")
    torch.save(random_network(FeatureNetwork("vgg16", (29,))), root / "vgg.pth")
    torch.save(random_network(FeatureNetwork("alexnet", (11,))), root / "alex.pth")
    for size, last in (("tiny", 6), ("small", 6), ("base", 1)):
        torch.save(random_network(ConvNeXt(size, (last,))), root / f"{size}.pth")
    for name in ("alex", "vgg"):
        widths = NETWORKS[name][3]
        linear = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(widths)}
        torch.save(linear, root / f"lpips_{name}.pth")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_two_steps_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path, name: str
):
    monkeypatch.chdir(tmp_path)
    make_pairs(tmp_path / "pairs")
    for folder in sorted(tmp_path.glob("pairs/*/*")):
        frames = [read_image(path) for path in sorted(folder.iterdir())]
        video = tmp_path / folder.parent.name / f"{folder.name}.mkv"
        height, width = frames[0].shape[-2:]
        write_ffv1(video, iter(frames), (height, width), "")
    content = changed(COMMON, FILES[name])
    recipe = content["train"]
    recipe["total_iter"] = 2
    for key, section in recipe.items():
        if key.endswith("_opt") and "start_iter" in section:
            section["start_iter"] = 0
    recipe["perceptual_start_iter"] = 0
    for key in ("perceptual_opt", "fdl_opt"):
        if key in recipe:
            recipe[key]["weights"] = str(weights / "vgg19.pth")
    if (convnext := recipe.get("convnext_opt")) is not None:
        convnext["weights"] = str(weights / f"{convnext['model_type']}.pth")
    lpips = [recipe.get("lpips_opt"), content["val"]["metrics"].get("lpips")]
    for section in filter(None, lpips):
        net = section["net_type"]
        section["weights"] = str(weights / f"{net}.pth")
        section["linear_weights"] = str(weights / f"lpips_{net}.pth")
    for key in ("network_d", "network_d2"):
        if key in content:
            content[key]["num_feat"] = 4
    small = tree()
    content["network_g"] = small["network_g"]
    content["datasets"]["train"] |= {"num_frame": 3, "gt_size": 32, "num_worker_per_gpu": 0}
    if content["datasets"]["train"]["type"] == "DVDRecurrentDataset":
        content["datasets"]["train"] |= {"dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq"}
    content["datasets"]["val"]["num_frame"] = 2
    lines = run(read_options(written(tmp_path, name, content)))
    assert state_of(name)["step"] == 2
    assert any("val/psnr" in line for line in lines)
