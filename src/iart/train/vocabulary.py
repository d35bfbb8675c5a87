"""Keys of BasicSR 1.4.2 and of IART's published files that nothing here reads, and why.

A key whose value would change the result if it were passed over is `refused`, unless its value
means that it is not used.
"""

from typing import Any

from iart.train.section import Known


def refused(reason: str, *keys: str, unless: tuple[Any, ...] = (None,)) -> dict[str, Known]:
    """Keys that are errors, unless their value changes nothing."""
    return {key: Known(reason, only=unless) for key in keys}


def not_needed(reason: str, *keys: str) -> dict[str, Known]:
    """Keys that may have any value."""
    return {key: Known(reason) for key in keys}


_NO_GAN = "adversarial training is not done here; set it to null"
_NO_RECIPE = "pictures are not degraded on the way; make pairs with iart data degrade"
_AS_READ = "the network takes RGB in the range 0 to 1, as the files hold it"
_AHEAD = "batches are made ahead by num_worker_per_gpu threads"
_LISTED = "frames are found by listing their folder, in natural order"
_LMDB = "databases are dataroot_gt and dataroot_lq, opened for reading at random places"
_WINDOWS = "clips that do not fit into memory are scored in windows"

TOP = {
    **not_needed("every parameter is used in every step", "find_unused_parameters"),
    **not_needed("the loop knows when its graph is static", "use_static_graph"),
    **not_needed("torchrun says where processes meet, the device says how", "dist_params"),
    **refused(_NO_GAN, "network_d"),
    **refused(
        _NO_RECIPE,
        *("high_order_degradation", "queue_size", "gt_size", "l1_gt_usm", "percep_gt_usm"),
        *("gan_gt_usm", "second_blur_prob"),
        *(
            f"{key}{number}"
            for key in ("resize_prob", "resize_range", "gaussian_noise_prob", "noise_range")
            for number in ("", "2")
        ),
        *(
            f"{key}{number}"
            for key in ("poisson_scale_range", "gray_noise_prob", "jpeg_range")
            for number in ("", "2")
        ),
    ),
}
NETWORK = {
    **not_needed("attention spans 3 frames; a clip has datasets.train.num_frame", "num_frames"),
    **not_needed("the network takes pictures of any size", "img_size"),
    **not_needed("every pixel is a token", "patch_size"),
    **not_needed("memory is planned from the size of the input", "cpu_cache_length"),
    **refused("pictures have 3 channels", "in_channels", unless=(None, 3)),
    **refused("input is four times smaller than output", "is_low_res_input", unless=(None, True)),
}
IO_BACKEND = not_needed(_LMDB, "db_paths", "client_keys", "readonly", "lock", "readahead")
LOADER = {
    **not_needed("the run has a name, its training set needs none", "name"),
    **not_needed(_AHEAD, "prefetch_mode", "num_prefetch_queue", "persistent_workers"),
    **not_needed("copies to the device are small beside a step", "pin_memory"),
}
_PICTURES = {
    **not_needed(_LISTED, "filename_tmpl", "filename_ext"),
    **refused(_AS_READ, "mean", "std"),
    **refused(_AS_READ, "color", unless=(None, "rgb")),
}
PAIRS = {
    **LOADER,
    **_PICTURES,
    **refused("flow is computed by the network", "dataroot_flow"),
}
OWN_PAIRS = {
    **PAIRS,
    **not_needed("own clips are all learnt from", "val_partition", "test_mode"),
}
VALIDATION = {
    **_PICTURES,
    **not_needed("validation reads folders", "io_backend"),
    **not_needed("whole clips go through the network", "padding"),
    **refused(
        "low resolution is read from dataroot_lq; make it with iart data degrade --kind bd",
        "use_duf_downsampling",
        unless=(None, False),
    ),
}
PATH = {
    **not_needed("no discriminator is trained", "pretrain_network_d", "param_key_d"),
    **not_needed("no discriminator is trained", "strict_load_d"),
    **not_needed("a state to go on from holds all weights", "ignore_resume_networks"),
    **not_needed("results are written by iart test", "results_root"),
    **refused(
        "a run is written to experiments/<name> below the current folder; set it to null",
        "experiments_root",
    ),
}
OPTIM = {
    **refused("eps of Adam is 1e-8", "eps", unless=(None, 1e-8)),
    **refused("plain Adam and AdamW are all there is", "amsgrad", unless=(None, False)),
}
TRAIN = {
    **refused(_NO_GAN, "gan_opt", "optim_d", "feature_matching_opt", "ldl_opt", "artifacts_opt"),
    **refused("the flow network's rate is train.flow_lr_mul times that of optim_g", "lr_flow"),
    **not_needed("no discriminator is trained", "net_d_iters", "net_d_init_iters"),
    **not_needed("no discriminator is trained", "r1_reg_weight", "net_d_reg_every"),
    **not_needed("it belongs to StyleGAN", "path_batch_shrink", "path_reg_weight"),
    **not_needed("it belongs to StyleGAN", "net_g_reg_every", "mixing_prob"),
    **not_needed("it belongs to EDVR", "tsa_iter", "dcn_lr_mul"),
    **not_needed("it has no meaning in the fork either", "set_DINO_OOM"),
}
VAL = {
    **not_needed(_WINDOWS, "grids", "max_minibatch"),
    **not_needed("progress is shown where there is a terminal", "pbar"),
    **not_needed("pictures are named by clip, frame and step", "suffix"),
    **refused("clips are scored as they are", "flip_seq", unless=(None, False)),
    **refused(
        "the middle frame is scored by a set of type VideoTestVimeo90KDataset",
        "center_frame_only",
        unless=(None, False),
    ),
}
