"""What every section of an option file has in common: keys that are read, allowed and refused.

The tables at the end hold the keys of BasicSR 1.4.2 and of IART's published files that nothing here
reads, and why. A key whose value would change the result if it were passed over is `refused`,
unless its value means that it is not used.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from iart.evaluate.metrics.perceptual import WeightsFile


@dataclass(frozen=True)
class Known:
    """A key of BasicSR's that nothing here reads.

    Attributes:
        reason: why it is not needed; or, if only some values are allowed, what to do.
        only: values that change nothing; any other is refused. None allows all.
    """

    reason: str
    only: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class WrongKey:
    """Takes the place of a value whose key is refused: the check goes on to other keys.

    Attributes:
        text: why.
    """

    text: str


class Section(BaseModel):
    """Keys that are fields are used, `known` ones are allowed, all others are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    known: ClassVar[Mapping[str, Known]] = {}

    @classmethod
    def holds(cls, key: object) -> bool:
        """Whether values under `key` are used."""
        return key in cls.model_fields

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        wrong: dict[str, WrongKey] = {}
        for key, value in tree.items():
            if cls.holds(key):
                continue
            known = cls.known.get(key)
            if known is None:
                nearest = min(cls._places_below(key), key=lambda p: p.count("."), default=None)
                for near in difflib.get_close_matches(str(key), [*cls.model_fields, *cls.known], 1):
                    nearest = nearest or near
                hint = f"; the nearest known key is '{nearest}'" if nearest else ""
                wrong[str(key)] = WrongKey(f"unknown key{hint}")
            elif known.only is not None and value not in known.only:
                wrong[str(key)] = WrongKey(f"{known.reason} (got {value!r})")
        return {key: value for key, value in tree.items() if cls.holds(key)} | wrong

    @classmethod
    def _places_below(cls, key: object) -> Iterator[str]:
        """Where sections of this one have a key."""
        for name, field in cls.model_fields.items():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Section):
                    below = [key] if key in kind.model_fields else kind._places_below(key)
                    yield from (f"{name}.{place}" for place in below)

    def conflicts(self) -> Iterator[str]:
        """What is wrong with values that are right by themselves, a line each."""
        return iter(())

    @model_validator(mode="after")
    def _values_agree(self) -> "Section":
        if said := "; ".join(self.conflicts()):
            raise ValueError(said)
        return self

    def notes(self, tree: Mapping[str, Any], place: str = "") -> Iterator[str]:
        """One line for every key of `tree`, from which this was read, that is not needed."""
        for key, value in tree.items():
            known = self.known.get(key)
            if known is not None and known.only is None and value is not None:
                yield f"{place}{key} is not needed: {known.reason}"
            child = getattr(self, key) if self.holds(key) else None
            if isinstance(child, Section) and isinstance(value, Mapping):
                yield from child.notes(value, f"{place}{key}.")

    def files(self, place: str) -> tuple[WeightsFile, ...]:
        """Files of weights that losses and scores need, of the section at `place`."""
        return ()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Editors know the keys that are not needed as well."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).setdefault("properties", {})
        for key, known in cls.known.items():
            if known.only is None:
                properties[key] = {"description": f"Not needed: {known.reason}."}
            else:
                properties[key] = {"description": f"{known.reason}.", "enum": list(known.only)}
        return schema


def key_error(key: object, text: str) -> PydanticCustomError:
    """An error whose place is `key` of the section that is checked."""
    return PydanticCustomError("key", "{text}", {"key": str(key), "text": text})


def _nonempty(value: Any) -> Any:
    if value == "" or (isinstance(value, str) and "\0" in value):
        raise ValueError("a path must be text without NUL, and not empty")
    return value


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


FilePath = Annotated[Path, BeforeValidator(_nonempty), AfterValidator(_at_home)]
"""Relative to the current folder; ~ is home."""

Share = Annotated[float, Field(ge=0, le=1)]


def null_is(value: Any, kind: Any) -> BeforeValidator:
    """Reads null as `value`, in place of a `kind`."""

    def read(given: Any) -> Any:
        return value if given is None else given

    return BeforeValidator(read, json_schema_input_type=kind | None)


# ---- keys that nothing here reads


def refused(reason: str, *keys: str, unless: tuple[Any, ...] = (None,)) -> dict[str, Known]:
    """Keys that are errors, unless their value changes nothing."""
    return {key: Known(reason, only=unless) for key in keys}


def not_needed(reason: str, *keys: str) -> dict[str, Known]:
    """Keys that may have any value."""
    return {key: Known(reason) for key in keys}


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
    **refused("discriminators start from nothing; set it to null", "pretrain_network_d"),
    **not_needed("discriminators start from nothing", "param_key_d", "strict_load_d"),
    **not_needed("pictures go to experiments/<name>/visualization", "visualization"),
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
    **refused("this loss is not built here; set it to null", "ldl_opt", "artifacts_opt"),
    **refused("the flow network's rate is train.flow_lr_mul times that of optim_g", "lr_flow"),
    **not_needed("it belongs to StyleGAN", "r1_reg_weight", "net_d_reg_every"),
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
FDL = not_needed("frames are compared one by one, in the memory of one", "frame_chunk_size")
LPIPS = {
    **not_needed("losses are on the run's device", "use_gpu"),
    **refused("the loss is a mean over places", "spatial", unless=(None, False)),
    **refused("the weights are those of version 0.1", "version", unless=(None, "0.1", 0.1)),
}
VIDEO_VALIDATION = {
    **VALIDATION,
    **not_needed(_AHEAD, "prefetch_mode", "num_prefetch_queue", "persistent_workers"),
    **not_needed("copies to the device are small beside a step", "pin_memory"),
    **not_needed(
        "whole clips are scored as they are",
        *("gt_size", "interval_list", "random_reverse", "use_hflip", "use_rot", "use_shuffle"),
        *("num_worker_per_gpu", "batch_size_per_gpu", "dataset_enlarge_ratio", "val_partition"),
        *("flip_sequence",),
    ),
    **refused("sets to validate with are in test mode", "test_mode", unless=(None, True)),
}
