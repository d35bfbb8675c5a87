"""Keys of BasicSR 1.4.2 and of IART's published files that nothing here reads, and why.

A key with `only` would change the result if it were passed over: other values are refused.
"""

from iart.train.section import Known

_NO_GAN = "adversarial training is not done here; leave it out or set it to null"
_LISTED = "frames are found by listing their folder, in natural order"

TOP = {
    "model_type": Known("there is one way of training; precision is train.precision"),
    "find_unused_parameters": Known("every parameter is used in every step"),
    "use_static_graph": Known("the loop decides it from checkpointing and accumulation"),
    "dist_params": Known("torchrun says where processes meet, and the device says how"),
    "network_d": Known(_NO_GAN, only=(None,)),
}
NETWORK = {
    "num_frames": Known("attention spans 3 frames; datasets.train.num_frame is the clip's length"),
    "img_size": Known("the network takes pictures of any size"),
    "patch_size": Known("a pixel is a token"),
    "cpu_cache_length": Known("memory is planned from the input's size"),
    "is_low_res_input": Known("input is four times smaller than output", only=(None, True)),
}
IO_BACKEND = {
    "db_paths": Known("dataroot_gt and dataroot_lq are the databases"),
    "client_keys": Known("dataroot_gt and dataroot_lq are the databases"),
    "readonly": Known("databases are opened for reading only"),
    "lock": Known("databases are opened for reading only"),
    "readahead": Known("samples are read at random places"),
}
LOADER = {
    "name": Known("the section says which set it is"),
    "prefetch_mode": Known("batches are always made ahead"),
    "num_prefetch_queue": Known("batches are always made ahead"),
    "pin_memory": Known("it is done where a GPU gains by it"),
    "persistent_workers": Known("workers live as long as the run"),
}
PAIRS = LOADER | {
    "filename_tmpl": Known(_LISTED),
    "filename_ext": Known(_LISTED),
}
VALIDATION = {
    "io_backend": Known("validation reads folders"),
    "padding": Known("whole clips are scored"),
}
PATH: dict[str, Known] = {}
OPTIM = {
    "eps": Known("Adam's eps is 1e-8", only=(None, 1e-8)),
    "amsgrad": Known("plain Adam only", only=(None, False)),
}
TRAIN = {
    "gan_opt": Known(_NO_GAN, only=(None,)),
    "optim_d": Known(_NO_GAN, only=(None,)),
    "set_DINO_OOM": Known("it has no meaning in the fork either"),
}
VAL: dict[str, Known] = {
    "grids": Known("validation is windowed where memory asks for it"),
    "max_minibatch": Known("validation is windowed where memory asks for it"),
}
LOGGER: dict[str, Known] = {}
